"""Reads a finished variant again, as its users will: is it whole and finite, and does it carry the 16-bit model's tokenizer and template?"""

import json
from collections.abc import Mapping
from pathlib import Path

from config.errors import SluiceError
from config.words import Measurement
from engines import llama

MAY_DIFFER = ("general.", "quantize.", "split.")  # metadata that quantizing writes: name, file type, imatrix, shards
SHOWN = 60  # characters of a value that a sentence quotes
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")


def gguf(variant: Path, reference: Path, *, threads: int) -> Measurement:
    """file.failures of a GGUF file: it loads, every tensor is finite, and its metadata (template, special tokens, hyperparameters) equal the 16-bit file's."""
    details = []
    try:
        with llama.open_model(variant, context=llama.BATCH, threads=threads, check_tensors=True) as model, llama.open_vocabulary(reference) as expected:
            details = _differences(expected.metadata, model.vocabulary.metadata)
            if model.vocabulary.tokens != expected.tokens:
                details.append("the vocabulary is not the 16-bit file's")
    except SluiceError as error:
        details = [str(error)]
    return _failures(details)


def _differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    keys = sorted(key for key in expected.keys() | found.keys() if not key.startswith(MAY_DIFFER) and expected.get(key) != found.get(key))
    return [f"{key} is {_shown(found.get(key))} and in the 16-bit file {_shown(expected.get(key))}" for key in keys]


def folder(variant: Path, reference: Path) -> Measurement:
    """file.failures of a transformers folder: every tensor is finite, and tokenizer, template and generation settings equal the 16-bit folder's."""
    from engines import hf  # torch

    details = [f"{name} holds values that are not finite" for name in hf.not_finite(variant)]
    details += [f"{name} is not the 16-bit model's" for name in TOKENIZER_FILES if _content(variant / name) != _content(reference / name)]
    return _failures(details)


def _content(file: Path) -> object:
    """What a file says: JSON by its meaning, other files by their bytes, None when it does not exist."""
    if not file.exists():
        return None
    return json.loads(file.read_text(encoding="utf-8")) if file.suffix == ".json" else file.read_bytes()


def _shown(value: str | None) -> str:
    return "missing" if value is None else repr(value[:SHOWN])


def _failures(details: list[str]) -> Measurement:
    return Measurement(name="file.failures", value=len(details), unit="count", details=tuple(details))
