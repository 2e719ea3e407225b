"""Brings data as data sets are published, parquet and JSON Lines of several forms, into the two that stages read: plain text, and JSON Lines of messages."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from config.data import Form
from config.errors import ConfigurationError

TEXT, CHAT = "text.txt", "chat.jsonl"  # what is written
COLUMN = "text"
CONVERSATIONS = ("messages", "conversations")  # columns that hold them; the first is the form that stages read
ROLES: Mapping[str, str] = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant", "assistant": "assistant",
    "system": "system", "tool": "tool", "function": "tool",
}  # fmt: skip
"""Who speaks, as `from` says it, with what templates call them."""
LARGEST = 4_000_000_000  # bytes of text that are written; packed, far more may be in a small file
ROWS = 256  # read at a time
LOOKED_AT = 1000  # rows that tell whether a text is published line by line


def fitting(file: Path, form: Form) -> bool:
    """Whether the file is in the form that stages read; what is wrong with one that is, is told where all data are looked at."""
    if form == "questions" or file.is_dir():
        return True
    if file.suffix == ".parquet":
        return False
    if form == "plain" or file.suffix != ".jsonl":
        return True
    try:
        first = next(_objects(file), None)
    except ConfigurationError:
        return True
    return not (isinstance(first, dict) and CONVERSATIONS[0] not in first and CONVERSATIONS[1] in first)


def convert(file: Path, form: Form, out: Path) -> Path:
    """Write the file's text, or its conversations, into `out` in the form that stages read; where it lies there.

    Of parquet, plain text is the column `text`. Where its rows are lines, as in wikitext, they are joined to the file that they were made from, in which an
    empty line holds a blank; else rows are documents, with an empty line between two. Conversations are the column, or the key, `messages` or
    `conversations`, with `role` and `content` or with `from` and `value`. Raises ConfigurationError that says which columns are there.
    """
    if form == "plain":
        rows = (row[COLUMN] for row in _table(file, (COLUMN,)))
        return _write(out / TEXT, file, _joined(file, rows))
    found = _table(file, CONVERSATIONS) if file.suffix == ".parquet" else _objects(file)
    lines = (_line(row, f"{file}, row {number}") for number, row in enumerate(found, start=1))
    return _write(out / CHAT, file, lines)


def _write(path: Path, source: Path, pieces: Iterable[str]) -> Path:
    with path.open("wb") as file:
        for piece in pieces:
            _add(file, piece.encode("utf-8", errors="replace"), source)
        if not file.tell():
            raise ConfigurationError(f"{source} holds no rows. Name another file in the recipe.")
    return path


def _add(file: BinaryIO, piece: bytes, source: Path) -> None:
    if file.tell() + len(piece) > LARGEST:
        raise ConfigurationError(f"{source} holds more than {LARGEST / 1e9:.0f} GB of text. Name a smaller part of the data set in the recipe.")
    file.write(piece)


# ---- plain text -------------------------------------------------------------------------------------------------------------------------------


def _joined(file: Path, rows: Iterable[object]) -> Iterator[str]:
    """The rows with what stood between them."""
    texts = (_text(file, number, row) for number, row in enumerate(rows, start=1))
    first = list(islice(texts, LOOKED_AT))
    by_line = any(first) and all(text.endswith("\n") for text in first if text)
    for text in chain(first, texts):
        yield (text or " \n") if by_line else f"{text}\n\n" if text else ""


def _text(file: Path, number: int, row: object) -> str:
    if row is None:
        return ""
    if not isinstance(row, str):
        raise ConfigurationError(f"{file}, row {number}: the column `{COLUMN}` holds a {type(row).__name__}, not text. Name another file in the recipe.")
    return row


# ---- conversations ----------------------------------------------------------------------------------------------------------------------------


def _line(row: object, where: str) -> str:
    if not isinstance(row, dict):
        raise ConfigurationError(f"{where}: a {type(row).__name__}, not an object with `{CONVERSATIONS[0]}` or `{CONVERSATIONS[1]}`. Correct it.")
    said = next((row[name] for name in CONVERSATIONS if row.get(name) is not None), None)
    if not isinstance(said, list) or not said:
        raise ConfigurationError(f"{where}: no list of messages under `{CONVERSATIONS[0]}` or `{CONVERSATIONS[1]}`; what is there: {_named(row)}. Correct it.")
    return json.dumps({"messages": [_message(item, where) for item in said]}, ensure_ascii=False) + "\n"


def _message(item: object, where: str) -> dict[str, Any]:
    """A message as templates take it, without what is empty in a table because other rows have it."""
    if not isinstance(item, dict):
        raise ConfigurationError(f"{where}: a message is a {type(item).__name__}, not an object with a role. Correct it.")
    role = item["role"] if item.get("role") is not None else ROLES.get(str(item.get("from")))
    if not isinstance(role, str):
        raise ConfigurationError(
            f"{where}: a message has no `role`, and is `from` {str(item.get('from'))[:40]!r}; known are {', '.join(ROLES)}. "
            f"What it has: {_named(item)}. Correct it."
        )
    content = item["content"] if item.get("content") is not None else item.get("value")
    rest = {key: value for key, value in item.items() if key not in {"role", "from", "content", "value"} and value is not None}
    return {"role": role, "content": content, **rest}


# ---- reading ----------------------------------------------------------------------------------------------------------------------------------


def _objects(file: Path) -> Iterator[object]:
    """Each line of a JSON Lines file. Raises ConfigurationError with the line that is wrong."""
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    try:
                        yield json.loads(line)
                    except (ValueError, RecursionError) as error:
                        raise ConfigurationError(f"{file}, line {number}, is not JSON ({error}). Correct it, or name another file in the recipe.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}. Name another file in the recipe.") from error


def _table(file: Path, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file, of these columns. Raises ConfigurationError that says which columns it has when it has none of them."""
    import pyarrow as pa  # takes a while
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as table:
            names = table.schema_arrow.names
            if not (columns := [name for name in wanted if name in names]):
                lacking = " or ".join(f"`{name}`" for name in wanted)
                raise ConfigurationError(f"{file} has no column {lacking}; its columns: {', '.join(names)}. Name another file, or under another key.")
            for batch in table.iter_batches(batch_size=ROWS, columns=columns, use_threads=False):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read as parquet: {error}. Fetch it again, or name another file in the recipe.") from error


def _named(row: Mapping[str, object]) -> str:
    return ", ".join(str(key)[:40] for key in row) or "nothing"
