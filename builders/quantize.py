"""Quantizes the 16-bit GGUF with the importance matrix: to one of llama.cpp's stock mixes, or to a planned one.

Matrices that the importance matrix says nothing about, since llama.cpp never multiplies anything by them (layers for multi-token prediction), are Q8_0 in all
of them: who drafts with them gets what was trained, and no type that needs importances is wanted where there are none.
"""

import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_SIZES, QK_K, GGMLQuantizationType

from builders.contents import place
from builders.ggufs import described, padded
from builders.links import link_or_copy
from config.errors import ToolError
from engines import gguf_table, quantizable, tools

VERSION = 5  # raise when outputs change

UNQUANTIZED = ("BF16", "F16", "F32")
BLOCKS_OF_32 = ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL", *UNQUANTIZED)
"""The mixes whose rules want no type in blocks of QK_K values."""

_NAMES = {"Q2_K": "Q2_K", "Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "IQ2_XS": "IQ2_XS", "IQ2_S": "IQ2_M"}  # of the file that holds mostly this type
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
    """Write `NAME-TYPE.gguf`; the type in which the given file has its matrices is that file itself under that name. Rows that do not fit a type's blocks get
    another, as llama.cpp decides.

    Returns what `ggufs.described` tells, and `fallbacks`. Raises ToolError.
    """
    target = out / f"{name}-{type}.gguf"
    if type in UNQUANTIZED and type == unquantized(gguf):
        link_or_copy(gguf, target)
    else:
        _run(gguf, imatrix, _unmeasured(gguf, imatrix), after=(target.resolve(), type, str(threads)))
    return {**described(target), "fallbacks": fallbacks(target, type)}


def fallbacks(path: Path, type: str) -> dict[str, dict[str, list[int]]]:
    """Where a type stands in for one in blocks of 256, which a matrix's rows do not fit: by type and role, the layers; none for a matrix outside of layers.

    `type` is the mix.

    llama.cpp decides that in src/llama-quant.cpp, where it warns of "fallback quantization".
    """
    if type in BLOCKS_OF_32:
        return {}
    found: dict[str, dict[str, list[int]]] = {}
    for entry in gguf_table.read(path).entries:
        if entry.dimensions > 1 and entry.columns % QK_K and entry.type not in UNQUANTIZED:
            layer, role = place(entry.name)
            layers = found.setdefault(entry.type, {}).setdefault(role, [])
            layers += [] if layer is None else [layer]
    return {type: {role: sorted(layers) for role, layers in sorted(roles.items())} for type, roles in sorted(found.items())}


def unquantized(gguf: Path) -> str:
    """The type of the matrices of a file that is not quantized: BF16, F16 or F32. Those that are in 32 bits in every file, as routers are, do not count."""
    found = {entry.type for entry in gguf_table.read(gguf).entries if entry.dimensions > 1}
    return next((type for type in UNQUANTIZED if type in found), "F32")


def mixed(out: Path, *, gguf: Path, imatrix: Path, mix: Path, name: str, tag: str, threads: int) -> dict[str, Any]:
    """Write `NAME-TAG.gguf` with exactly the types in the JSON file `mix`, {tensor: type}; tensors that it does not name get what llama-quantize gives them.

    `general.file_type`, which programs show, is the stock mix whose main type has most of the parameters. Returns the same as `quantize`.
    Raises ToolError when a tensor comes out in another type, which leaves no file.
    """
    types: dict[str, str] = json.loads(mix.read_text(encoding="utf-8"))
    sizes = {entry.name: entry.values for entry in gguf_table.read(gguf).entries}
    if unknown := sorted(types.keys() - sizes.keys()):
        raise ToolError(f"The mix names tensors that {gguf.name} does not have: {', '.join(unknown)}. Plan it anew for this file.")
    target = out / f"{name}-{tag}.gguf"
    _run(gguf, imatrix, {**_unmeasured(gguf, imatrix), **types}, after=(target.resolve(), _base(types, sizes), str(threads)))
    found = {entry.name: entry.type for entry in gguf_table.read(target).entries}
    if wrong := [f"{tensor} is {found[tensor]} instead of {type}" for tensor, type in types.items() if found[tensor] != type]:
        target.unlink()
        raise ToolError(f"llama-quantize did not keep to the mix: {', '.join(wrong)}. Leave these types out for these tensors: their rows do not fit them.")
    return described(target)


def _unmeasured(gguf: Path, imatrix: Path | None) -> dict[str, str]:
    """The type of each matrix that the importance matrix says nothing about; none are known without one."""
    try:
        return {} if imatrix is None else dict.fromkeys(quantizable.without_importances(gguf, imatrix), quantizable.UNMEASURED)
    except ValueError:
        return {}  # llama-quantize says better what is wrong with a file


def _exactly(name: str) -> str:
    """A pattern for llama-quantize that finds this name only. It folds the pattern's case, not the name's, so a capital is written as any character."""
    return "^" + re.sub(r"[A-Z]", ".", name.replace(".", "\\.")) + "$"


def _base(types: Mapping[str, str], sizes: Mapping[str, int]) -> str:
    """The stock mix to name as the file's type: its rules decide about no tensor that has a type of its own, but BF16 would switch those types off."""
    counted: Counter[str] = Counter()
    for tensor, type in sorted(types.items()):
        counted[type] += sizes[tensor]
    quantized = [type for type, _ in counted.most_common() if type not in UNQUANTIZED]
    return _NAMES.get(quantized[0], quantized[0]) if quantized else "Q8_0"


def file_bytes(header: int, tensors: Iterable[Planned]) -> int:
    """Bytes of a file with these tensors after a header of `header` bytes.

    The real file is larger by what it says about the importance matrix: four metadata entries, less than 512 bytes.
    """
    return header + sum(padded(tensor.bytes) for tensor in tensors)


def planned(gguf: Path, type: str, imatrix: Path | None = None) -> Mapping[str, Planned]:
    """What llama-quantize would make of every tensor, by name, as its `--dry-run` says. Raises ToolError.

    Some mixes choose other types without an imatrix, so give it when there is one.
    """
    output = _run(gguf, imatrix, _unmeasured(gguf, imatrix), before=("--dry-run",), after=(type,))
    found = {match["name"]: _planned(match) for match in map(_LINE.search, output.splitlines()) if match}
    if not found:
        raise ToolError("The dry run of llama-quantize listed no tensors: its output has changed. Adapt the pattern in builders/quantize.py.")
    return found


def _run(gguf: Path, imatrix: Path | None, types: Mapping[str, str], *, before: Sequence[str] = (), after: Sequence[str | Path] = ()) -> str:
    """Run llama-quantize on links with plain names, with arguments before and after the model's: it writes the imatrix's path into the file.

    `types` are those of tensors, by name, that the mix does not decide about.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-quantize-") as folder:
        links = {"model.gguf": gguf} | ({"imatrix.gguf": imatrix} if imatrix else {})
        for name, path in links.items():
            (Path(folder) / name).symlink_to(path.resolve())
        options = ["--imatrix", "imatrix.gguf"] if imatrix else []
        if types:
            (Path(folder) / "types.txt").write_text("".join(f"{_exactly(tensor)}={type.lower()}\n" for tensor, type in types.items()), encoding="utf-8")
            options += ["--tensor-type-file", "types.txt"]
        return tools.run("llama-quantize", *options, *before, "model.gguf", *after, cwd=Path(folder))


def _planned(match: re.Match[str]) -> Planned:
    kind = GGMLQuantizationType[(match["target"] or match["type"]).upper()]
    row, *others = (int(size) for size in match["shape"].split(","))
    block, block_bytes = GGML_QUANT_SIZES[kind]
    return Planned(type=kind, quantized=match["target"] is not None, bytes=math.prod(others) * row // block * block_bytes)
