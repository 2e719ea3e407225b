"""The fixed conversations and texts on which template engines and tokenizers are compared."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from engines.model import Message


class Arguments(StrEnum):
    """How a tool call states its arguments; the field uses both."""

    OBJECT = "object"  # as transformers documents it
    STRING = "string"  # JSON text, as in OpenAI's API


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """What a template is given."""

    messages: Sequence[Message]
    tools: Sequence[Message] | None = None  # functions on offer
    arguments: Arguments | None = None  # how its tool calls state them; None without tool calls
    thinking: bool = True  # the template's variable enable_thinking
    continued: bool = False  # the last message is to be gone on with, instead of being closed


def _turns(*contents: str, system: str | None = None) -> list[Message]:
    """Messages of these contents, user first, after an optional system message."""
    opening = [] if system is None else [{"role": "system", "content": system}]
    return [*opening, *({"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents))]


def _talk(*contents: str, system: str | None = None, thinking: bool = True, continued: bool = False) -> Conversation:
    return Conversation(messages=_turns(*contents, system=system), thinking=thinking, continued=continued)


CODE = "```python\ndef add(a, b):\n\treturn a + b  # sum\n\n\nprint(add(1, 2))\n```"

FUNCTION = "get_weather"
CITY = "city"  # an argument
WEATHER: Message = {
    "type": "function",
    "function": {
        "name": FUNCTION,
        "description": 'The weather in a city, "now" or later.',
        "parameters": {
            "type": "object",
            "properties": {
                CITY: {"type": "string", "description": "Name of the city"},
                "days": {"type": "integer", "description": "How many days ahead", "enum": [0, 1, 2]},
            },
            "required": [CITY],
        },
    },
}
CLOCK: Message = {"type": "function", "function": {"name": "get_time", "description": "The time.", "parameters": {"type": "object", "properties": {}}}}


def _call(number: int = 1, **arguments: Any) -> Message:
    """A tool call; its id has the nine letters and digits that Mistral's templates ask for."""
    return {"id": f"call{number:05}", "type": "function", "function": {"name": FUNCTION, "arguments": arguments}}


def _calling(*calls: Message, content: str = "", **more: str) -> Message:
    return {"role": "assistant", "content": content, **more, "tool_calls": list(calls)}


def _result(content: str, number: int = 1) -> Message:
    return {"role": "tool", "tool_call_id": f"call{number:05}", "name": FUNCTION, "content": content}


def _thought(reasoning: str, content: str) -> Message:
    return {"role": "assistant", "reasoning_content": reasoning, "content": content}


_ASKED: Message = {"role": "user", "content": "What is the weather in Zürich?"}
_ANSWERED: Message = {"role": "assistant", "content": "It is sunny."}
_NEXT: Message = {"role": "user", "content": "And tomorrow?"}
_CALLED = (_ASKED, _calling(_call(city="Zürich", days=0)), _result('{"sky": "sunny", "°C": 21}'))

_TOOL_CALLS: Mapping[str, Sequence[Message]] = {
    "tool call": _CALLED[:2],
    "tool call and result": _CALLED,
    "tool call, result and answer": (*_CALLED, _ANSWERED),
    "tool call in an earlier turn": (*_CALLED, _ANSWERED, _NEXT),
    "tool call after a system message": ({"role": "system", "content": "You are terse."}, *_CALLED),
    "tool call with text": (_ASKED, _calling(_call(city="Zürich"), content="I will look."), _result("sunny")),
    "tool call without arguments": (_ASKED, _calling(_call()), _result("sunny")),
    "tool call after reasoning": (_ASKED, _calling(_call(city="Zürich"), reasoning_content="A tool helps."), _result("sunny")),
    "two tool calls one after the other": (*_CALLED, _calling(_call(2, city="Bern")), _result("rain", 2)),
    "two tool calls at once": (_ASKED, _calling(_call(city="Zürich"), _call(2, city="Bern")), _result("sunny"), _result("rain", 2)),
}


def in_other_form(conversation: Conversation) -> Conversation:
    """The same conversation with the arguments of its tool calls as text instead of objects, or the other way round."""
    form, convert = (Arguments.STRING, _as_text) if conversation.arguments is Arguments.OBJECT else (Arguments.OBJECT, json.loads)
    messages = []
    for message in conversation.messages:
        calls = [{**call, "function": {**call["function"], "arguments": convert(call["function"]["arguments"])}} for call in message.get("tool_calls", ())]
        messages.append({**message, "tool_calls": calls} if calls else message)
    return replace(conversation, messages=messages, arguments=form)


def _as_text(arguments: Any) -> str:
    return json.dumps(arguments, ensure_ascii=False)


def _both_forms(title: str, messages: Sequence[Message]) -> Mapping[str, Conversation]:
    given = Conversation(messages=messages, tools=[WEATHER], arguments=Arguments.OBJECT)
    return {f"{title}, arguments as an object": given, f"{title}, arguments as a string": in_other_form(given)}


