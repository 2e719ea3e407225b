"""Converts the fixed model to the GGUF that everything is made from, in the precision of its weights, with the converter of the pinned llama.cpp."""

import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from builders import precision
from builders.ggufs import weigh
from config.errors import MeasurementError, ToolError, UpstreamError
from engines import toolchain, tools

VERSION = 2  # raise when outputs change

_UNKNOWN = re.compile(r"Model (\S+) is not supported")
_UNMAPPED = re.compile(r"Can not map tensor '([^']+)'")
_VOCABULARY = re.compile(r"BPE pre-tokenizer was not recognized|File not found: \S*tokenizer\.model")


def convert(out: Path, *, model: Path, name: str) -> dict[str, Any]:
    """Write `NAME-TYPE.gguf`: matrices in BF16, F16 or F32, whichever holds them bit for bit (see `builders.precision`), vectors in float32.

    The file depends on the model and its name only, not on where either lies. Returns `file`, `bytes`, `parameters` and `type`.
    Raises UpstreamError when the converter does not know the architecture or cannot read the model, or when weights are missing or not finite, ToolError when
    it is not installed.
    """
    toolchain.converter()
    _require_all(model)
    type = precision.exact(model)
    target = out / f"{name}-{type}.gguf"
    with tempfile.TemporaryDirectory(prefix="sluice-convert-") as folder:
        named = Path(folder) / name  # the converter derives metadata from the folder's name
        named.symlink_to(model.resolve(), target_is_directory=True)
        try:
            tools.convert(named, "--outtype", type.lower(), "--outfile", target.resolve(), "--model-name", name, cwd=Path(folder))
        except ToolError as error:
            target.unlink(missing_ok=True)
            raise _in_words(error, name, model) from error
    weight = weigh(target)
    return {"file": target.name, "bytes": weight.file_bytes, "parameters": weight.parameters, "type": type}


def _require_all(model: Path) -> None:
    """Raise UpstreamError when the model lacks weights; nothing where transformers cannot tell, which is for others to judge."""
    from engines import hf  # torch

    with suppress(MeasurementError):
        hf.require_all(model)


def _in_words(error: ToolError, name: str, model: Path) -> UpstreamError:
    if unknown := _UNKNOWN.search(str(error)):
        return UpstreamError(
            f"{name} has the architecture {unknown[1]}, which the converter of llama.cpp ({toolchain.version()}) does not know. "
            "No GGUF can be made of it until llama.cpp supports it: wait for a version that does and raise the pinned one."
        )
    if unmapped := _UNMAPPED.search(str(error)):
        return UpstreamError(
            f"{name} holds the tensor {unmapped[1][:200]}, which the converter of llama.cpp ({toolchain.version()}) does not know in this architecture, so it "
            "cannot be converted to GGUF. Where it is no part of the language model, ask the owner of the release to upload the weights without it."
        )
    if _VOCABULARY.search(str(error)) and not (model / "tokenizer.model").exists():
        return UpstreamError(
            f"{name} has no tokenizer.model, and llama.cpp's converter ({toolchain.version()}) does not know its tokenizer.json by itself. Where that holds a "
            "SentencePiece vocabulary, the fix `tokenizer-model` rebuilds the file: let the recipe say `fixes: true`, or add the base model's tokenizer.model."
        )
    return UpstreamError(f"{name} cannot be converted to GGUF; its files may be incomplete or unusual. {error}")
