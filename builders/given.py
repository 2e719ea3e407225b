"""Takes in a 16-bit GGUF file that somebody gives instead of a model in the transformers form."""

from pathlib import Path
from typing import Any

from builders.ggufs import weigh
from builders.links import link_or_copy
from builders.sensitivity import layout
from config.errors import UpstreamError
from engines import gguf_tensors

VERSION = 1  # raise when outputs change


def take(out: Path, *, gguf: Path, name: str) -> dict[str, Any]:
    """Write `NAME.gguf`, the same file. Returns `file`, `bytes` and `parameters`, as `convert` does.

    Raises UpstreamError when it is no GGUF of a whole model, or when its matrices are quantized.
    """
    try:
        fields = gguf_tensors.Reader(gguf).fields
        matrices = layout.quantizable(gguf)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UpstreamError(f"{name}.gguf cannot be read as a GGUF file: {error}. It is damaged, or something else.") from error
    if "split.count" in fields and int(fields["split.count"].contents()) > 1:
        raise UpstreamError(f"{name}.gguf is one of several parts. Join them with `llama-gguf-split --merge` and give the whole file.")
    if quantized := [tensor for tensor in matrices if tensor.tensor_type.name not in layout.DTYPES]:
        raise UpstreamError(
            f"{name}.gguf is quantized already: {quantized[0].name} is {quantized[0].tensor_type.name}. Give the 16-bit file; what is lost cannot be planned."
        )
    if not matrices:
        raise UpstreamError(f"{name}.gguf holds no matrix to quantize. Give the GGUF file of a whole model.")
    target = out / f"{name}.gguf"
    link_or_copy(gguf, target)
    weight = weigh(target)
    return {"file": target.name, "bytes": weight.file_bytes, "parameters": weight.parameters}
