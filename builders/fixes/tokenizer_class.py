"""Has transformers use tokenizer.json as it is, where it would rebuild the tokenizer by its class and read texts otherwise.

transformers 5 builds tokenizers of the classes that it knows anew, from the vocabulary and the class's own rules (`GPT2Tokenizer` for one), and drops what only
tokenizer.json says, such as that digits stand alone. transformers 4 used the file, and so does everybody else.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from builders.fixes.edits import Edit, Files, applied, value_at
from builders.fixes.vocabulary import added_tokens, named
from config.errors import MeasurementError
from config.rules import Family
from engines.battery import TEXTS

AS_IT_IS = "PreTrainedTokenizerFast"
READ = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "tokenizer.model")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What texts are in a tokenizer."""

    ids: list[list[int]]  # of each text
    added: list[int]  # what is put around a text


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Name another class where a text of the battery, or an added token, has other tokens in transformers than in tokenizer.json, and has the same under that
    class.

    Nothing is changed where the other class would add another token to the beginning or the end of texts.
    """
    stated = value_at(files, "tokenizer_config.json", ("tokenizer_class",))
    if "tokenizer.json" not in files or not isinstance(stated, str) or stated == AS_IT_IS:
        return []
    try:
        own = Tokenizer.from_str(json.dumps(files["tokenizer.json"]))
    except Exception:  # noqa: BLE001 - a stranger's file; whoever loads it says what is wrong with it
        return []
    roles = named(files).values()
    added = [text for entry in added_tokens(files) if isinstance(text := entry.get("content"), str)]
    texts = [text for text in (*TEXTS, *added) if text and not any(role in text for role in roles)]  # which transformers reads as special, come what may
    expected = [own.encode(text, add_special_tokens=False).ids for text in texts]
    before = _read(files, texts)
    if before is None or before.ids == expected:
        return []
    different = next(text for text, one, other in zip(texts, before.ids, expected, strict=True) if one != other)
    edit = Edit(
        file="tokenizer_config.json",
        key=("tokenizer_class",),
        after=AS_IT_IS,
        because=f"as {stated}, transformers 5 reads {different!r} otherwise than tokenizer.json says",
    )
    return [edit] if _read(applied(files, [edit]), texts) == Reading(ids=expected, added=before.added) else []


def _read(files: Mapping[str, Any], texts: Sequence[str]) -> Reading | None:
    """How transformers reads the texts with the tokenizer of these files; None where it cannot load that."""
    from engines import hf  # torch

    with tempfile.TemporaryDirectory(prefix="sluice-tokenizer-") as folder:
        for name in READ:
            content = files.get(name)
            if isinstance(content, bytes):
                (Path(folder) / name).write_bytes(content)
            elif content is not None:
                (Path(folder) / name).write_text(json.dumps(content), encoding="utf-8")
        try:
            tokenizer = hf.load_tokenizer(Path(folder))
        except MeasurementError:
            return None
    return Reading(ids=[hf.encode(tokenizer, text, add_special=False) for text in texts], added=hf.encode(tokenizer, "", add_special=True))
