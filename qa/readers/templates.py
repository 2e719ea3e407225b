"""The chat template inside a GGUF file, and how it writes the battery's conversations in transformers' sandbox."""

from collections.abc import Callable
from pathlib import Path

from config.errors import MeasurementError
from engines import chat, llama
from engines.llama import Vocabulary
from qa.batteries import CONVERSATIONS, Conversation
from qa.readers.words import Refusal

Own = Callable[[Conversation], str]


def read(gguf: Path) -> tuple[str, dict[str, str]]:
    """The template, and its special tokens. Raises Refusal where the file has none."""
    with llama.open_vocabulary(gguf) as vocabulary:
        if vocabulary.chat_template is None:
            raise Refusal("the file holds no chat template")
        return vocabulary.chat_template, _special(vocabulary)


def _special(vocabulary: Vocabulary) -> dict[str, str]:
    return {"bos_token": vocabulary.piece(vocabulary.bos), "eos_token": vocabulary.piece(vocabulary.eos)}


def own(template: str, special: dict[str, str]) -> Own:
    """How the template writes a conversation and a prompt for the answer. Raises MeasurementError where it refuses."""

    def render(conversation: Conversation) -> str:
        return chat.render(
            template,
            conversation.messages,
            special_tokens=special,
            add_generation_prompt=True,
            tools=conversation.tools,
            variables={"enable_thinking": conversation.thinking},
        )

    return render


def cases(render: Own) -> dict[str, tuple[Conversation, str]]:
    """The conversations that the template takes, by their titles, with what it makes of them."""
    found = {}
    for title, conversation in CONVERSATIONS.items():
        if not conversation.continued:
            try:
                found[title] = conversation, render(conversation)
            except MeasurementError:
                continue
    return found
