"""Has transformers use tokenizer.json as it is, where it would rebuild the tokenizer by its class and read texts otherwise.

transformers 5 builds tokenizers of the classes that it knows anew, from the vocabulary and the class's own rules (`GPT2Tokenizer` for one), and drops what only
tokenizer.json says, such as that digits stand alone. transformers 4 used the file, and so does everybody else.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from builders.fixes.edits import Edit, Files, applied, value_at
from builders.fixes.vocabulary import named
from config.errors import MeasurementError
from config.rules import Family
from engines.battery import TEXTS

AS_IT_IS = "PreTrainedTokenizerFast"
READ = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "tokenizer.model")


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Name another class where a text of the battery has other tokens in transformers than in tokenizer.json, and has the same under that class.

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
    texts = [text for text in TEXTS if text and not any(role in text for role in roles)]  # transformers reads these as special, whatever the file says of them
    expected = [own.encode(text, add_special_tokens=False).ids for text in texts]
    before = _loaded(files)
    if before is None or (different := _different(before, texts, expected)) is None:
        return []
    edit = Edit(
        file="tokenizer_config.json",
        key=("tokenizer_class",),
        after=AS_IT_IS,
        because=f"as {stated}, transformers 5 reads {texts[different]!r} otherwise than tokenizer.json says",
    )
    after = _loaded(applied(files, [edit]))
    same = after is not None and _different(after, texts, expected) is None and _added(after) == _added(before)
    return [edit] if same else []


def _loaded(files: Mapping[str, Any]) -> Any:
    """The tokenizer of these files in transformers; None where it cannot be loaded."""
    from engines import hf  # torch

    with tempfile.TemporaryDirectory(prefix="sluice-tokenizer-") as folder:
        for name in READ:
            content = files.get(name)
            if isinstance(content, bytes):
                (Path(folder) / name).write_bytes(content)
            elif content is not None:
                (Path(folder) / name).write_text(json.dumps(content), encoding="utf-8")
        try:
            return hf.load_tokenizer(Path(folder))
        except MeasurementError:
            return None


def _different(tokenizer: Any, texts: list[str], expected: list[list[int]]) -> int | None:
    """The first text that the tokenizer reads otherwise."""
    return next((i for i, text in enumerate(texts) if tokenizer(text, add_special_tokens=False)["input_ids"] != expected[i]), None)


def _added(tokenizer: Any) -> list[int]:
    """What the tokenizer puts around a text by itself."""
    return [int(token) for token in tokenizer("")["input_ids"]]
