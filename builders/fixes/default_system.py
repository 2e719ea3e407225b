"""Takes the system prompt out of chat templates that they write where a conversation brings none, for recipes that say `system_prompt: remove`.

Only a default is taken out: what a template writes before a system message as well, as Llama 3's does with the day, belongs to its format and stays.
What was taken out stays in a comment: of the source of a template, families of models are known by pieces, and these may be among them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from builders.fixes.edits import Edit, Files
from builders.fixes.probes import PROBES
from builders.fixes.removals import candidates, commented, sources
from builders.fixes.templates import ANSWER, TOOL, TURN, Template, templates
from builders.fixes.vocabulary import named
from config import alike
from config.errors import MeasurementError, UpstreamError
from config.rules import Family
from engines import chat
from engines.model import Message

SHOWN = 60  # characters of the prompt that are shown
SYSTEM = "sluice-system"  # a system message that occurs in no template
_USER, _ASSISTANT = TURN
_QUESTION = str(_USER["content"])
_BARE: tuple[Sequence[Message], ...] = (
    (_USER,), TURN, (*TURN, _USER), (*TURN, *TURN, _USER), (_ASSISTANT, _USER), *(messages for probe in PROBES if probe.tools for messages in probe.forms)
)  # fmt: skip
_OPTIONS = tuple(product((True, False), (False, True), (True, False)))  # a prompt for the answer, a tool on offer, thinking


@dataclass(frozen=True, kw_only=True)
class Default:
    """The system prompt that a template writes where there is none, and what stands around it."""

    before: str
    text: str
    opening: str  # all that stands before the first question
    bare: str  # what is to stand there
    turn: str  # what is too much there, where the prompt has a turn of its own; else empty

    def taken_out(self, rendered: str) -> str:
        """A conversation without a system message as it is to be. Tools that stand in the same turn as the prompt stay there."""
        if rendered.startswith(self.opening):
            return self.bare + rendered.removeprefix(self.opening)
        if self.turn and self.turn in rendered:
            return rendered.replace(self.turn, "", 1)
        if rendered.startswith(self.before + self.text):
            return self.before + rendered.removeprefix(self.before + self.text)
        return rendered


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Rewrite each template that writes a system prompt of its own: conversations without a system message lose it with its turn, all else stays the same.

    Raises UpstreamError when one does and no rewriting is proved; then none is changed.
    """
    del family
    return [edit for template in templates(files) for edit in _rewritten(template, named(files))]


def _rewritten(template: Template, roles: Mapping[str, str]) -> Iterator[Edit]:
    default = find(template.text, roles)
    if default is None:
        return
    shown = repr(default.text if len(default.text) <= SHOWN else f"{default.text[:SHOWN]}…")
    others = (find(template.text, roles, tools=tools, thinking=thinking) for tools, thinking in product((False, True), repeat=2))
    known = all(other is None or default.taken_out(other.opening) != other.opening for other in others)  # else it writes another one there
    cases = list(_wanted(template.text, default, roles))
    said = sources(template.text, default.text)
    for rewritten in candidates(template.text, default.text) if known else ():
        text = commented(rewritten, said)
        if all(_render(text, messages, roles, options) == wanted for messages, options, wanted in cases):
            yield Edit(file=template.file, key=template.key, after=text, because=f"the template wrote {shown}")
            return
    place = template.file + (f" ({'.'.join(map(str, template.key))})" if template.key else "")
    raise UpstreamError(
        f"{place}: the chat template writes {shown} where a conversation has no system message, as the recipe's `system_prompt: remove` forbids, and no change "
        "of it is known that takes this out and leaves all else as it is. Say `system_prompt: keep`, or take it out in a copy of the model and release that."
    )


def find(text: str, roles: Mapping[str, str], *, tools: bool = False, thinking: bool = True) -> Default | None:
    """The default of a template, with tools on offer or without; None where it has none."""
    alone, ruled = (_render(text, messages, roles, (True, tools, thinking)) for messages in ((_USER,), ({"role": "system", "content": SYSTEM}, _USER)))
    talk, ended = (_render(text, messages, roles, (False, tools, thinking)) for messages in ((*TURN, _USER), TURN))
    if alone is None or ruled is None or talk is None or ended is None or SYSTEM not in ruled or ANSWER not in talk:
        return None
    opening = alone.partition(_QUESTION)[0]
    before, _, after = ruled.partition(_QUESTION)[0].partition(SYSTEM)
    if not opening.startswith(before) or not opening.endswith(after) or len(opening) <= len(before) + len(after):
        return None
    bos = roles.get("bos_token", "")
    bos = bos if bos and opening.startswith(bos) else ""
    asks, ends = talk.rpartition(ANSWER)[2].partition(_QUESTION)[0], ended.rpartition(ANSWER)[2]
    header = (_after(asks, ends) if ends else _like(asks, opening.removeprefix(bos))).lstrip().removeprefix(bos)
    return Default(
        before=before,
        text=opening[len(before) : len(opening) - len(after)],
        opening=opening,
        bare=bos + header,
        turn=opening.removeprefix(bos).removesuffix(header) if header and opening.endswith(header) else "",
    )


def _after(asks: str, ends: str) -> str:
    """The header of a question, which stands behind what ends an answer."""
    return asks[alike.shared(asks, ends) :]


def _like(asks: str, opening: str) -> str:
    """The same where a conversation's last answer has no end: from where most looks like the beginning of a conversation."""
    return max((asks[place:] for place in range(len(asks))), key=lambda rest: alike.shared(rest, opening), default="")


def _wanted(text: str, default: Default, roles: Mapping[str, str]) -> Iterator[tuple[Sequence[Message], tuple[bool, ...], str | None]]:
    """Conversations with the text that each is to become; None where the template takes it not."""
    later = (*TURN, {"role": "system", "content": SYSTEM}, _USER)
    ruled = [({"role": "system", "content": content}, *messages) for content in (SYSTEM, "", default.text) for messages in _BARE]
    wishes: tuple[tuple[Sequence[Sequence[Message]], Callable[[str], str]], ...] = (((*_BARE, later), default.taken_out), (ruled, str))
    for conversations, wish in wishes:
        for messages, options in product(conversations, _OPTIONS):
            rendered = _render(text, messages, roles, options)
            yield messages, options, None if rendered is None else wish(rendered)


def _render(text: str, messages: Sequence[Message], roles: Mapping[str, str], options: tuple[bool, ...]) -> str | None:
    prompting, tools, thinking = options
    try:
        return chat.render(
            text,
            messages,
            special_tokens=roles,
            add_generation_prompt=prompting,
            tools=[TOOL] if tools else None,
            variables={"enable_thinking": thinking},
        )
    except MeasurementError:
        return None
