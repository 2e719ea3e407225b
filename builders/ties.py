"""The output matrix that a model stores although config.json says that it has none of its own, its embeddings being it: a copy of them, or another matrix.

transformers 4 leaves such a matrix out, transformers 5 and llama.cpp's converter use it. Of a copy every GGUF file would hold both.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders import predicting
from builders.names import EMBEDDINGS, HEAD
from builders.weights import PLAIN, Tensor

KEY = "tie_word_embeddings"
BESIDE = ("mtp", "nextn", "per_layer")  # in the names of matrices that are not the model's own
ROWS = 1024  # compared together


@dataclass(frozen=True, kw_only=True)
class Spare:
    """An output matrix beside embeddings that are to be it."""

    tensor: Tensor
    embeddings: str  # name of the tensor that it would be
    differing: int  # rows that are not theirs; 0 of a copy


def spare(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Spare | None:
    """That of the model in `folder`, whose `tensors` are given by name; None where there is none, or where names do not tell which matrix is which."""
    found = pair(config, tensors)
    return None if found is None else Spare(tensor=found[0], embeddings=found[1].name, differing=_differing(folder, *found))


def pair(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
    """Such an output matrix and the embeddings that are to be it, as headers tell them."""
    own = predicting.without(tensors, config)
    heads, embeddings = (_named(own, ends) for ends in ((HEAD,), EMBEDDINGS))
    if len(heads) != 1 or len(embeddings) != 1 or not {heads[0].dtype, embeddings[0].dtype} <= PLAIN or not tied(config):
        return None
    return heads[0], embeddings[0]


def unread(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """A sentence where there is one and its values are not at hand, so that nobody knows which of the two it is."""
    if (found := pair(config, tensors)) is not None:
        head, embeddings = found
        yield (
            f"{head.file}: {head.name} stands beside {embeddings.name}, which is to be the output matrix too. Whether it is a copy could not be "
            "seen, for the model has yet to be made. Run `sluice fix` on the folder that it is written to."
        )


def tied(config: Mapping[str, Any]) -> bool:
    """Whether config.json says so, or where it is silent, the class of its architecture."""
    nested = config.get("text_config")
    said = [part[KEY] for part in (config, nested) if isinstance(part, Mapping) and isinstance(part.get(KEY), bool)]
    return bool(said[0]) if said else unsaid(config) is True


def unsaid(config: Mapping[str, Any]) -> bool | None:
    """What transformers takes a model to be whose config.json is silent, by the class of its architecture; None where it knows none."""
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    return getattr(CONFIG_MAPPING[kind](), KEY, False) is True if isinstance(kind, str) and kind in CONFIG_MAPPING else None


def _named(tensors: Mapping[str, Tensor], ends: tuple[str, ...]) -> list[Tensor]:
    return [tensor for name, tensor in tensors.items() if name.endswith(ends) and len(tensor.shape) == 2 and not any(part in name for part in BESIDE)]


def _differing(folder: Path, one: Tensor, other: Tensor) -> int:
    """Rows in which two matrices differ, all where their shapes do; what stands in other types is the same where its values are."""
    if one.shape != other.shape:
        return max(one.shape[0], other.shape[0])
    from safetensors import safe_open

    with ExitStack() as opened:
        slices = [opened.enter_context(safe_open(folder / tensor.file, framework="pt")).get_slice(tensor.name) for tensor in (one, other)]
        parts = ([values[start : start + ROWS].double() for values in slices] for start in range(0, one.shape[0], ROWS))
        return sum(int((left != right).any(dim=1).sum()) for left, right in parts)
