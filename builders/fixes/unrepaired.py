"""Says what is wrong with a chat template that no rule repairs: parts of it that break when a conversation reaches them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from builders.fixes.edits import Files
from builders.fixes.templates import CONVERSATIONS, TOOL, Template, templates
from builders.fixes.vocabulary import named
from config.errors import MeasurementError, TemplateRefusal
from engines import chat
from engines.model import Message

_CALL = {"type": "function", "id": "call00001", "function": {"name": "paint", "arguments": {"colour": "red"}}}
_CALLS: Message = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
_RESULT: Message = {"role": "tool", "name": "paint", "tool_call_id": "call00001", "content": "done"}
_ASKS = CONVERSATIONS[0][0]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A conversation that a template renders or refuses, but never breaks at."""

    title: str
    messages: Sequence[Message]
    tools: bool = False


PROBES = (
    Probe(title="a question", messages=CONVERSATIONS[0]),
    Probe(title="questions and answers", messages=CONVERSATIONS[4]),
    Probe(title="a question with a tool offered", messages=(_ASKS,), tools=True),
    Probe(title="a call of a tool and its result", messages=(_ASKS, _CALLS, _RESULT), tools=True),
)


def broken(files: Files) -> Iterator[str]:
    """A sentence for each template and kind of conversation at which it breaks. Saying by raise_exception that it does not take one is no fault."""
    roles = named(files)
    for template in templates(files):
        for probe in PROBES:
            if (template.name == "default" or probe.tools) and (said := _said(template, probe, roles)):
                name = "" if template.name == "default" else f" {template.name!r}"
                yield f"{template.file}: the chat template{name} breaks at {probe.title}. {said}"


def _said(template: Template, probe: Probe, roles: dict[str, str]) -> str:
    """The error, "" where there is none."""
    prompted = probe.messages[-1]["role"] != "assistant"
    try:
        chat.render(template.text, probe.messages, special_tokens=roles, add_generation_prompt=prompted, tools=[TOOL] if probe.tools else None)
    except TemplateRefusal:
        return ""
    except MeasurementError as error:
        return str(error)
    return ""
