"""node-llama-cpp, which fetches a model by its tag as `hf:REPO:TAG` and runs it in a llama.cpp of its own."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from engines.environments import NODE_LLAMA_CPP
from qa.readers import compared, running
from qa.readers.words import GGUF, Outcome, Reader, Reading, Reference, Result, Variant


def ask(variant: Variant, reference: Callable[[], Reference]) -> Outcome:
    """Tokens, the last token's distribution and a greedy answer. Its chats are not looked at: it writes a system prompt of its own into them."""
    known = reference()
    command, environment = running.node("node_llama.mjs", NODE_LLAMA_CPP)
    with tempfile.TemporaryDirectory(prefix="sluice-reader-") as folder:
        request = {"uri": f"hf:{variant.repo}:{variant.tag}", "folder": folder, **running.question(known)}
        found = running.ask(command, request, environment={**environment, "HF_ENDPOINT": str(variant.hub)})
        size = (Path(folder) / Path(found["file"]).name).stat().st_size
    if size != variant.path.stat().st_size:
        return Outcome(result=Result.OTHER, words=f"the tag fetches {Path(found['file']).name}, another file")
    reading = running.reading(found)
    return compared.judge(known, Reading(ids=reading.ids, logprobs=reading.logprobs, answer=reading.answer))


READER = Reader(name="node-llama-cpp", version=lambda: NODE_LLAMA_CPP.version, forms=frozenset({GGUF}), missing=NODE_LLAMA_CPP.missing, ask=ask, needs_hub=True)
