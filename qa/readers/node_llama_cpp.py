"""node-llama-cpp, which fetches a model by its tag as `hf:REPO:TAG` and runs it in a llama.cpp of its own."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from config.errors import MeasurementError
from engines.environments import NODE_LLAMA_CPP
from qa.batteries import Conversation
from qa.readers import compared, running, templates
from qa.readers.words import GGUF, Outcome, Reader, Reference, Result, Variant


def ask(variant: Variant, reference: Callable[[], Reference]) -> Outcome:
    """Tokens, the last token's distribution and a greedy answer. How it writes a chat is told beside these, for that is no reading of the file."""
    known = reference()
    command, environment = running.node("node_llama.mjs", NODE_LLAMA_CPP)
    with tempfile.TemporaryDirectory(prefix="sluice-reader-") as folder:
        request = {"uri": f"hf:{variant.repo}:{variant.tag}", "folder": folder, **running.question(known)}
        found = running.ask(command, request, environment={**environment, "HF_ENDPOINT": str(variant.hub)})
        size = (Path(folder) / Path(found["file"]).name).stat().st_size
    if size != variant.path.stat().st_size:
        return Outcome(result=Result.OTHER, words=f"the tag fetches {Path(found['file']).name}, another file")
    outcome = compared.judge(known, running.reading(found))
    return replace(outcome, words=f"{outcome.words}; {_chat(variant, found['prompt'])}")


def _chat(variant: Variant, prompt: str) -> str:
    """How a question becomes a prompt there."""
    try:
        template, special = templates.read(variant.path)
        own = templates.own(template, special)(Conversation(messages=[{"role": "user", "content": "Hello!"}]))
    except MeasurementError:
        return "no template to write chats by"
    return "chats as by the template" if prompt.removeprefix("BOS") == own.removeprefix(special["bos_token"]) else "chats otherwise than by the template"


READER = Reader(name="node-llama-cpp", version=lambda: NODE_LLAMA_CPP.version, forms=frozenset({GGUF}), missing=NODE_LLAMA_CPP.missing, ask=ask, needs_hub=True)
