"""Names the weights' type as every reader understands it: `dtype` of transformers 5 and the older `torch_dtype` alike, and as PyTorch calls it."""

from collections.abc import Mapping

from builders.fixes.edits import Edit, Files, value_at
from builders.weights import Tensor
from config.rules import Family

FILE, KEYS = "config.json", ("dtype", "torch_dtype")
STORED = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
SPELLINGS = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}


def repair(files: Files, family: Family | None, *, tensors: Mapping[str, Tensor]) -> list[Edit]:
    """Correct what is misspelt; of two that differ, the one in which the weights are stored holds, else `dtype`, which newer programs read."""
    edits = []
    for section in ((), ("text_config",)):
        stated = {key: value_at(files, FILE, (*section, key)) for key in KEYS}
        spelt = {key: _spelt(value) for key, value in stated.items() if isinstance(value, str)}
        if not spelt:
            continue
        stored = STORED.get(_most(tensors), "")
        true = stored if stored in spelt.values() or not set(spelt.values()) & {*STORED.values(), "auto"} else next(iter(spelt.values()))
        if true:
            edits += [
                Edit(file=FILE, key=(*section, key), after=true, because=f"it said {stated[key]}" + (f", the weights are {stored}" if stored else ""))
                for key in spelt
                if stated[key] != true
            ]
    return edits


def _spelt(value: str) -> str:
    short = value.removeprefix("torch.").lower()
    return SPELLINGS.get(short, short)


def _most(tensors: Mapping[str, Tensor]) -> str:
    """The type that most bytes of the weights are in."""
    sizes: dict[str, int] = {}
    for tensor in tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.bytes
    return max(sizes, key=lambda name: sizes[name], default="")
