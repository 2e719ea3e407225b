"""The folder that llama.cpp's converter is given: a model's files as links, but for what the converter of the pinned version (0.3.36) would take otherwise."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CARD = "README.md"  # of which the converter has opinions
SETTINGS = "tokenizer_config.json"
_PHI = {"phi3", "phimoe"}  # model types that it reads as SentencePiece's whatever they are
_BYTES = "GPT2Tokenizer"  # but under this class


def link(model: Path, folder: Path) -> None:
    """Put links to the model's files, but for its card, into a folder that is there.

    Phi-4, whose vocabulary is one of bytes, is known to the converter by the class of its tokenizer alone, which transformers saves under other names. To
    transformers that class is nothing here: it takes tokenizer.json of these models as it is.
    """
    for path in model.resolve().iterdir():
        if path.name != CARD:
            (folder / path.name).symlink_to(path)
    settings = _content(folder / SETTINGS)
    if _is_taken_for_sentencepiece(folder) and settings.get("tokenizer_class") != _BYTES:
        (folder / SETTINGS).unlink(missing_ok=True)
        (folder / SETTINGS).write_text(json.dumps({**settings, "tokenizer_class": _BYTES}), encoding="utf-8")


def _is_taken_for_sentencepiece(folder: Path) -> bool:
    if (folder / "tokenizer.model").exists() or _content(folder / "config.json").get("model_type") not in _PHI:
        return False
    vocabulary = _content(folder / "tokenizer.json").get("model")
    return isinstance(vocabulary, dict) and vocabulary.get("type") == "BPE" and not vocabulary.get("byte_fallback")


def _content(path: Path) -> Mapping[str, Any]:
    """What a JSON file holds; nothing where it is missing or holds no object, which is for the converter to say."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
