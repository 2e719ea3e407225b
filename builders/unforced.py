"""A second chat template for programs that look for `<think>` in the answer: it does not write that itself at the end of a prompt, as the model's own does."""

import re
from collections.abc import Iterator, Mapping, Sequence

from config.errors import MeasurementError
from engines import chat
from engines.model import Message

OPENING = "<think>"
_USER, _ANSWER = {"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Red."}
_CONVERSATIONS: Sequence[Sequence[Message]] = ([_USER], [{"role": "system", "content": "Be brief."}, _USER], [_USER, _ANSWER, _USER], [_USER, _ANSWER])
_SWITCHES: Sequence[Mapping[str, bool]] = ({"enable_thinking": True}, {})


def unforced(template: str, roles: Mapping[str, str]) -> str | None:
    """The template without the opening that it writes at the end of prompts; `roles` are the texts of its special tokens.

    Every conversation is rendered as before, and every prompt but for that opening with its line breaks. None where it writes none, or none that can be taken
    out so.
    """

    def rendered(text: str) -> list[str | None]:
        return [_render(text, messages, roles, switches, prompt) for switches in _SWITCHES for messages in _CONVERSATIONS for prompt in (True, False)]

    before = rendered(template)
    if before[0] is None or not before[0].rstrip().endswith(OPENING):
        return None
    wanted = [None if text is None else _closed(text) for text in before]
    return next((text for text in _candidates(template) if _alike(rendered(text), before, wanted)), None)


def _alike(found: Sequence[str | None], before: Sequence[str | None], wanted: Sequence[str | None]) -> bool:
    """Whether all is as wanted; a prompt that ends otherwise where thinking is not asked for may stay or lose its opening as well."""
    prompts = len(_CONVERSATIONS) * 2
    return list(found[:prompts]) == list(wanted[:prompts]) and all(
        new in {old, other} or (old is not None and new == old.replace(OPENING + "\n", "", 1))
        for new, old, other in zip(found[prompts:], before[prompts:], wanted[prompts:], strict=True)
    )


def _closed(text: str) -> str:
    return text.rstrip().removesuffix(OPENING) if text.rstrip().endswith(OPENING) else text


def _candidates(template: str) -> Iterator[str]:
    """The template without one of its openings, the last first."""
    for found in reversed(list(re.finditer(re.escape(OPENING) + r"(?:\\n|\n)*", template))):
        yield template[: found.start()] + template[found.end() :]


def _render(text: str, messages: Sequence[Message], roles: Mapping[str, str], switches: Mapping[str, bool], prompt: bool) -> str | None:
    try:
        return chat.render(text, messages, special_tokens=roles, add_generation_prompt=prompt, variables=switches)
    except MeasurementError:
        return None
