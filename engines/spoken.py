"""How conversations of the data are put to a model that does not take them as they are: one whose template refuses some of them or breaks on them, and one
without a template.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from config.errors import MeasurementError, TemplateRefusal
from engines.model import Message

Render = Callable[[Sequence[Message]], str]
"""A conversation as text. Raises TemplateRefusal for one that the template does not take."""

QUESTION: Sequence[Message] = ({"role": "user", "content": "Hello!"},)  # what every chat template takes

BETWEEN = "\n\n"  # what was said by two messages that become one, and by two messages of a conversation in plain text


@dataclass(frozen=True, kw_only=True)
class Voice:
    """How a model writes and reads conversations: its template and its tokenizer, of whichever engine."""

    render: Render  # without the BOS that the tokenizer adds by itself; `plain` where there is no template
    encode: Callable[[str], list[int]]  # special tokens count as such, and none are added
    bos: int | None  # the token with which the tokenizer begins every text by itself
    special: Collection[int]  # ids of special tokens


def plain(messages: Sequence[Message]) -> str:
    """What a model without a chat template reads of a conversation: what was said, a paragraph for each message, and no word on who said it."""
    return "".join(f"{content}{BETWEEN}" for content in map(_said, messages) if content)


def taken(render: Render, messages: Sequence[Message]) -> tuple[Sequence[Message], str] | None:
    """A conversation as the template takes it, with its text; None when it takes no form of it. See `tried`."""
    found = tried(render, messages)
    return None if isinstance(found, MeasurementError) else found


def tried(render: Render, messages: Sequence[Message]) -> tuple[Sequence[Message], str] | MeasurementError:
    """A conversation as the template takes it, with its text; or why it takes no form of it: a TemplateRefusal, or another error where it breaks.

    Templates may refuse the system role, or turns that do not alternate. As chat front ends do, the system's text is then put before the next question, and
    messages of one speaker in a row are joined. A template that takes the conversation gets it unchanged. Many were tried on questions and answers alone, and
    break on an empty content beside a tool call for instance: that is this conversation's fate. Raises MeasurementError when a plain question breaks it too.
    """
    failed: list[MeasurementError] = []
    for form in chain((messages,), _adaptations(messages)):
        try:
            return form, render(form)
        except TemplateRefusal as error:
            failed.append(error)
        except MeasurementError as error:
            render(QUESTION)
            failed.append(error)
    return next((error for error in failed if not isinstance(error, TemplateRefusal)), failed[0])


def _adaptations(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """The same conversation without system messages, and without two messages of one speaker in a row; nothing where neither changes it."""
    folded = _without_system(messages)
    if folded != list(messages):
        yield folded
    joined = _alternating(folded)
    if joined != folded:
        yield joined


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """What the system says is put before the next question; without one, it is left where it was, for the template to refuse."""
    waiting: list[Message] = []
    found: list[Message] = []
    for message in messages:
        if message.get("role") == "system" and isinstance(message.get("content"), str):
            waiting.append(message)
        elif waiting and message.get("role") == "user" and isinstance(message.get("content"), str):
            found.append({**message, "content": _joined(*waiting, message)})
            waiting = []
        else:
            found.append(message)
    return [*found, *waiting]


def _alternating(messages: Sequence[Message]) -> list[Message]:
    """Neighbouring messages of the same role as one, where both hold nothing but text."""
    found: list[Message] = []
    for message in messages:
        before = found[-1] if found else {}
        if before.get("role") == message.get("role") and all(
            set(item) == {"role", "content"} and isinstance(item["content"], str) for item in (before, message)
        ):
            found[-1] = {**message, "content": _joined(before, message)}
        else:
            found.append(message)
    return found


def _joined(*messages: Message) -> str:
    return BETWEEN.join(content for content in map(_said, messages) if content)


def _said(message: Message) -> str:
    content = message.get("content")
    return content.strip() if isinstance(content, str) else ""
