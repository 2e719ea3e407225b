"""Ways to write a chat template without a text that it writes by default. Which of them is right, rendering tells."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product

MOST = 256  # ways that are tried
PIECE = 20  # characters of a default from which on a text is taken for a piece of it, as where the day is put into it
TAKEN_OUT = "Written no more where a conversation has no system message"

Change = Mapping[int, str]
"""What stands in the place of parts, by their number."""

_TEXT = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""  # within a tag
_LITERAL = re.compile(_TEXT, re.DOTALL)
_PART = re.compile(
    rf"\{{#.*?#\}}|\{{\{{(?:{_TEXT}|[^'\"])*?\}}\}}|\{{%(?:{_TEXT}|[^'\"])*?%\}}|(?:(?!\{{[#{{%]).)+", re.DOTALL
)  # a comment, an output, a statement, or text outside of tags
_OUTPUT = re.compile(r"(\{\{[-+]?\s*)(.*?)(\s*[-+]?\}\})", re.DOTALL)
_SET = re.compile(r"\{%[-+]?\s*set\s+([\w.]+)\s*=\s*(.*?)\s*[-+]?%\}", re.DOTALL)
_PREPENDED = re.compile(rf"\[\s*\{{(?:{_TEXT}|[^'\"{{}}])*\}}\s*\]\s*\+\s*", re.DOTALL)


def candidates(template: str, default: str) -> Iterator[str]:
    """The template without the default where a branch writes it, and with none where a variable has it, the plainest first."""
    parts = _PART.findall(template)
    places = [number for number, part in enumerate(parts) if _holds(part, default)]
    if not places or "".join(parts) != template:
        return
    stated = [number for number in places if _SET.fullmatch(parts[number])]
    ways = [list(_unwritten(parts, number, default)) for number in places if number not in stated]
    if stated:
        ways.append(list(_unset(parts, stated, default)))
    for chosen in islice(product(*ways), MOST):
        yield _changed(parts, *chosen)


def commented(template: str, said: Sequence[str]) -> str:
    """The template with what it said and says no more in a comment before it, so that whoever looks for pieces of its source still knows whose it is."""
    quoted = " … ".join(text.strip() for text in said).replace("#}", "# }")
    return f"{{# {TAKEN_OUT}: {quoted} #}}{template}"


def sources(template: str, default: str) -> tuple[str, ...]:
    """The default as the template's source has it, in pieces where that puts it together: itself where it stands there as it is rendered."""
    parts = (part for part in _PART.findall(template) if _holds(part, default))
    return tuple(dict.fromkeys(default if default in source else source for part in parts for source in _sources(part, default)))


def _sources(part: str, default: str) -> Iterator[str]:
    if part.startswith(("{{", "{%")):
        yield from (found.group()[1:-1] for found in _LITERAL.finditer(part) if _states(found.group(), default))
    else:
        yield part


def _changed(parts: Sequence[str], *changes: Change) -> str:
    together = {number: part for change in changes for number, part in change.items()}
    return "".join(together.get(number, part) for number, part in enumerate(parts))


def _holds(part: str, default: str) -> bool:
    if part.startswith("{#"):
        return False
    return any(_states(found.group(), default) for found in _LITERAL.finditer(part)) if part.startswith(("{{", "{%")) else default in part


def _states(literal: str, default: str) -> bool:
    """Whether it holds the default, or is a piece of it."""
    said = _read(literal)
    return default in said or (len(said) >= PIECE and said in default)


def _read(literal: str) -> str:
    """What a literal says, as Jinja's lexer reads it."""
    try:
        return literal[1:-1].encode("ascii", "backslashreplace").decode("unicode-escape")
    except UnicodeDecodeError:
        return ""


def _with(part: str, default: str, instead: str | None) -> str:
    """The part with each literal that holds the default replaced; by itself without the default where `instead` is None."""

    def written(found: re.Match[str]) -> str:
        if not _states(found.group(), default):
            return found.group()
        return instead if instead is not None else json.dumps(_read(found.group()).replace(default, ""), ensure_ascii=False)

    return _LITERAL.sub(written, part)


