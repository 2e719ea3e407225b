"""What publishing must know of the fixed model's chat: how its template renders given conversations, which strings end an answer, which sampling it advises."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builders.unforced import unforced
from config.errors import MeasurementError
from engines.chat import in_parts
from engines.hf import load_tokenizer, render_chat

VERSION = 5  # raise when outputs change

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def render(out: Path, *, model: Path, conversations: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Each conversation (`messages`, and `tools` or None), with a generation prompt, as the model's template renders it; what it refuses is left out.

    Also `template` itself (None of a base model), `unforced`, a second one without the `<think>` that the model's own writes at the end of prompts (None where
    it writes none), `base`, whether the model has no template at all, `parts`, whether that reads contents in parts alone (see `engines.chat.in_parts`),
    `stops`, the strings of the model's end-of-generation tokens, and `sampling`, the advice in its generation_config.json.
    """
    tokenizer = load_tokenizer(model)
    generation = _read(model / "generation_config.json")
    renderings = {}
    for name, probe in conversations.items():
        try:
            renderings[name] = render_chat(tokenizer, probe["messages"], tools=probe["tools"], add_generation_prompt=True)
        except MeasurementError:
            continue  # a template may refuse a role; the caller sees that the rendering is missing
    ends = generation.get("eos_token_id", _read(model / "config.json").get("eos_token_id"))
    ids = ends if isinstance(ends, list) else [ends]
    return {
        "base": tokenizer.chat_template is None,
        "template": None if tokenizer.chat_template is None else tokenizer.get_chat_template(),
        "parts": tokenizer.chat_template is not None and in_parts(tokenizer.get_chat_template(), tokenizer.special_tokens_map),
        "renderings": renderings,
        "unforced": unforced(tokenizer.chat_template, tokenizer.special_tokens_map) if isinstance(tokenizer.chat_template, str) else None,
        "stops": [tokenizer.convert_ids_to_tokens(token) for token in ids if isinstance(token, int)],
        "sampling": {name: generation[name] for name in SAMPLING if name in generation},
    }


def _read(file: Path) -> dict[str, Any]:
    """A JSON object, empty when the release has no such file."""
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return content