_PLAIN: dict[str, Conversation] = {
    "one question": _talk("What is 1+1?"),
    "question and answer": _talk("Hello!", "Hey there!"),
    "several turns": _talk("Hello!", "Hey there!", "What is 1+1?", "2", "And 2+2?"),
    "system message": _talk("Hello!", system="You are terse."),
    "system message and several turns": _talk("Hello!", "Hi.", "Why?", system="You are terse.\nAnswer in one line."),
    "empty question": _talk(""),
    "empty answer": _talk("Say nothing.", "", "Thanks."),
    "empty system message": _talk("Hello!", system=""),
    "spaces and newlines around": _talk("  Hello! \n\n", "\n Hey there!\n ", " \t\n"),
    "not Latin": _talk("ما هي عاصمة فرنسا؟", "巴黎。", "Почему? क्यों? למה?"),
    "emoji": _talk("👋🏽 👩‍👩‍👧 🇧🇪", "👍"),
    "code": _talk("Write a function that adds.", CODE, "Thanks. \\n {{ x }} {% if %} <b>&amp;</b> 'a' \"b\""),
    "long": _talk("word " * 200, "Yes."),
    "system message with spaces around": _talk("Hello!", system=" \n You are terse. \n\n"),
    "system message alone": Conversation(messages=[{"role": "system", "content": "You are terse."}]),
    "two system messages": Conversation(messages=[{"role": "system", "content": "You are terse."}, *_turns("Hello!", "Hi.", "Why?", system="In English.")]),
    "system message later": Conversation(messages=[*_turns("Hello!", "Hi."), {"role": "system", "content": "Now be terse."}, _NEXT]),
    "two questions in a row": Conversation(messages=[*_turns("Hello!"), _NEXT]),
    "answer first": Conversation(messages=[_ANSWERED, _NEXT]),
    "unknown role": Conversation(messages=[*_turns("Hello!", "Hi."), {"role": "critic", "content": "Too short."}, _NEXT]),
    "thinking off": _talk("What is 1+1?", thinking=False),
    "thinking off and several turns": _talk("Hello!", "Hi.", "Why?", system="You are terse.", thinking=False),
    "reasoning": Conversation(messages=[_ASKED, _thought("Look outside.\nSun.", "It is sunny.")]),
    "reasoning in an earlier turn": Conversation(messages=[_ASKED, _thought("Look outside.", "It is sunny."), _NEXT]),
    "reasoning in an earlier turn, thinking off": Conversation(messages=[_ASKED, _thought("Look outside.", "It is sunny."), _NEXT], thinking=False),
    "reasoning with spaces around": Conversation(messages=[_ASKED, _thought("\n Look outside. \n", "\n\nIt is sunny."), _NEXT, _ANSWERED]),
    "reasoning in the answer's text": _talk("Hello!", "<think>\nA greeting.\n</think>\n\nHi.", "Why?"),
    "answer to go on with": _talk("Count to three.", "One, two,", continued=True),
    "answer to go on with, thinking off": _talk("Count to three.", "One, two,", thinking=False, continued=True),
    "answer to go on with, later": _talk("Hello!", "Hi.", "Count to three.", "One,", system="You are terse.", continued=True),
    "tools": Conversation(messages=[_ASKED], tools=[WEATHER]),
    "two tools": Conversation(messages=_turns("Hello!", "Hi.", "What is the time?", system="You are terse."), tools=[WEATHER, CLOCK]),
    "tools, thinking off": Conversation(messages=[_ASKED], tools=[WEATHER], thinking=False),
}  # fmt: skip
EVERY_TEMPLATE_RENDERS = ("one question", "question and answer")
CONVERSATIONS: Mapping[str, Conversation] = _PLAIN | {
    title: conversation for call, messages in _TOOL_CALLS.items() for title, conversation in _both_forms(call, messages).items()
}

IMAGE: Message = {"type": "image"}  # a part of a message, as transformers documents it


def _shown(*parts: str | Message) -> Message:
    """A question of texts and images."""
    return {"role": "user", "content": [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]}


IMAGES: Mapping[str, Conversation] = {
    "image and question": Conversation(messages=[_shown(IMAGE, "What is this?")]),
    "question and image": Conversation(messages=[_shown("What is this?", IMAGE)]),
    "two images": Conversation(messages=[_shown(IMAGE, IMAGE, "Which is larger?")]),
    "image between texts": Conversation(messages=[_shown("Compare this", IMAGE, "with a cat.")]),
    "image and system message": Conversation(messages=[{"role": "system", "content": "You are terse."}, _shown(IMAGE, "What is this?")]),
    "image in an earlier turn": Conversation(messages=[_shown(IMAGE, "What is this?"), {"role": "assistant", "content": "A cat."}, *_turns("Why?")]),
}
"""For models that read images: no two texts of a message follow one another, between which llama.cpp writes a line break."""


def without_images(conversation: Conversation) -> Conversation:
    """The same texts alone."""
    return replace(conversation, messages=[_changed(message, lambda parts: [part for part in parts if part != IMAGE]) for message in conversation.messages])


def with_markers(conversation: Conversation, marker: str) -> Conversation:
    """The same with a text for each message, in which the marker stands for an image: what llama.cpp makes of parts before a template sees them."""
    messages = [_changed(message, lambda parts: "".join(str(part.get("text", marker)) for part in parts)) for message in conversation.messages]
    return replace(conversation, messages=messages)


def _changed(message: Message, change: Callable[[Sequence[Message]], object]) -> Message:
    """The message with other contents, if it has parts."""
    content = message["content"]
    return {**message, "content": change(content)} if isinstance(content, list) else message


def around(special: str) -> list[str]:
    """Texts with a special token at the beginning, at the end, inside words, between spaces and doubled."""
    return [special, f"{special}text", f"text{special}", f"te{special}xt", f"a {special} b", f"\n{special}\n", special * 2, f"{special} {special}"]
