"""Renders a chat template as transformers does, in its immutable Jinja sandbox, without loading a model, a tokenizer or torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from config.errors import MeasurementError
from engines.model import Message


def render(
    template: str,
    messages: Sequence[Message],
    *,
    special_tokens: Mapping[str, Any],
    add_generation_prompt: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The text of a conversation.

    `special_tokens` are the template's variables `bos_token`, `eos_token` and so on, `variables` any others that it may ask for.
    The template is a stranger's program: call this in a process with limits.
    Raises MeasurementError when the template does not parse or refuses the conversation.
    """
    try:
        rendered: Any = render_jinja_template(
            conversations=[[{key: value for key, value in message.items() if value is not None} for message in messages]],
            tools=None if tools is None else [dict(tool) for tool in tools],
            chat_template=template,
            add_generation_prompt=add_generation_prompt,
            **special_tokens,
            **(variables or {}),
        )
    except Exception as error:  # a template is a program: it may raise anything that Jinja or Python can
        raise MeasurementError(f"The chat template cannot render a conversation of {len(messages)} messages: {error}. Correct the template.") from error
    return str(rendered[0][0])
