"""How a model is asked: its chat template and the sampling that its release advises, of a folder in the transformers form or of a GGUF file."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from config.errors import MeasurementError
from engines import hf, llama_server
from engines.llama import Vocabulary
from engines.model import Message
from engines.parallel import Sampling

Render = Callable[[Sequence[Message], Sequence[Message]], str]
"""A conversation and the tools on offer as text, up to where the next answer begins."""

USUAL = Sampling(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)  # what llama.cpp does unless it is told otherwise
IN_GGUF = {"temperature": "temp", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p", "repetition_penalty": "penalty_repeat"}
LIMITS = {"temperature": (0.0, 5.0), "top_k": (0, 10**6), "top_p": (0.01, 1.0), "min_p": (0.0, 0.99), "repetition_penalty": (0.5, 2.0)}
THOUGHT = "<think>"  # some templates begin the answer with it


@contextmanager
def speaking(model: Path, vocabulary: Vocabulary, *, threads: int) -> Iterator[Render | None]:
    """How conversations are written for the model while the block runs; None for a base model, which has no chat template.

    Raises MeasurementError when there is no tokenizer, ToolError.
    """
    if model.is_dir():
        tokenizer = hf.load_tokenizer(model)
        if tokenizer.chat_template is None:
            yield None
            return
        yield lambda messages, tools: hf.render_chat(tokenizer, messages, tools=tools or None, add_generation_prompt=True)
    elif vocabulary.chat_template is None:
        yield None
    else:
        with llama_server.serve(model, threads=threads) as server:
            yield lambda messages, tools: server.apply_template(messages, tools=tools or None, add_generation_prompt=True)


def thought(text: str) -> str:
    """What a rendered prompt begins the answer with where the model is to think first; else nothing."""
    return text[text.rfind(THOUGHT) :] if text.rstrip().endswith(THOUGHT) else ""


def begun(vocabulary: Vocabulary, text: str) -> list[int]:
    """Tokens of a text that stands at the beginning, with one BOS where the tokenizer adds it; special tokens count as such."""
    if not vocabulary.adds_bos or vocabulary.bos is None:
        return vocabulary.tokenize(text, add_special=False)
    return [vocabulary.bos, *vocabulary.tokenize(text.removeprefix(vocabulary.piece(vocabulary.bos)), add_special=False)]


def advised(model: Path, vocabulary: Vocabulary) -> tuple[Sampling, bool]:
    """The sampling that the release advises, in generation_config.json or in the GGUF file's metadata, and whether it advises any: USUAL where it does not.

    What advice leaves out changes nothing. Advice to take the likeliest token always, or beyond all reason, is none: it would write each text once only.
    """
    held = {name: vocabulary.metadata.get(f"general.sampling.{key}") for name, key in IN_GGUF.items()}
    given: Mapping[str, Any] = _configured(model) if model.is_dir() else held
    found: dict[str, float] = {name: number for name in LIMITS if (number := _number(given.get(name), *LIMITS[name])) is not None}
    if given.get("do_sample") is False or found.get("temperature") == 0 or found.get("top_k") == 1 or not found:
        return USUAL, False
    return Sampling(**{**found, "top_k": int(found.get("top_k", 0))}), True  # type: ignore[arg-type] # one of them is an integer


def _configured(model: Path) -> Mapping[str, Any]:
    """What generation_config.json holds; nothing where there is none. Raises MeasurementError when it cannot be read."""
    path = model / "generation_config.json"
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MeasurementError(f"{path} cannot be read: {error}. Correct it, or leave it out.") from error
    return content if isinstance(content, dict) else {}


def _number(value: object, least: float, most: float) -> float | None:
    """A number within limits; the files are a stranger's."""
    if isinstance(value, str):  # as the metadata of a GGUF file are given
        try:
            value = float(value)
        except ValueError:
            return None
    sound = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and least <= value <= most
    return float(value) if sound else None  # type: ignore[arg-type] # it is a number here
