"""Computes the importance matrix: how strongly each input of each weight matrix is used on calibration text."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gguf import GGUFReader
from transformers import PreTrainedTokenizerBase

from config.errors import ConfigurationError, MeasurementError
from engines import hf, tools

VERSION = 1  # raise when outputs change

TEXT = "calibration.txt"  # llama-imatrix writes this name into its file, so it holds no path
RESULT = "imatrix.gguf"


def imatrix(out: Path, *, model: Path, gguf: Path, chat: list[Path], plain: list[Path], tokens: int, context: int, threads: int) -> dict[str, Any]:
    """Write `imatrix.gguf`, from at most `tokens` tokens in windows of `context`: conversations in the model's own template, then plain text.

    When there is more text than that, every file gives the same share of itself. Returns `file`, `tokens` and `chunks` (windows used).
    Raises ConfigurationError when a conversation cannot be read, MeasurementError when there is too little text.
    """
    tokenizer = hf.load_tokenizer(model)
    if tokens < 2 * context:
        raise ConfigurationError(f"Calibration may use {tokens} tokens and needs two windows of {context} at least. Raise `calibration.tokens` in the recipe.")
    sources = [list(conversations(path, tokenizer)) for path in chat] + [paragraphs(path) for path in plain]
    pieces = chosen(sources, tokenizer, tokens)
    if (found := sum(count for _, count in pieces)) < 2 * context:
        raise MeasurementError(f"The calibration text has {found} tokens and needs two windows of {context} at least. Name more text under `calibration`.")
    text = out / TEXT
    text.write_text("".join(piece for piece, _ in pieces), encoding="utf-8")
    tools.run(
        "llama-imatrix",
        *("-m", gguf.resolve(), "-f", TEXT, "-o", RESULT, "--parse-special"),
        *("-c", str(context), "--chunks", str(tokens // context), "-t", str(threads), "-ngl", "0"),
        cwd=out,
    )
    text.unlink()
    chunks = int(GGUFReader(out / RESULT).fields["imatrix.chunk_count"].contents())
    return {"file": RESULT, "tokens": chunks * context, "chunks": chunks}


def conversations(path: Path, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Each conversation of a JSON Lines file, in the model's template. Raises ConfigurationError with the line that is wrong."""
    bos = tokenizer.bos_token if adds_bos(tokenizer) else None
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                messages = json.loads(line)["messages"]
                rendered = hf.render_chat(tokenizer, messages)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                form = '{"messages": [{"role", "content"}, …]}'
                raise ConfigurationError(f"{path}, line {number}: not a conversation of the form {form}. Correct the line.") from error
            except MeasurementError as error:
                raise MeasurementError(f"{path}, line {number}: {error}") from error
            # llama-imatrix begins every window with a BOS of its own
            yield rendered.removeprefix(bos) if bos else rendered


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer begins every text with BOS by itself."""
    return tokenizer.bos_token_id is not None and hf.encode(tokenizer, "a", add_special=True)[:1] == [tokenizer.bos_token_id]


def paragraphs(path: Path) -> list[str]:
    """A text file in pieces that end with an empty line; joined they give the text, with one newline at its end. Raises ConfigurationError."""
    try:
        *pieces, last = (path.read_text(encoding="utf-8").rstrip("\n") + "\n").split("\n\n")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text: {error}. Convert it, or name another file in the recipe.") from error
    return [piece + "\n\n" for piece in pieces] + [last]


def chosen(sources: Iterable[list[str]], tokenizer: PreTrainedTokenizerBase, tokens: int) -> list[tuple[str, int]]:
    """The pieces of all sources with their numbers of tokens; when that is more than `tokens`, the beginning of each source.

    Every source then gives the same share of itself, rounded up to a whole piece, so that no file is left out because others came first.
    """
    counted = [[(piece, len(hf.encode(tokenizer, piece, add_special=False))) for piece in source] for source in sources]
    total = sum(count for source in counted for _, count in source)
    share = min(1.0, tokens / total) if total else 1.0
    taken = []
    for source in counted:
        left = share * sum(count for _, count in source)
        for piece, count in source:
            if left <= 0:
                break
            left -= count
            taken.append((piece, count))
    return taken
