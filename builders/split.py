"""Divides a finished GGUF file into parts, as llama.cpp reads them: for Hubs that refuse files above some size."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builders.ggufs import stored, weigh
from config.errors import StageError, ToolError
from config.progress import Tally
from engines import gguf_tensors, llama, tools

VERSION = 1  # raise when outputs change

MEGABYTE = 1_000_000  # in which llama-gguf-split counts
PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
"""How the names of parts end, see llama_split_path in llama.cpp's include/llama.h."""


def split(out: Path, *, gguf: Path, tag: str, limit: int) -> dict[str, Any]:
    """Write `TAG/NAME-TAG-00001-of-0000N.gguf` and so on, each of at most `limit` bytes: what `gguf`, which is called NAME-TAG.gguf, holds.

    The parts are read again: they hold every tensor of the file, byte for byte, and llama.cpp opens them. Returns `file` (the first), `parts` and `bytes`.
    Raises StageError when the limit is smaller than one of the tensors, ToolError when the parts are not the file.
    """
    header = weigh(gguf).header_bytes
    room = (limit - header) // MEGABYTE  # the first part has the header, of which llama-gguf-split takes no account
    name, largest = max(((name, tensor.bytes) for name, tensor in stored(gguf).items()), key=lambda item: item[1])
    if largest > room * MEGABYTE:
        raise StageError(
            f"{gguf.name} cannot be divided into files of at most {limit:,} bytes: {name} alone has {largest:,}, and a file has a header of up to "
            f"{header:,}. Raise `largest_file` in the settings."
        )
    folder = out / tag
    folder.mkdir()
    tools.run("llama-gguf-split", "--split", "--split-max-size", f"{room}M", gguf, folder / gguf.stem)
    parts = sorted(folder.iterdir())
    _compare(gguf, parts, limit)
    return {"file": f"{tag}/{parts[0].name}", "parts": len(parts), "bytes": sum(part.stat().st_size for part in parts)}


def _compare(gguf: Path, parts: Sequence[Path], limit: int) -> None:
    """Raise ToolError unless the parts together hold the tensors of the file, each keeps the limit, and llama.cpp opens them."""
    whole = {tensor.name: tensor for tensor in gguf_tensors.read(gguf)}
    tally = Tally(sum(int(tensor.n_bytes) for tensor in whole.values()), "bytes")
    for part in parts:
        for tensor in gguf_tensors.read(part):
            original = whole.pop(tensor.name, None)
            if original is None or not gguf_tensors.same(original, tensor):
                raise ToolError(f"llama-gguf-split wrote a tensor {tensor.name} into {part.name} that {gguf.name} does not hold so. Run it again.")
            tally.add(int(tensor.n_bytes))
        if part.stat().st_size > limit:
            raise ToolError(f"llama-gguf-split wrote {part.name} of {part.stat().st_size:,} bytes, and {limit:,} were allowed. Run it again.")
    if whole:
        raise ToolError(f"llama-gguf-split left {len(whole)} tensors of {gguf.name} out, {next(iter(whole))} for one. Run it again.")
    with llama.open_vocabulary(parts[0]):  # reads the headers of all
        pass
