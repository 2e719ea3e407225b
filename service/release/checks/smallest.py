"""The least bytes that a planned variant of a model can have, told by the shapes of its tensors: no mix undercuts it, so that what it refuses is impossible.

Only matrices are counted that the converter surely takes over with all their values, and of a matrix whose name in the GGUF is not sure the floors of the
rules are left out. Vectors, the header with the vocabulary, and everything in layers beyond the model's own come on top.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.plan.capacity import IMATRIX_BYTES, left_for
from builders.sensitivity.table import Tensor
from config.plans import Budget, Nf4Budget, Rules
from engines import ggml, gguf_tensors, nf4

_LAYER = re.compile(r"(?:model\.)?(?:language_model\.)?(?:model\.)?layers\.(?P<layer>\d+)\.(?P<part>.+)")
_EMBEDDING = re.compile(r"(?:model\.)?(?:language_model\.)?(?:model\.)?embed_tokens\.weight")
_OUTPUT = re.compile(r"(?:language_model\.)?lm_head\.weight")
_NUMBER = re.compile(r"\.experts\.\d+\.")
_PARTS: Mapping[str, str | None] = {
    "self_attn.q_proj.weight": "attn_q", "self_attn.k_proj.weight": "attn_k", "self_attn.v_proj.weight": "attn_v", "self_attn.o_proj.weight": "attn_output",
    "self_attn.qkv_proj.weight": None, "mlp.gate_up_proj.weight": None,  # some converters split them
    **{f"mlp.{part}_proj.weight": f"ffn_{part}" for part in ("gate", "up", "down")},
    **{f"mlp.experts.{part}_proj.weight": f"ffn_{part}_exps" for part in ("gate", "up", "down")},
    **{f"mlp.{shared}.{part}_proj.weight": f"ffn_{part}_shexp" for shared in ("shared_expert", "shared_experts") for part in ("gate", "up", "down")},
    **{f"block_sparse_moe.experts.{part}.weight": f"ffn_{name}_exps" for part, name in (("w1", "gate"), ("w2", "down"), ("w3", "up"))},
    # of all experts; which of the last two dimensions becomes the rows is up to the architecture
    **{f"{block}.experts.{part}_proj": None for block in ("mlp", "feed_forward") for part in ("gate_up", "down")},
}  # fmt: skip
"""What matrices of a layer are called in the GGUF, by their names in the safetensors; None where that depends on the architecture."""
_PLANNED = re.compile(r"blk\.\d+\.(?:attn_(?:q|k|v|output)|ffn_(?:gate|up|down)(?:_exps|_shexp)?)\.weight|token_embd\.weight|output\.weight")


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """One matrix, or the experts of one kind in one layer."""

    name: str | None  # in the GGUF, where that is sure
    values: int
    columns: tuple[int, ...]  # values that are stored one after another; several where it is not sure which dimension that is
    linear: bool = True  # a linear layer; False: embedding or output, which stay in 16 bits where linear layers are in NF4


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is known of a model before it is converted."""

    matrices: tuple[Matrix, ...]
    parameters: int  # at most
    metadata: Mapping[str, Any] | None  # by GGUF's names what the size of its cache depends on; None when that is not sure


@dataclass(frozen=True, kw_only=True)
class Least:
    """A size that no file goes below."""

    bytes: int
    type: str  # the one that most of these bytes are in


def of_safetensors(shapes: Mapping[str, Sequence[int]], config: Mapping[str, Any]) -> Model:
    """The model of these tensors, by name as in the safetensors, and this config.json."""
    text = config.get("text_config", config)
    text = text if isinstance(text, dict) else {}
    # of quantized weights the shapes are not those of the values
    matrices = () if {**config, **text}.get("quantization_config") else tuple(_matrices(shapes, {**config, **text}))
    return Model(matrices=matrices, parameters=sum(math.prod(shape) for shape in shapes.values()), metadata=_metadata(text))


def of_gguf(path: Path) -> Model:
    """The model in a 16-bit GGUF file. Raises OSError, ValueError, KeyError or IndexError when it is none."""
    reader = gguf_tensors.Reader(path)
    tensors = [(tensor.name, int(tensor.n_elements), int(tensor.shape[0])) for tensor in reader.tensors]
    return Model(
        matrices=tuple(Matrix(name=name, values=values, columns=(columns,)) for name, values, columns in tensors if _PLANNED.fullmatch(name)),
        parameters=sum(values for _, values, _ in tensors),
        metadata={name: field.contents() for name, field in reader.fields.items() if not name.startswith("tokenizer.")},
    )


