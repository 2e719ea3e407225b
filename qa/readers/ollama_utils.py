"""What Ollama would make of conversations: the repo's own `template` file, else the Go template that @huggingface/ollama-utils makes; Go renders either."""

from collections.abc import Callable, Mapping

from engines import go_template
from engines.environments import OLLAMA_UTILS
from qa import ollama
from qa.ollama import PLAIN
from qa.readers import running, templates
from qa.readers.words import GGUF, Outcome, Reader, Reference, Result, Variant

FILE = "template"  # of a repo, that the Hub hands Ollama instead of what it would make


def missing() -> str | None:
    """Go renders the templates."""
    return OLLAMA_UTILS.missing() or ("Go is not installed" if go_template.version() is None else None)


def ask(variant: Variant, reference: Callable[[], Reference]) -> Outcome:
    """No model is run; conversations without tools, thinking or white space around texts are compared."""
    template, special = templates.read(variant.path)
    own = templates.own(template, special)
    found, origin = made(template, special)
    said = "none is made" if found is None else f"{_share(found, own)[1]} by {origin}"
    file = variant.folder / FILE
    if file.is_file():
        whole, told = _share(file.read_text(encoding="utf-8"), own)
        return Outcome(result=Result.SAME if whole else Result.OTHER, words=f"{told} by the repo's file; without it {said}")
    whole = found is not None and _share(found, own)[0]
    return Outcome(result=Result.SAME if whole else Result.OTHER, words=f"no file in the repo; {said}")


def made(template: str, special: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The Go template that the Hub makes of a chat template for Ollama, and whose it takes or by which of its ways. Raises Refusal or Broken."""
    command, environment = running.node("ollama.mjs", OLLAMA_UTILS)
    found = running.ask(command, {"chat_template": template, **special}, environment=environment)
    return found["template"], found["from"]


def _share(template: str, own: templates.Own) -> tuple[bool, str]:
    proof = ollama.prove(template, own)[PLAIN]
    return proof.whole, f"{proof.same} of {proof.of} conversations"


READER = Reader(
    name="ollama-utils + Go", version=lambda: f"{OLLAMA_UTILS.version}, {go_template.version()}", forms=frozenset({GGUF}), missing=missing, ask=ask,
    rests_on=(FILE,),
)  # fmt: skip
