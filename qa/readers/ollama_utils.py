"""What Ollama would make of conversations: the repo's own `template` file, else the Go template that @huggingface/ollama-utils makes; Go renders either."""

from collections.abc import Callable

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
    command, environment = running.node("ollama.mjs", OLLAMA_UTILS)
    found = running.ask(command, {"chat_template": template, **special}, environment=environment)
    made = "none is made" if found["template"] is None else f"{_share(found['template'], own)[1]} by {found['from']}"
    file = variant.folder / FILE
    if file.is_file():
        whole, told = _share(file.read_text(encoding="utf-8"), own)
        return Outcome(result=Result.SAME if whole else Result.OTHER, words=f"{told} by the repo's file; without it {made}")
    whole = found["template"] is not None and _share(found["template"], own)[0]
    return Outcome(result=Result.SAME if whole else Result.OTHER, words=f"no file in the repo; {made}")


def _share(template: str, own: templates.Own) -> tuple[bool, str]:
    proof = ollama.prove(template, own)[PLAIN]
    return proof.whole, f"{proof.same} of {proof.of} conversations"


READER = Reader(
    name="ollama-utils + Go", version=lambda: f"{OLLAMA_UTILS.version}, {go_template.version()}", forms=frozenset({GGUF}), missing=missing, ask=ask,
    rests_on=(FILE,),
)  # fmt: skip
