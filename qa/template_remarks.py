"""What is worth knowing about a chat template and is no fault: what it leaves out, what llama.cpp rewrites, what a prompt cache loses, a forced `<think>`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from config.errors import MeasurementError
from engines import chat
from qa import batteries
from qa.batteries import Conversation
from qa.renderings import Agreement, Render, Rendering

SHOWN = 60  # characters of a text that a sentence quotes
GROWING = ("several turns", "tool call in an earlier turn, arguments as an object", "reasoning in an earlier turn")
OPENED = re.compile(r"<\|?(?:\w+:)?think\w*\|?>|\[THINK\]", re.IGNORECASE)  # how templates open a piece of reasoning
CLOSED = re.compile(r"</(?:\w+:)?think\w*>|<\|?/think\w*\|?>|\[/THINK\]", re.IGNORECASE)
UNKNOWN_ROLE = "unknown role"


def all_of(render: Render, compared: Sequence[Rendering]) -> Iterator[str]:
    """One sentence for each thing; `compared` are the battery's renderings in both engines."""
    yield from forced_thinking(compared)
    yield from changed_history(render)
    yield from unknown_role(compared)
    yield from by_agreement(compared)


def contents_in_parts(template: str, special_tokens: Mapping[str, Any]) -> Iterator[str]:
    """What a message holds is read in parts alone, which is usual for models that read images."""
    if chat.in_parts(template, special_tokens):
        yield (
            "the template reads what a message holds as a list of parts, [{'type': 'text', 'text': …}], and leaves out what is given as a text: "
            "llama.cpp makes such a list by itself, and programs that use transformers have to"
        )


def forced_thinking(compared: Sequence[Rendering]) -> Iterator[str]:
    """The prompt for the answer opens a piece of reasoning: tools that look for its beginning in the output never see it."""
    for item in compared:
        last = None if not item.prompting or not item.hf_text else next(reversed(list(OPENED.finditer(item.hf_text))), None)
        if last is not None and not CLOSED.search(item.hf_text, last.end()) and not item.hf_text[last.end() :].strip():
            yield f"the prompt for the answer ends in {item.hf_text[last.start() :]!r}, so the output never holds the beginning of the reasoning ({item.title})"
            return


def changed_history(render: Render) -> Iterator[str]:
    """Each beginning of a conversation is a beginning of its text, which is what lets engines keep what they computed for earlier turns."""
    for title in GROWING:
        conversation = batteries.CONVERSATIONS[title]
        texts = list(_growing(render, conversation))
        for count, prompting, text in texts:
            whole = texts[-1][2]
            if not whole.startswith(text):
                at = next((i for i, (one, other) in enumerate(zip(text, whole, strict=False)) if one != other), min(len(text), len(whole)))
                yield (
                    f"the first {count} messages{', with a prompt for the answer,' if prompting else ''} of the conversation {title!r} are rendered otherwise "
                    f"once it goes on, so prompt caches are lost from character {at}: {text[at : at + SHOWN]!r} becomes {whole[at : at + SHOWN]!r}"
                )
                break


def _growing(render: Render, conversation: Conversation) -> Iterator[tuple[int, bool, str]]:
    """(messages, with a prompt for the answer, text) of each beginning that the template takes, the whole conversation last."""
    count = len(conversation.messages)
    for length in range(1, count + 1):
        part = replace(conversation, messages=conversation.messages[:length])
        for prompting in (True, False) if length < count and conversation.messages[length]["role"] == "assistant" else (False,):
            try:
                yield length, prompting, render(part, prompting)
            except MeasurementError:
                continue


def unknown_role(compared: Sequence[Rendering]) -> Iterator[str]:
    """What becomes of a message in a role that nobody defined; a template had better refuse it."""
    for item in compared:
        if item.title == UNKNOWN_ROLE and item.hf_text:
            *_, message, _ = item.conversation.messages
            fate = "renders" if message["content"] in item.hf_text else "drops"
            yield f"the template {fate} a message in the unknown role {message['role']!r} instead of refusing it"


def by_agreement(compared: Sequence[Rendering]) -> Iterator[str]:
    """How many conversations were not compared, or not counted as different, and why."""
    for agreement in (Agreement.LEFT_OUT, Agreement.BOTH_REFUSE, Agreement.LLAMA_ALONE, Agreement.REWRITTEN):
        if items := [item for item in compared if item.agreement is agreement]:
            reasons = f": {'; '.join(sorted({item.said for item in items}))}" if agreement is Agreement.LEFT_OUT else ""
            yield f"{agreement} in {len(items)} of {len(compared)} conversations, {items[0].title!r} for one{reasons}"
