"""Conversations for templates that refuse some of them, and for models without one."""

import pytest

from config.errors import MeasurementError, TemplateRefusal
from engines import chat, spoken
from engines.model import Message
from tests.releases import REFUSING

SYSTEM = {"role": "system", "content": "You are terse."}
ASKS, ANSWERS, AGAIN = {"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hi."}, {"role": "user", "content": "Why?"}


def render(messages: object) -> str:
    return chat.render(REFUSING, messages, special_tokens={})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("messages", "wanted"),
    [
        ([ASKS, ANSWERS], [ASKS, ANSWERS]),
        ([SYSTEM, ASKS, ANSWERS], [{"role": "user", "content": "You are terse.\n\nHello!"}, ANSWERS]),
        ([ASKS, AGAIN, ANSWERS], [{"role": "user", "content": "Hello!\n\nWhy?"}, ANSWERS]),
        ([ASKS, ANSWERS, SYSTEM, AGAIN], [ASKS, ANSWERS, {"role": "user", "content": "You are terse.\n\nWhy?"}]),
        ([SYSTEM, SYSTEM, ASKS], [{"role": "user", "content": "You are terse.\n\nYou are terse.\n\nHello!"}]),
    ],
)
def test_what_a_template_refuses_is_said_otherwise(messages: list[Message], wanted: list[Message]) -> None:
    assert spoken.taken(render, messages) == (wanted, render(wanted))


@pytest.mark.parametrize("messages", [[SYSTEM], [ANSWERS, ASKS], [ASKS, ANSWERS, {"role": "tool", "content": "sunny"}]])
def test_what_it_refuses_in_every_form_is_left_out(messages: list[Message]) -> None:
    assert spoken.taken(render, messages) is None


def test_what_it_takes_is_not_touched() -> None:
    messages = [ASKS, ANSWERS]
    found = spoken.taken(render, messages)
    assert found is not None
    assert found[0] is messages


def glued(messages: object) -> str:
    """A template that knows texts alone."""
    return chat.render("{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}", messages, special_tokens={})  # type: ignore[arg-type]


CALLS: Message = {"role": "assistant", "content": None, "tool_calls": [{"name": "look"}]}


def test_a_conversation_on_which_a_template_breaks_is_left_out_with_its_words() -> None:
    assert spoken.taken(glued, [ASKS, CALLS]) is None
    why = spoken.tried(glued, [SYSTEM, ASKS, CALLS])
    assert isinstance(why, MeasurementError)
    assert not isinstance(why, TemplateRefusal)
    assert "of 3 messages" in str(why), "as it is in the data"
    assert isinstance(spoken.tried(render, [ANSWERS, ASKS]), TemplateRefusal)


def test_a_template_that_breaks_on_everything_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="of 1 messages") as caught:
        spoken.taken(lambda messages: chat.render("{{ nothing.at.all }}", messages, special_tokens={}), [ASKS, ANSWERS])
    assert not isinstance(caught.value, TemplateRefusal)


def test_a_model_without_template_reads_paragraphs() -> None:
    assert spoken.plain([SYSTEM, ASKS, {"role": "assistant", "content": None}, ANSWERS]) == "You are terse.\n\nHello!\n\nHi.\n\n"
