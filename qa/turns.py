"""How a chat template marks the turns of a conversation, found out by rendering it, and how a rendered prompt becomes tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from config.errors import MeasurementError
from engines.model import Message, Model

Render = Callable[[Sequence[Message]], str]
"""A conversation as text, without a prompt for the next answer."""

QUESTION, ANSWER, NEXT = "What is this?", "It is a probe.", "And that?"


@dataclass(frozen=True, kw_only=True)
class Turns:
    """The text that a template puts around the contents of a conversation that opens with a user's turn."""

    opening: str  # before the first user's content, BOS included
    asked: str  # between a user's content and the assistant's
    answered: str  # between an assistant's content and the next user's
    closing: str  # after an assistant's content at the end of the conversation


def find(render: Render) -> Turns:
    """The template's turns. Raises MeasurementError when it leaves out or changes the contents."""
    user, assistant, second = ({"role": role, "content": text} for role, text in (("user", QUESTION), ("assistant", ANSWER), ("user", NEXT)))
    opening, asked, answered, _ = _between(render([user, assistant, second]), QUESTION, ANSWER, NEXT)
    *_, closing = _between(render([user, assistant]), QUESTION, ANSWER)
    return Turns(opening=opening, asked=asked, answered=answered, closing=closing)


def _between(text: str, *contents: str) -> list[str]:
    pieces = []
    for content in contents:
        piece, found, text = text.partition(content)
        if not found:
            raise MeasurementError(
                f"The chat template loses or changes what was said: {content!r} is not in its place in the rendered conversation. Correct the template."
            )
        pieces.append(piece)
    return [*pieces, text]


def prompt_tokens(model: Model, text: str, bos: str) -> list[int]:
    """Tokens of a rendered prompt with one BOS at most: when the template writes `bos` itself, the tokenizer adds none, as in llama.cpp."""
    return model.tokenize(text, add_special=not (bos and text.startswith(bos)))
