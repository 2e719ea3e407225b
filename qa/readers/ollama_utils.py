"""What Ollama would make of conversations: the repo's own `template` file, else the Go template that @huggingface/ollama-utils makes; Go renders either."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engines import go_template, llama
from engines.environments import OLLAMA_UTILS
from qa import ollama
from qa.ollama import PLAIN
from qa.readers import running, templates
from qa.readers.words import GGUF, Outcome, Reader, Reference, Result, Variant

FILE, PARAMS = "template", "params"  # of a repo, that the Hub hands Ollama instead of what it would make


@dataclass(frozen=True, kw_only=True)
class Made:
    """What the Hub makes of a chat template for Ollama."""

    template: str | None  # Go's; None where it makes none
    origin: str | None  # whose it takes, or by which of its ways
    stops: tuple[str, ...]


def missing() -> str | None:
    """Go renders the templates."""
    return OLLAMA_UTILS.missing() or ("Go is not installed" if go_template.version() is None else None)


def ask(variant: Variant, reference: Callable[[], Reference]) -> Outcome:
    """No model is run: plain conversations are compared, without tools, thinking or white space around texts, and stop strings of what is made are judged."""
    template, special = templates.read(variant.path)
    own = templates.own(template, special)
    found = made(template, special)
    same, said = (False, "none is made") if found.template is None else _share(found.template, own, f"by {found.origin}")
    cut = _cutting(variant.path, found)
    if cut:
        said += f", with stop strings that answers may hold: {', '.join(map(repr, cut))}"
    if not (variant.folder / FILE).is_file():
        return Outcome(result=Result.SAME if same and not cut else Result.OTHER, words=f"no file in the repo; {said}")
    whole, told = _share((variant.folder / FILE).read_text(encoding="utf-8"), own, "by the repo's file")
    if cut and not (variant.folder / PARAMS).is_file():
        whole, told = False, f"{told}, without a {PARAMS} file against such stop strings"
    return Outcome(result=Result.SAME if whole else Result.OTHER, words=f"{told}; without it {said}")


def made(template: str, special: Mapping[str, str]) -> Made:
    """What the Hub makes of a chat template. Raises Refusal or Broken."""
    command, environment = running.node("ollama.mjs", OLLAMA_UTILS)
    found = running.ask(command, {"chat_template": template, **special}, environment=environment)
    return Made(template=found["template"], origin=found["from"], stops=tuple(found["stop"]))


def _cutting(gguf: Path, found: Made) -> list[str]:
    """Its stop strings at which answers of this file's model may end too early."""
    with llama.open_vocabulary(gguf) as vocabulary:
        ends, special = ({vocabulary.piece(token) for token in tokens} for tokens in (vocabulary.end_of_generation, vocabulary.control))
        return ollama.cutting(found.stops, ends=ends, special=special)


def _share(template: str, own: templates.Own, by: str) -> tuple[bool, str]:
    proof = ollama.prove(template, own)[PLAIN]
    return proof.whole, f"{proof.same} of {proof.of} conversations {by}"


READER = Reader(
    name="ollama-utils + Go", version=lambda: f"{OLLAMA_UTILS.version}, {go_template.version()}", forms=frozenset({GGUF}), missing=missing, ask=ask,
    rests_on=(FILE, PARAMS),
)  # fmt: skip
