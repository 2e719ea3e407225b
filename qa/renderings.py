"""Renders the battery's conversations in transformers and in llama.cpp, and says of each whether the two engines agree.

Rules that decide what is compared:
- A template that does not read `tools` or `tool_calls` has no tool support. Tool conversations are left out then, and that is no fault.
- Tool calls state their arguments as an object or as JSON text. A template need take one of the two; llama.cpp turns one into the other before the template
  sees it, transformers does not. A form that is not taken (it breaks, or comes out as Python's notation or as JSON inside JSON) is left out, and where a
  template writes the two forms differently, llama.cpp writes both as objects.
- A template may refuse a conversation by raise_exception. Breaking in any other way is a fault.
- llama.cpp rewrites conversations that a template refuses, a system message for instance becomes part of the question. Where only llama.cpp renders,
  the engines do not contradict one another.
- llama.cpp leaves the answer that is to be gone on with to no template: it renders the conversation before it and appends the answer, after an empty
  piece of reasoning if the model reasons. That differs from the template's own way in most models, and is no fault of theirs.
- llama.cpp tells every template today's date, to think, and to keep earlier reasoning, where transformers leaves that to the caller; here both are told the
  same.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from config.errors import MeasurementError, TemplateRefusal
from config.progress import counted
from engines.llama_server import LlamaServer
from qa import batteries
from qa.batteries import Arguments, Conversation

COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)

Render = Callable[[Conversation, bool], str]
"""A conversation as text in transformers, with a prompt for the answer or without. Raises MeasurementError, TemplateRefusal when it is deliberate."""


class Agreement(StrEnum):
    """How one conversation came out."""

    SAME = "both engines render the same text"
    BOTH_REFUSE = "both engines refuse it"
    LLAMA_ALONE = "transformers refuses it, llama.cpp rewrites and renders it"
    REWRITTEN = "llama.cpp rewrites it before the template sees it"
    LEFT_OUT = "the template does not take such conversations"
    OTHER_TEXT = "the engines render different texts"
    LLAMA_REFUSES = "transformers renders it, llama.cpp refuses it"
    BREAKS = "the template breaks in transformers"


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """One conversation as both engines make a prompt of it."""

    title: str
    conversation: Conversation
    prompting: bool
    agreement: Agreement
    hf_text: str = ""  # empty when transformers did not render it
    llama_text: str = ""
    said: str = ""  # by the engine that refused

    @property
    def rendered(self) -> bool:
        """Whether both engines made a text."""
        return self.agreement in (Agreement.SAME, Agreement.OTHER_TEXT)


def told(conversation: Conversation) -> dict[str, Any]:
    """The template's variables, as llama.cpp's `common_chat_extra_context`, `caps_apply_preserve_reasoning` and server set them."""
    today = datetime.now().astimezone()
    keep = {"preserve_thinking": True, "clear_thinking": False, "truncate_history_thinking": False, "drop_thinking": False}
    return {"enable_thinking": conversation.thinking, **keep, "date_string": f"{today:%d %b %Y}", "datetime": f"{today:%b %d %Y}"}


def all_of(
    render: Render, server: LlamaServer, *, template: str, bos: str, conversations: Mapping[str, Conversation] = batteries.CONVERSATIONS
) -> Iterator[Rendering]:
    """Every conversation, with and without a prompt for the answer. `template` is the source, `bos` the text that llama.cpp removes from the beginning."""
    for title, conversation in counted(conversations.items(), "conversations"):
        for prompting in (False,) if conversation.continued else (False, True):
            shown = f"{title}{', with a prompt for the answer' if prompting else ''}"
            if missing := _not_read(template, conversation):
                yield Rendering(title=shown, conversation=conversation, prompting=prompting, agreement=Agreement.LEFT_OUT, said=f"it does not read {missing}")
            else:
                yield _compared(render, server, conversation, prompting, shown, bos)


def _not_read(template: str, conversation: Conversation) -> str:
    """What is special about the conversation and not read by the template: tool calls, or else functions on offer; empty when it reads all."""
    source = COMMENT.sub("", template)
    name = "tool_calls" if conversation.arguments is not None else "" if conversation.tools is None else "tools"
    return name if name and re.search(rf"\b{name}\b", source) is None else ""


def _compared(render: Render, server: LlamaServer, conversation: Conversation, prompting: bool, title: str, bos: str) -> Rendering:
    def outcome(agreement: Agreement, hf_text: str = "", llama_text: str = "", said: str = "") -> Rendering:
        return Rendering(title=title, conversation=conversation, prompting=prompting, agreement=agreement, hf_text=hf_text, llama_text=llama_text, said=said)

    text, broken = _attempt(render, conversation, prompting)
    other = ""  # the text of the same tool calls with their arguments in the other form, if the template takes that
    if conversation.arguments is not None:
        converted = batteries.in_other_form(conversation)
        other, other_broken = _attempt(render, converted, prompting)
        if not _taken(text, broken, conversation):
            if _taken(other, other_broken, converted):
                return outcome(Agreement.LEFT_OUT, said=f"it does not take arguments as {conversation.arguments}")
            return outcome(Agreement.BREAKS, said=str(broken or f"tool calls come out garbled: {text!r}"))
    if broken is not None and not isinstance(broken, TemplateRefusal):
        return outcome(Agreement.BREAKS, said=str(broken))
    try:
        answer = server.apply_template(
            conversation.messages,
            add_generation_prompt=prompting,
            continue_final_message=conversation.continued,
            tools=conversation.tools,
            variables=told(conversation),
        )
    except TemplateRefusal as error:
        return outcome(Agreement.LLAMA_REFUSES if broken is None else Agreement.BOTH_REFUSE, text, said=str(error))
    if broken is not None:
        return outcome(Agreement.LLAMA_ALONE, llama_text=answer, said=str(broken))
    if text.removeprefix(bos) == answer.removeprefix(bos):
        return outcome(Agreement.SAME, text, answer)
    converted_only = conversation.arguments is Arguments.STRING and other.removeprefix(bos) == answer.removeprefix(bos)
    return outcome(Agreement.REWRITTEN if conversation.continued or converted_only else Agreement.OTHER_TEXT, text, answer)


def _attempt(render: Render, conversation: Conversation, prompting: bool) -> tuple[str, MeasurementError | None]:
    try:
        return render(conversation, prompting), None
    except MeasurementError as error:
        return "", error


def _taken(text: str, broken: MeasurementError | None, conversation: Conversation) -> bool:
    """Whether the template is written for arguments in this form; a deliberate refusal says nothing against the form."""
    if broken is not None:
        return isinstance(broken, TemplateRefusal)
    if conversation.arguments is Arguments.OBJECT:
        return f"{{'{batteries.CITY}': '" not in text
    return f'\\"{batteries.CITY}\\":' not in text and '"{}"' not in text
