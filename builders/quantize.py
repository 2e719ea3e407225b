"""Quantizes the 16-bit GGUF to one of llama.cpp's stock mixes, with the importance matrix."""

import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from builders.ggufs import weigh
from builders.links import link_or_copy
from config.errors import ToolError
from engines import tools

VERSION = 1  # raise when outputs change

ALIGNMENT = 32  # bytes, of each tensor in a GGUF that llama-quantize writes (GGUF_DEFAULT_ALIGNMENT)
_LINE = re.compile(
    r"\[ *\d+/ *\d+\] (?P<name>\S+) +- \[(?P<shape>[ \d,]+)\], type = +(?P<type>\w+), size = +[\d.]+ MiB(?: -> +[\d.]+ MiB \((?P<target>\w+)\))?"
)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What llama-quantize would make of one tensor."""

    type: GGMLQuantizationType
    quantized: bool  # False: kept as it is
    bytes: int


def quantize(out: Path, *, gguf: Path, imatrix: Path, type: str, name: str, threads: int) -> dict[str, Any]:
    """Write `NAME-TYPE.gguf`; BF16 is the 16-bit file itself under that name. Rows that do not fit a type's blocks get another, as llama.cpp decides.

    Returns `file`, `bytes`, `parameters` and `bpw` (bits of tensor data per parameter). Raises ToolError.
    """
    target = out / f"{name}-{type}.gguf"
    if type == "BF16":
        link_or_copy(gguf, target)
    else:
        _run(gguf, imatrix, after=(target.resolve(), type, str(threads)))
    weight = weigh(target)
    return {"file": target.name, "bytes": weight.file_bytes, "parameters": weight.parameters, "bpw": weight.bpw}


def dry_run_bytes(gguf: Path, type: str, imatrix: Path | None = None) -> int:
    """Bytes of the file that `quantize` would write, without writing it; exact for the tensors.

    The real file is larger by what it says about the importance matrix: four metadata entries, less than 512 bytes.
    Some mixes choose other types without an imatrix, so give it when there is one.
    """
    if type == "BF16":
        return gguf.stat().st_size
    return weigh(gguf).header_bytes + sum(-(-tensor.bytes // ALIGNMENT) * ALIGNMENT for tensor in planned(gguf, type, imatrix).values())


def planned(gguf: Path, type: str, imatrix: Path | None = None) -> Mapping[str, Planned]:
    """What llama-quantize would make of every tensor, by name, as its `--dry-run` says. Raises ToolError."""
    output = _run(gguf, imatrix, before=("--dry-run",), after=(type,))
    found = {match["name"]: _planned(match) for match in map(_LINE.search, output.splitlines()) if match}
    if not found:
        raise ToolError("The dry run of llama-quantize listed no tensors: its output has changed. Adapt the pattern in builders/quantize.py.")
    return found


def _run(gguf: Path, imatrix: Path | None, *, before: Sequence[str] = (), after: Sequence[str | Path] = ()) -> str:
    """Run llama-quantize on links with plain names, with arguments before and after the model's: it writes the imatrix's path into the file."""
    with tempfile.TemporaryDirectory(prefix="sluice-quantize-") as folder:
        links = {"model.gguf": gguf} | ({"imatrix.gguf": imatrix} if imatrix else {})
        for name, path in links.items():
            (Path(folder) / name).symlink_to(path.resolve())
        options = ("--imatrix", "imatrix.gguf") if imatrix else ()
        return tools.run("llama-quantize", *options, *before, "model.gguf", *after, cwd=Path(folder))


def _planned(match: re.Match[str]) -> Planned:
    kind = GGMLQuantizationType[(match["target"] or match["type"]).upper()]
    row, *others = (int(size) for size in match["shape"].split(","))
    block, block_bytes = GGML_QUANT_SIZES[kind]
    return Planned(type=kind, quantized=match["target"] is not None, bytes=math.prod(others) * row // block * block_bytes)
