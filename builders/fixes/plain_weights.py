"""Says in config.json that weights of 8 bits or MXFP4 were multiplied out to bfloat16, which `builders.float8` does with the weights themselves."""

from collections.abc import Mapping

from builders import packed
from builders.fixes.edits import Edit, Files, dict_at, value_at
from builders.weights import Tensor
from config.rules import Family

TYPES = ("dtype", "torch_dtype")  # keys of config.json, the newer one first


def repair(files: Files, family: Family | None, *, tensors: Mapping[str, Tensor]) -> list[Edit]:
    """Nothing is changed of a model without such weights."""
    settings = packed.settings(dict_at(files, "config.json", ()))
    eight, four = packed.scaled(settings, tensors), packed.fours(tensors)
    if not eight and not four:
        return []
    told = ([f"{len(eight)} matrices in {_stored(eight)}, {_scales(eight)}"] if eight else []) + (
        [f"{len(four)} tensors in MXFP4, a power of two for each 32 numbers"] if four else []
    )
    because = "; ".join(told)
    places = [(key, nested) for nested in ((), ("text_config",)) for key in TYPES]
    stated = [(*nested, key) for key, nested in places if value_at(files, "config.json", (*nested, key)) not in {None, "bfloat16"}]
    edits = [Edit(file="config.json", key=key, after="bfloat16", because=because) for key in stated]
    described = [key for key in ((packed.KEY,), ("text_config", packed.KEY)) if value_at(files, "config.json", key) is not None]
    edits += [Edit(file="config.json", key=key, remove=True, because=because) for key in described]
    return edits or [Edit(file="config.json", key=(TYPES[0],), after="bfloat16", because=because)]


def _stored(eight: Mapping[str, packed.Scaled]) -> str:
    return " and ".join(sorted({scaled.tensor.dtype for scaled in eight.values()}))


def _scales(eight: Mapping[str, packed.Scaled]) -> str:
    """What shares a scale: "a scale for each block of 128 x 128"."""
    if all(scaled.scale is None for scaled in eight.values()):
        return "which have no scales"
    kinds = {scaled.blocks for scaled in eight.values()}
    if kinds == {()}:
        return "each with one scale"
    found = {" x ".join(map(str, blocks)) for blocks in kinds if len(blocks) > 1 and min(blocks[-2:]) > 1}
    return f"a scale for each block of {found.pop()}" if len(kinds) == 1 and found else "with scales of their own"
