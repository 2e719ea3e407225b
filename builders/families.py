"""Tells the author of a family file what is wrong with it: what cannot be read, what contradicts the templates that it names, what other families take too.

Templates are programs, those named in a family file not a stranger's: they are rendered here under the limits of `engines.chat`.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from builders.fixes.templates import ANSWER, TURN
from config.errors import ConfigurationError, MeasurementError, ToolError
from config.files import load_model
from config.near import hint, meant
from config.rules import FAMILIES, Family, load_families
from engines import chat, ollama_library, toolchain

BOS = "<bos>"  # for templates that write `bos_token`
_TOKEN = re.compile(r"<[|｜]?[^<>\s'\"]{1,40}>|\[/?[A-Z_]{2,40}\]")  # what special tokens look like
_ALIKE = 0.75  # similarity at which a token that is not there is taken for another one


def check(path: Path, *, families: Path = FAMILIES) -> list[str]:
    """What is wrong with the family file, in sentences; nothing when all that it says is borne out by its templates."""
    try:
        family = load_model(path, Family)
        others = [other for other in load_families(families) if other.name != family.name]
    except ConfigurationError as error:
        return [str(error)]
    return list(_faults(family, path, others))


def find(name: str, path: Path) -> str | None:
    """The template that a family file at `path` names: a file beside it or of llama.cpp's collection, or that of a model of Ollama's library, which has a colon
    in its name. None when there is no such one. Raises ToolError when that library's templates are not installed.
    """
    if ":" in name:
        return ollama_library.templates().get(name)
    return next(((folder / name).read_text(encoding="utf-8") for folder in _collections(path) if (folder / name).is_file()), None)


def _collections(path: Path) -> list[Path]:
    """Folders of templates, those that are there."""
    folders = [path.parent / "templates"]
    with suppress(ToolError):  # llama.cpp is not installed: the family's own templates can be looked at all the same
        folders.append(toolchain.sources() / "models" / "templates")
    return [folder for folder in folders if folder.is_dir()]


def _faults(family: Family, path: Path, others: Sequence[Family]) -> Iterator[str]:
    if path.stem != family.name:
        yield f"the file is called {path.name}, and its family {family.name}: call it {family.name}.yaml"
    yield from _unknown_types(family)
    for name in family.ollama:
        if not (path.parent / "templates" / name).is_file():
            yield f"`ollama`: there is no file {name} in {path.parent / 'templates'}"
    if not family.templates:
        yield (
            "`templates` names none, so that nothing proves what the file says: name one of llama.cpp's or a model of Ollama's library, or put one into "
            "`templates/` beside it"
        )
    for name in family.templates:
        try:
            text = find(name, path)
        except ToolError as error:
            yield f"{name}: the templates of Ollama's library cannot be looked at. {error}"
            continue
        if text is None:
            yield _nowhere(name, path)
        else:
            yield from (
                f"{name}: {fault}"
                for fault in (*_unrecognised(family, text), *_shared(family, text, others), *_wrong_turn(family, text), *_wrong_opening(family, text))
            )


def _nowhere(name: str, path: Path) -> str:
    if ":" in name:
        return f"@huggingface/ollama-utils knows no template of a model {name}.{hint(name, list(ollama_library.templates()))}"
    there = [file.name for folder in _collections(path) for file in folder.glob("*.jinja")]
    return f"there is no template {name}, neither in {path.parent / 'templates'} nor in llama.cpp's collection.{hint(name, there)}"


def _unknown_types(family: Family) -> Iterator[str]:
    from transformers import CONFIG_MAPPING

    known = list(CONFIG_MAPPING.keys())
    for kind in family.model_types:
        if kind not in known:
            yield f"`model_types`: transformers knows no architecture {kind!r}.{hint(kind, known)}"


def _unrecognised(family: Family, text: str) -> Iterator[str]:
    """Pieces that are not in the template, or should not be."""
    if family.template is None:
        return
    tokens = set(_TOKEN.findall(text))
    for piece in family.template.holds:
        if piece not in text:
            near = meant(piece, tokens, cutoff=_ALIKE)
            yield f"`template.holds`: {piece!r} does not occur in it." + ("" if near is None else f" Did you mean {near!r}?")
    for piece in family.template.lacks:
        if piece in text:
            yield f"`template.lacks`: {piece!r} occurs in it, so that the family is not recognised."


def _shared(family: Family, text: str, others: Sequence[Family]) -> Iterator[str]:
    """Other families that take the same release. One of the two that asks for a repo's name as well goes before, so that they do not collide."""
    if family.repo is not None:
        return
    for other in others:
        both = sorted({kind for kind in family.model_types if other.fits(kind, text)})
        if both and other.repo is None:
            yield f"the family {other.name} takes it too, as {', '.join(both)}: say in `template` what tells them apart."


def _wrong_turn(family: Family, text: str) -> Iterator[str]:
    """Whether the template ends an answer as the family says."""
    try:
        rendered = chat.render(text, TURN, special_tokens={"bos_token": BOS, "eos_token": family.end_of_turn or "<eos>"})
    except MeasurementError as error:
        yield f"it does not render a question and its answer. {error}"
        return
    rest = rendered.rpartition(ANSWER)[2].lstrip()
    if ANSWER not in rendered:
        yield "it leaves the answer out of a conversation that ends with one."
    elif family.end_of_turn is not None and not rest.startswith(family.end_of_turn):
        yield f"`end_of_turn`: it does not write {family.end_of_turn!r} after an answer, but {rest[:40]!r}." + _proposal(rest)
    elif family.end_of_turn is None and rest:
        yield f"`end_of_turn` is left out, and it writes {rest[:40]!r} after an answer." + _proposal(rest)


def _wrong_opening(family: Family, text: str) -> Iterator[str]:
    """Whether prompts end as the family says."""
    if not family.opens:
        return
    try:
        prompt = chat.render(text, TURN[:1], special_tokens={"bos_token": BOS}, add_generation_prompt=True, variables={"enable_thinking": True})
    except MeasurementError as error:
        yield f"it does not render a prompt. {error}"
        return
    if not prompt.endswith(family.opens):
        yield f"`opens`: its prompts do not end with {family.opens!r}, but with {prompt[-40:]!r}."


def _proposal(rest: str) -> str:
    token = _TOKEN.match(rest)
    return "" if token is None else f" Did you mean {token.group()!r}?"
