"""A digest of what a GGUF file computes with: two files of one digest tokenize and predict alike, whatever else their headers say."""

import hashlib
import mmap
import struct
from pathlib import Path

from engines.gguf_header import ALIGNMENT, ARRAY, NUMBERS, STRING

# What describes the model or says how it is talked to; nothing that tokenizes or predicts reads it. `general.name` is none of them: llama.cpp does.
DESCRIBING = (
    *("general.author", "general.base_model.", "general.basename", "general.dataset.", "general.description", "general.finetune", "general.languages"),
    *("general.license", "general.organization", "general.quantized_by", "general.repo_url", "general.sampling.", "general.size_label", "general.source."),
    *("general.tags", "general.url", "general.uuid", "general.version", "tokenizer.chat_template"),
)

_SIZES = {kind: struct.calcsize(f"<{form}") for kind, form in NUMBERS.items()}  # bytes of a value, by its type in the file
_STEP = 1 << 26  # bytes that are read at once


def digest(path: Path) -> str:
    """sha256 over the tensors, their table, and all of the header but what is named in `DESCRIBING`. Raises ValueError when it is no GGUF file."""
    found = hashlib.sha256()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            magic, version, tensors, pairs = struct.unpack_from("<4sIQQ", data)
            if magic != b"GGUF" or version not in {2, 3}:
                raise ValueError(f"{path} is no GGUF file of a version that is known")
            position, alignment = 24, ALIGNMENT
            for _ in range(pairs):
                begin = position
                key, position = _text(data, position)
                (kind,) = struct.unpack_from("<I", data, position)
                if key == b"general.alignment":
                    (alignment,) = struct.unpack_from("<I", data, position + 4)
                position = _after(data, position + 4, kind)
                if not key.decode(errors="replace").startswith(DESCRIBING):
                    found.update(data[begin:position])
            begin = position
            for _ in range(tensors):
                _, position = _text(data, position)
                (dimensions,) = struct.unpack_from("<I", data, position)
                position += 4 + 8 * dimensions + 12
            found.update(data[begin:position])
        except (struct.error, KeyError, OverflowError) as error:
            raise ValueError(f"the header of {path} cannot be read") from error
        for start in range(-(-position // alignment) * alignment, len(data), _STEP):
            found.update(data[start : start + _STEP])
    return found.hexdigest()


def _text(data: mmap.mmap, position: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from("<Q", data, position)
    return data[position + 8 : position + 8 + length], position + 8 + length


def _after(data: mmap.mmap, position: int, kind: int) -> int:
    """Where a value of that type ends."""
    if kind == STRING:
        (length,) = struct.unpack_from("<Q", data, position)
        return int(position + 8 + length)
    if kind != ARRAY:
        return position + _SIZES[kind]
    inner, count = struct.unpack_from("<IQ", data, position)
    position += 12
    if inner in _SIZES:
        return int(position + _SIZES[inner] * count)
    for _ in range(count):
        position = _after(data, position, inner)
    return position