def least(model: Model, rules: Rules) -> Least:
    """Of a GGUF file: each matrix in the smallest type that the rules, those of the profile among them, allow and its rows fit."""
    used: Counter[str] = Counter()
    for matrix in model.matrices:
        size, type = min(_sizes(matrix, rules))
        used[type] += size
    return Least(bytes=used.total(), type=used.most_common(1)[0][0] if used else "")


def least_nf4(model: Model) -> Least:
    """Of the safetensors of an NF4 variant: all linear layers in 4 bits with a scale of 8 bits for each block, the rest of the matrices in 16 bits."""
    size = sum(matrix.values // 2 + matrix.values // nf4.BLOCK if matrix.linear else 2 * matrix.values for matrix in model.matrices)
    return Least(bytes=size, type="NF4")


def most(budget: Budget, model: Model) -> int | None:
    """Bytes that matrices may have, at most, within a budget; None where that is not known yet. Raises ConfigurationError when the cache alone is too large."""
    if budget.bytes is not None:
        return budget.bytes - IMATRIX_BYTES
    if budget.bpw is not None:
        return int(budget.bpw * model.parameters / 8)
    return None if budget.fit is None else left_for(budget.fit, model.metadata)


def most_nf4(budget: Nf4Budget, model: Model) -> int | None:
    """Likewise of NF4; None for a budget on top of plain NF4, which is always enough for that."""
    if budget.bytes is not None:
        return budget.bytes
    return None if budget.bpw is None else int(budget.bpw * model.parameters / 8)


def _sizes(matrix: Matrix, rules: Rules) -> Iterator[tuple[int, str]]:
    """The bytes of a matrix in each type that it may have."""
    for columns in matrix.columns:
        tensor = Tensor(name=matrix.name or "", rows=matrix.values // columns, columns=columns)
        fitting = [type for type in rules.types if ggml.fits(type, columns)] or ["BF16"]
        floor = max((_bits(type) for pattern, type in rules.floors.items() if matrix.name and re.search(pattern, matrix.name)), default=0.0)
        # rules that leave no type are told by the plan, which knows better what a tensor can have
        yield from ((tensor.bytes(type), type) for type in [type for type in fitting if _bits(type) >= floor] or fitting)


def _bits(type: str) -> float:
    return 8 * ggml.row_bytes(type, 256) / 256  # every type's blocks divide 256


def _matrices(shapes: Mapping[str, Sequence[int]], config: Mapping[str, Any]) -> Iterator[Matrix]:
    layers = config.get("num_hidden_layers")
    count = layers if isinstance(layers, int) else 0  # layers beyond them predict further tokens, and may be left out
    for name, shape in shapes.items():
        if len(shape) not in (2, 3) or not all(shape):
            continue
        values = math.prod(shape)
        if (found := _LAYER.fullmatch(name)) and int(found["layer"]) < count and (part := _NUMBER.sub(".experts.", found["part"])) in _PARTS:
            short = _PARTS[part] if len(shape) == 2 else None
            columns = (shape[-1],) if len(shape) == 2 else (shape[-1], shape[-2])
            yield Matrix(name=f"blk.{found['layer']}.{short}.weight" if short else None, values=values, columns=columns)
        # Gemma's converter leaves the rows out that no token has
        elif _EMBEDDING.fullmatch(name) and not str(config.get("model_type")).startswith("gemma"):
            yield Matrix(name="token_embd.weight", values=values, columns=(shape[-1],), linear=False)
        elif _OUTPUT.fullmatch(name) and config.get("tie_word_embeddings") is False:
            yield Matrix(name="output.weight", values=values, columns=(shape[-1],), linear=False)


def _metadata(text: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a GGUF would say of the cache; None of a model that may keep less than all tokens in all layers."""
    names = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size", "head_dim")
    layers, heads, groups, width, size = (text.get(name) for name in names)
    kinds = text.get("layer_types") or ()
    partial = any(text.get(name) for name in ("sliding_window", "num_kv_shared_layers", "kv_lora_rank")) or any(kind != "full_attention" for kind in kinds)
    if partial or not all(isinstance(value, int) and value > 0 for value in (layers, heads, groups, width)):
        return None
    found = {"block_count": layers, "attention.head_count": heads, "attention.head_count_kv": groups, "embedding_length": width}
    found |= {"attention.key_length": size, "attention.value_length": size} if isinstance(size, int) else {}
    return {"general.architecture": "model", **{f"model.{name}": value for name, value in found.items()}}
