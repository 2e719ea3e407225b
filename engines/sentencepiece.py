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


def is_unigram(content: Mapping[str, Any]) -> bool:
    """Whether tokenizer.json takes the likeliest pieces of a text (Unigram), not those that rules join.

    llama.cpp (0.3.36) reads texts so where its converter says `t5`, for encoders. Of all other models it takes the scores of such a vocabulary for the order
    in which pieces are joined, with tokenizer.model as well: two of three texts of the battery and of our documents got other tokens.
    """
    model = content.get("model")
    return isinstance(model, Mapping) and model.get("type") == "Unigram"