def _unwritten(parts: Sequence[str], place: int, default: str) -> Iterator[Change]:
    """Without all that is written in the same branch, without the text that holds the default, or without the default alone."""
    part = parts[place]
    yield {number: "" for number in _branch(parts, place) if not _SET.fullmatch(parts[number])}
    if part.startswith(("{{", "{%")):
        yield {place: _with(part, default, "''")}
        yield {place: _with(part, default, None)}
    else:
        yield {place: part.replace(default, "")}


def _branch(parts: Sequence[str], place: int) -> range:
    """The parts around it that are written together with it, between two statements that branch."""

    def divides(part: str) -> bool:
        return part.startswith("{%") and not _SET.fullmatch(part)

    first = next((number + 1 for number in range(place, -1, -1) if divides(parts[number])), 0)
    last = next((number for number in range(place, len(parts)) if divides(parts[number])), len(parts))
    return range(first, last)


def _unset(parts: Sequence[str], places: Sequence[int], default: str) -> Iterator[Change]:
    """Variables that hold the default: not set at all, no message put before the others, or none, which is then not written."""
    yield dict.fromkeys(places, "")
    if (shorter := {place: _PREPENDED.sub("", parts[place]) for place in places}) != {place: parts[place] for place in places}:
        yield shorter
    nothing = [{place: _with(parts[place], default, "none") for place in places}, {place: _SET.sub(_to_none, parts[place]) for place in places}]
    names = _names(parts, places, default)
    writing = [number for number, part in enumerate(parts) if part.startswith("{{") and any(_named(name).search(part) for name in names)]
    for chosen in product(nothing, *(list(_unwritten_where_none(parts, number, names)) for number in writing)):
        yield {number: part for change in chosen for number, part in change.items()}


def _to_none(statement: re.Match[str]) -> str:
    start, end = (place - statement.start() for place in statement.span(2))
    return f"{statement.group()[:start]}none{statement.group()[end:]}"


def _names(parts: Sequence[str], places: Sequence[int], default: str) -> tuple[str, ...]:
    """The variables that hold the default, as they are written: `system_message`, `ns.system`, and others that are set to them."""
    found: dict[str, None] = {}
    for place in places:
        if (statement := _SET.fullmatch(parts[place])) is None:
            continue
        name, value = statement.groups()
        if value.startswith("namespace"):
            for literal in _LITERAL.finditer(value):
                if _states(literal.group(), default) and (key := re.search(r"(\w+)\s*=\s*$", value[: literal.start()])):
                    found[f"{name}.{key.group(1)}"] = None
        else:
            found[name] = None
    for part in parts:
        if (statement := _SET.fullmatch(part)) is not None:
            name, value = statement.groups()
            keys = re.findall(r"(\w+)\s*=\s*([\w.]+)", value) if value.startswith("namespace") else ()
            found |= {f"{name}.{key}": None for key, other in keys if other in found} | ({name: None} if value in found else {})
    return tuple(found)


def _named(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.]){re.escape(name)}(?![\w(])")


def _unwritten_where_none(parts: Sequence[str], number: int, names: Sequence[str]) -> Iterator[Change]:
    """An output that names a variable, where that is none: left out, with empty text for the variable alone, left out with what is written beside it."""
    opening, said, closing = _OUTPUT.fullmatch(parts[number]).groups()  # type: ignore[union-attr] # _PART lets no other output in
    name = next(name for name in names if _named(name).search(said))
    yield {number: f"{opening}({said}) if {name} is not none else ''{closing}"}
    literals = _LITERAL.findall(said)
    outside = [_named(name).sub(f"({name} if {name} is not none else '')", text) for text in _LITERAL.split(said)]
    yield {number: opening + "".join(text + literal for text, literal in zip(outside, [*literals, ""], strict=True)) + closing}
    branch = _branch(parts, number)
    beside = {branch[0]: parts[branch[0]], branch[-1]: parts[branch[-1]]}
    beside[branch[0]] = f"{{% if {name} is not none %}}{beside[branch[0]]}"
    beside[branch[-1]] += "{% endif %}"
    yield beside
