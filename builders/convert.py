"""Converts the fixed model to a 16-bit GGUF with the converter of the pinned llama.cpp."""

import re
import tempfile
from pathlib import Path
from typing import Any

from builders.ggufs import weigh
from config.errors import ToolError, UpstreamError
from engines import toolchain, tools

VERSION = 1  # raise when outputs change

_UNKNOWN = re.compile(r"Model (\S+) is not supported")
_VOCABULARY = re.compile(r"BPE pre-tokenizer was not recognized|File not found: \S*tokenizer\.model")


def convert(out: Path, *, model: Path, name: str) -> dict[str, Any]:
    """Write `NAME-BF16.gguf`: matrices in bfloat16, vectors in float32.

    The file depends on the model and its name only, not on where either lies. Returns `file`, `bytes` and `parameters`.
    Raises UpstreamError when the converter does not know the architecture or cannot read the model, ToolError when it is not installed.
    """
    toolchain.converter()
    target = out / f"{name}-BF16.gguf"
    with tempfile.TemporaryDirectory(prefix="sluice-convert-") as folder:
        named = Path(folder) / name  # the converter derives metadata from the folder's name
        named.symlink_to(model.resolve(), target_is_directory=True)
        try:
            tools.convert(named, "--outtype", "bf16", "--outfile", target.resolve(), "--model-name", name, cwd=Path(folder))
        except ToolError as error:
            target.unlink(missing_ok=True)
            raise _in_words(error, name, model) from error
    weight = weigh(target)
    return {"file": target.name, "bytes": weight.file_bytes, "parameters": weight.parameters}


def _in_words(error: ToolError, name: str, model: Path) -> UpstreamError:
    if unknown := _UNKNOWN.search(str(error)):
        return UpstreamError(
            f"{name} has the architecture {unknown[1]}, which the converter of llama.cpp ({toolchain.version()}) does not know. "
            "No GGUF can be made of it until llama.cpp supports it: wait for a version that does and raise the pinned one."
        )
    if _VOCABULARY.search(str(error)) and not (model / "tokenizer.model").exists():
        return UpstreamError(
            f"{name} has no tokenizer.model, and llama.cpp's converter ({toolchain.version()}) does not know its tokenizer.json by itself. Where that holds a "
            "SentencePiece vocabulary, the fix `tokenizer-model` rebuilds the file: let the recipe say `fixes: true`, or add the base model's tokenizer.model."
        )
    return UpstreamError(f"{name} cannot be converted to GGUF; its files may be incomplete or unusual. {error}")
