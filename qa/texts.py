"""Cuts evaluation text into windows of token ids, once for a release, so that every variant is measured on the same tokens."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from config.errors import MeasurementError

VERSION = 1  # raise when outputs change

Windows = npt.NDArray[np.int32]
"""Token ids (windows, context)."""


def prepare(out: Path, *, model: Path, chat: Sequence[Path], plain: Sequence[Path], tokens: int, context: int) -> dict[str, Any]:
    """Write tokens.npy, the windows of all texts one after another, conversations first.

    As in llama-perplexity, tokens run on from one text into the next, the rest that does not fill a window is left out, and where the tokenizer adds BOS it
    replaces each window's first token. Conversations are rendered in the model's own template; special tokens count as such there, and not in plain text.
    At most `tokens` tokens are used. Raises MeasurementError when they do not fill two windows.
    """
    from engines import hf  # torch

    tokenizer = hf.load_tokenizer(model)
    bos = tokenizer.bos_token or ""

    def pieces() -> Iterator[list[int]]:
        for messages in conversations(chat):
            text = hf.render_chat(tokenizer, messages)
            yield hf.encode(tokenizer, text.removeprefix(bos), add_special=False)
        for path in plain:
            yield hf.encode(tokenizer, Path(path).read_text(encoding="utf-8"), add_special=False, parse_special=False)

    ids = list(islice(chain.from_iterable(pieces()), tokens))
    adds_bos = hf.encode(tokenizer, "", add_special=True)[:1] == [tokenizer.bos_token_id]
    windows = cut(ids, context=context, bos=int(tokenizer.bos_token_id) if adds_bos else None)
    np.save(out / "tokens.npy", windows)
    return {"tokens": int(windows.size), "windows": len(windows)}


def cut(ids: Sequence[int], *, context: int, bos: int | None) -> Windows:
    """Windows (n, context) of consecutive ids, each beginning with `bos` unless it is None. Raises MeasurementError when there are fewer than two."""
    count = len(ids) // context
    if count < 2:
        raise MeasurementError(
            f"The evaluation text has {len(ids)} tokens, too few for two windows of {context}. Name more text in the recipe, or a smaller context."
        )
    windows = np.asarray(ids[: count * context], dtype=np.int32).reshape(count, context)
    if bos is not None:
        windows[:, 0] = bos
    return windows


def conversations(files: Sequence[Path]) -> Iterator[list[dict[str, Any]]]:
    """The messages of each line of JSON Lines files. Raises MeasurementError that names the line which is not `{"messages": [...]}`."""
    for file in files:
        with Path(file).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    messages = json.loads(line)["messages"]
                except (ValueError, KeyError, TypeError) as error:
                    raise MeasurementError(f'{file}, line {number}, is not a conversation ({error}). Each line must read {{"messages": [...]}}.') from error
                yield messages
