"""Conversations that a chat template renders or refuses, but at which it must not break, and how a template takes them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from builders.fixes.templates import CONVERSATIONS, TOOL, Template
from config.errors import MeasurementError, TemplateRefusal
from engines import chat
from engines.model import Message

_ASKS = CONVERSATIONS[0][0]
_RESULT: Message = {"role": "tool", "name": "paint", "tool_call_id": "call00001", "content": "done"}


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One kind of conversation in the forms that it comes in: a template need take one of them."""

    title: str
    forms: tuple[Sequence[Message], ...]
    tools: bool = False


class Fate(Enum):
    """What becomes of a conversation that is not rendered."""

    REFUSED = "the template says by raise_exception that it does not take it"
    BROKEN = "the template breaks"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a template takes the forms of a probe."""

    probe: Probe
    texts: tuple[str | Fate, ...]
    said: str  # by the first form that breaks

    @property
    def broken(self) -> bool:
        """Whether it takes none of them."""
        return all(text is Fate.BROKEN for text in self.texts)


def _calls(arguments: object) -> Sequence[Message]:
    """A tool is called once, and once more after its result."""
    call = {"type": "function", "id": "call00001", "function": {"name": "paint", "arguments": arguments}}
    calls: Message = {"role": "assistant", "content": "", "tool_calls": [call]}
    return (_ASKS, calls, _RESULT, calls, _RESULT)


_ARGUMENTS = {"colour": "red"}
PROBES = (
    Probe(title="a question", forms=(CONVERSATIONS[0],)),
    Probe(title="questions and answers", forms=(CONVERSATIONS[4],)),
    Probe(title="a system message", forms=(CONVERSATIONS[2],)),
    Probe(title="a question with a tool offered", forms=((_ASKS,),), tools=True),
    Probe(title="calls of a tool and their results", forms=(_calls(_ARGUMENTS), _calls(json.dumps(_ARGUMENTS))), tools=True),
)


def outcomes(template: Template, text: str, roles: Mapping[str, str]) -> tuple[Outcome, ...]:
    """How `text` in the template's place takes each kind of conversation; one that is chosen by name for tools, those with tools."""
    return tuple(_outcome(text, probe, roles) for probe in PROBES if template.name == "default" or probe.tools)


def _outcome(text: str, probe: Probe, roles: Mapping[str, str]) -> Outcome:
    found: list[str | Fate] = []
    said = ""
    for messages in probe.forms:
        try:
            found.append(chat.render(text, messages, special_tokens=roles, add_generation_prompt=True, tools=[TOOL] if probe.tools else None))
        except TemplateRefusal:
            found.append(Fate.REFUSED)
        except MeasurementError as error:
            found.append(Fate.BROKEN)
            said = said or str(error)
    return Outcome(probe=probe, texts=tuple(found), said=said)
