"""Writes safetensors files a tensor at a time, as the format has it: length of the header, header, data without gaps."""

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from builders.names import INDEX
from builders.weights import Tensor, read_header

ALIGNED = 8  # bytes, to a multiple of which a header is padded


def write_file(target: Path, tensors: Sequence[Tensor], values: Iterable[bytes]) -> None:
    """One file of these tensors; `values` are their bytes in the same order, of which only one is in memory at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [end, end := end + tensor.bytes]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNED)
    with target.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for data in values:
            file.write(data)


def write_without(target: Path, source: Path, names: Collection[str]) -> bool:
    """The safetensors file `source` without these tensors, of the others every bit as it is; False, and nothing written, where there are no others.

    Raises UpstreamError when it is not sound.
    """
    there = read_header(source)
    kept = [tensor for tensor in there if tensor.name not in names]

    def values() -> Iterator[bytes]:
        with source.open("rb") as file:
            file.seek(-sum(tensor.bytes for tensor in there), os.SEEK_END)
            for tensor in there:
                if tensor.name in names:
                    file.seek(tensor.bytes, os.SEEK_CUR)
                else:
                    yield file.read(tensor.bytes)

    if kept:
        write_file(target, kept, values())
    return bool(kept)


def write_index(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """The index of a model in several files, by what each tensor's `file` says."""
    index = {"metadata": {"total_size": sum(tensor.bytes for tensor in tensors.values())}, "weight_map": {name: tensors[name].file for name in sorted(tensors)}}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
