"""Tells a SentencePiece vocabulary by its tokenizer.json; llama.cpp's converter (0.3.36) reads such vocabularies from tokenizer.model alone."""

import json
from collections.abc import Mapping
from typing import Any

FILE, SPACE = "tokenizer.model", "▁"


def is_one(content: Mapping[str, Any]) -> bool:
    """Whether tokenizer.json, of which this is the content, writes spaces as ▁ and unknown characters as bytes, which byte-level vocabularies never do."""
    model = content.get("model")
    written = json.dumps([content.get(part) for part in ("normalizer", "pre_tokenizer")], ensure_ascii=False)
    return isinstance(model, Mapping) and model.get("type") == "BPE" and model.get("byte_fallback") is True and SPACE in written
