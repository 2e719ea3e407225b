"""Writes a release that stores experts in MXFP4 as GGUF with upstream's own 4-bit numbers: nothing is rounded, and every byte is accounted for."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import ReaderTensor

from builders import matrices, packed
from builders.ggufs import described
from builders.names import INDEX
from builders.quantize import unquantized
from config.errors import ConversionError, ToolError, UpstreamError
from config.progress import counted
from engines import gguf_tensors, tools

VERSION = 1  # raise when outputs change

TYPE = "MXFP4"
METHOD = "mxfp4"  # `quant_method` in config.json, by which the converter knows that it has to move the numbers and not to read them
SHOWN = 3  # tensors that a sentence names


def build(out: Path, *, gguf: Path, model: Path, snapshot: Path, name: str) -> dict[str, Any]:
    """Write `NAME-MXFP4.gguf`: what upstream stores in MXFP4 in its own bits, and all the rest as in the 16-bit file.

    `model` is the fixed folder and `snapshot` the release as it came, whose weights are read. Whatever tensor has another value than in the 16-bit file `gguf`,
    which was made from the same numbers multiplied out, is an error. Returns what `ggufs.described` tells, `fallbacks`, and `kept`: tensors in upstream's bits.
    Raises UpstreamError when the release has nothing in MXFP4 or cannot be converted, ToolError when the converter was
    killed, or the file is not what it should be, which leaves none.
    """
    said = packed.settings(json.loads((snapshot / "config.json").read_text(encoding="utf-8")))
    if said.get("quant_method") != METHOD:
        raise UpstreamError(f"{name} is not stored in MXFP4, so there is no variant {TYPE} of it. Take it out of the recipe's variants.")
    target = out / f"{name}-{TYPE}.gguf"
    with tempfile.TemporaryDirectory(prefix="sluice-mxfp4-") as folder:
        stored = Path(folder) / name  # the converter derives metadata from the folder's name
        stored.mkdir()
        for file in _files(model, snapshot):
            (stored / file.name).symlink_to(file.resolve())
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        (stored / "config.json").write_text(json.dumps(config | {packed.KEY: dict(said)}), encoding="utf-8")
        options = ("--outtype", unquantized(gguf).lower(), "--outfile", target.resolve(), "--model-name", name)
        try:
            tools.convert(stored, *options, cwd=Path(folder))
        except ConversionError as error:
            target.unlink(missing_ok=True)
            raise UpstreamError(
                f"llama.cpp's converter cannot move the MXFP4 weights of {name} into a GGUF file. Leave the variant {TYPE} out. {error}"
            ) from error
    kept, wrong = _compared(target, gguf)
    if wrong or not kept:
        target.unlink()
        what = f"{', '.join(wrong[:SHOWN])} differ from the 16-bit file" if wrong else "no tensor is in MXFP4"
        raise ToolError(f"The GGUF file with upstream's MXFP4 weights is not what it should be: {what}. Leave the variant {TYPE} out, and report this.")
    return {**described(target), "fallbacks": {}, "kept": len(kept)}


def _files(model: Path, snapshot: Path) -> Iterator[Path]:
    """Everything of the fixed model but its weights and config.json, and the weights as they came."""
    for file in sorted(model.iterdir()):
        if file.suffix != ".safetensors" and file.name not in {INDEX, "config.json"}:
            yield file
    for file in sorted(snapshot.iterdir()):
        if file.suffix == ".safetensors" or file.name == INDEX:
            yield file


def _compared(file: Path, gguf: Path) -> tuple[list[str], list[str]]:
    """The tensors in MXFP4 whose values are those of the 16-bit file, and all that differ from it."""
    found = {tensor.name: tensor for tensor in gguf_tensors.read(file)}
    expected = {tensor.name: tensor for tensor in gguf_tensors.read(gguf)}
    wrong = sorted(found.keys() ^ expected.keys())
    kept = []
    for name in counted(sorted(found.keys() & expected.keys()), "tensors"):
        if found[name].tensor_type.name == TYPE:
            kept.append(name)
        if not _same(found[name], expected[name]):
            wrong.append(name)
    return kept, wrong


def _same(found: ReaderTensor, expected: ReaderTensor) -> bool:
    if found.tensor_type == expected.tensor_type:
        return gguf_tensors.same(found, expected)
    if found.tensor_type.name != TYPE or found.shape.tolist() != expected.shape.tolist():
        return False
    return bool(np.array_equal(matrices.values(found), matrices.values(expected)))
