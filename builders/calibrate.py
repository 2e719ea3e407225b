"""Computes the importance matrix: how strongly each input of each weight matrix is used on calibration text."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader

from config.errors import ConfigurationError, MeasurementError, UnsupportedModel
from config.progress import counted
from engines import hf, llama, llama_server, spoken, tools
from engines.spoken import Voice

VERSION = 2  # raise when outputs change

TEXT = "calibration.txt"  # llama-imatrix writes this name into its file, so it holds no path
RESULT = "imatrix.gguf"
ORDER = 0  # seed of the windows' order

Windows = npt.NDArray[np.int64]  # (n, T)


@contextmanager
def voice(model: Path, *, threads: int) -> Iterator[Voice]:
    """The voice of a folder in the transformers form, or of a GGUF file, while the block runs. Raises MeasurementError, ToolError."""
    if model.is_dir():
        yield hf.speaking(hf.load_tokenizer(model))
        return
    with llama.open_vocabulary(model) as vocabulary, llama_server.speaking(vocabulary, threads=threads) as by:
        yield by


def imatrix(out: Path, *, model: Path, gguf: Path, chat: list[Path], plain: list[Path], tokens: int, context: int, threads: int) -> dict[str, Any]:
    """Write `imatrix.gguf`, from at most `tokens` tokens in windows of `context`: conversations in the model's own template, then plain text.

    `model` is the folder whose template and tokenizer are used, or the GGUF file itself for those that it holds. When there is more text than that, every file
    gives the same share of itself. Where there is a GPU, the folder's network reads the windows there. Returns `file`, `tokens` and `chunks` (windows used).
    Raises ConfigurationError when a conversation cannot be read, MeasurementError when there is too little text.
    """
    if tokens < 2 * context:
        raise ConfigurationError(f"Calibration may use {tokens} tokens and needs two windows of {context} at least. Raise `calibration.tokens` in the recipe.")
    given = {"model": model, "gguf": gguf, "chat": chat, "plain": plain, "tokens": tokens, "context": context, "threads": threads}
    if model.is_dir() and (found := _on_gpu(out, **given)) is not None:
        return found
    with voice(model, threads=threads) as by:
        pieces = chosen(_sources(by, chat, plain), by, tokens)
    if (count := sum(count for _, count in pieces)) < 2 * context:
        raise MeasurementError(f"The calibration text has {count} tokens and needs two windows of {context} at least. Name more text under `calibration`.")
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


def _on_gpu(out: Path, **given: Any) -> dict[str, Any] | None:
    """The matrix by transformers where there is a GPU, which llama.cpp's programs here do not use; None where there is none, or it cannot be had so."""
    from builders import inputs  # it takes windows from here
    from builders.sensitivity import room

    if room.device().type != "cuda":
        return None
    try:
        return inputs.imatrix(out, **given)
    except UnsupportedModel:
        return None


def windows(by: Voice, chat: Sequence[Path], plain: Sequence[Path], *, tokens: int, context: int) -> Windows:
    """Windows (n, context) of calibration text as llama-imatrix reads it, in an order that mixes its sources; BOS is each one's first token where there is one.

    Raises MeasurementError when the text does not fill two.
    """
    ids = by.encode("".join(piece for piece, _ in chosen(_sources(by, chat, plain), by, tokens)))
    count = min(len(ids), tokens) // context
    if count < 2:
        raise MeasurementError(f"The calibration text has {len(ids)} tokens and needs two windows of {context} at least. Name more text under `calibration`.")
    if by.bos is not None:  # of the text, which llama-imatrix's tokenizer adds
        ids = [by.bos, *ids]
    cut = np.asarray(ids[: count * context], dtype=np.int64).reshape(count, context)
    if by.bos is not None:
        cut[:, 0] = by.bos
    return np.asarray(cut[np.random.default_rng(ORDER).permutation(count)])


def _sources(by: Voice, chat: Sequence[Path], plain: Sequence[Path]) -> list[list[str]]:
    return [list(counted(conversations(path, by), "conversations")) for path in chat] + [paragraphs(path) for path in plain]


def conversations(path: Path, by: Voice) -> Iterator[str]:
    """Each conversation of a JSON Lines file as the model's template takes it; those of which it takes no form are left out.

    Raises ConfigurationError with the line that is wrong.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                messages = json.loads(line)["messages"]
                rendered = spoken.taken(by.render, messages)  # without BOS: llama-imatrix begins every window with one of its own
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                form = '{"messages": [{"role", "content"}, …]}'
                raise ConfigurationError(f"{path}, line {number}: not a conversation of the form {form}. Correct the line.") from error
            except MeasurementError as error:
                raise MeasurementError(f"{path}, line {number}: {error}") from error
            if rendered is not None:
                yield rendered[1]


def paragraphs(path: Path) -> list[str]:
    """A text file in pieces that end with an empty line; joined they give the text, with one newline at its end. Raises ConfigurationError."""
    try:
        *pieces, last = (path.read_text(encoding="utf-8").rstrip("\n") + "\n").split("\n\n")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text: {error}. Convert it, or name another file in the recipe.") from error
    return [piece + "\n\n" for piece in pieces] + [last] if pieces or last.strip() else []


def chosen(sources: Sequence[list[str]], by: Voice, tokens: int) -> list[tuple[str, int]]:
    """The pieces of all sources with their numbers of tokens; when that is more than `tokens`, the beginning of each source.

    Every source then gives the same share of itself, rounded up to a whole piece, so that no file is left out because others came first.
    """
    counts = iter([len(by.encode(piece)) for piece in counted(list(chain.from_iterable(sources)), "passages")])
    measured = [[(piece, next(counts)) for piece in source] for source in sources]
    total = sum(count for source in measured for _, count in source)
    share = min(1.0, tokens / total) if total else 1.0
    taken = []
    for source in measured:
        left = share * sum(count for _, count in source)
        for piece, count in source:
            if left <= 0:
                break
            left -= count
            taken.append((piece, count))
    return taken
