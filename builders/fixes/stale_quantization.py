"""Removes a quantization_config that weights do not bear out, as merging an adapter into a 4-bit base leaves it behind."""

from collections.abc import Mapping

from builders import packed
from builders.fixes.edits import Edit, Files, dict_at, value_at
from builders.weights import PLAIN, Tensor
from config.rules import Family

KEY = "quantization_config"


def repair(files: Files, family: Family | None, *, tensors: Mapping[str, Tensor]) -> list[Edit]:
    """Nothing is changed unless every matrix is stored as ordinary floating-point numbers, nor where these may be meant to be quantized in every pass."""
    matrices = [tensor for tensor in tensors.values() if len(tensor.shape) > 1]
    if not matrices or any(tensor.dtype not in PLAIN for tensor in tensors.values()) or packed.in_use(dict_at(files, "config.json", ())):
        return []
    because = f"all {len(matrices)} matrices are stored as {', '.join(sorted({tensor.dtype for tensor in matrices}))}"
    keys = ((KEY,), ("text_config", KEY))
    return [Edit(file="config.json", key=key, remove=True, because=because) for key in keys if value_at(files, "config.json", key) is not None]
