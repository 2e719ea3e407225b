"""Sets the sizes in config.json that the weights contradict: `vocab_size` by the rows of the embeddings, `head_dim` by those of the projections."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from builders import predicting
from builders.fixes.edits import Edit, Files, Key, dict_at
from builders.names import EMBEDDINGS, HEAD
from builders.weights import PLAIN, Tensor
from config.rules import Family

FILE = "config.json"
QUERY, KEY = ".self_attn.q_proj.weight", ".self_attn.k_proj.weight"
FUSED = (".self_attn.qkv_proj.weight", ".query_key_value.weight")  # rows of queries, keys and values in one matrix
OUTPUT = (".self_attn.o_proj.weight", "attention.dense.weight")  # beside such: as many columns as there are rows of queries


def repair(files: Files, family: Family | None, *, tensors: Mapping[str, Tensor]) -> list[Edit]:
    """Where the config has a `text_config`, that is what describes the weights. A config that agrees, or sizes that lead to no whole number, stay."""
    section: Key = ("text_config",) if dict_at(files, FILE, ("text_config",)) else ()
    config = dict_at(files, FILE, section) if section else files[FILE]
    own = predicting.without(tensors, files[FILE])
    return [Edit(file=FILE, key=(*section, name), after=size, because=why) for name, size, why in _contradicted(config, own)]


def rows(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> int | None:
    """How many tokens have a row in the embeddings; None when these weights have none that can be told by its name. `config` is config.json."""
    own = predicting.without(tensors, config)
    found = {tensor.shape[0] for name, tensor in own.items() if name.endswith(EMBEDDINGS) and len(tensor.shape) == 2 and "per_layer" not in name}
    return found.pop() if len(found) == 1 else None


def _contradicted(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, int, str]]:
    count, stated, head = rows(tensors, config), config.get("vocab_size"), _size(tensors, HEAD)
    if count is not None and head in (None, count) and _is_size(stated) and stated != count:  # some architectures embed more tokens than they predict
        yield "vocab_size", count, f"the embeddings have {count} rows, and {stated} were stated"
    heads, width, size = (config.get(name) for name in ("num_attention_heads", "hidden_size", "head_dim"))
    groups = heads if config.get("num_key_value_heads") is None else config["num_key_value_heads"]
    if not (_is_size(heads) and _is_size(groups) and _is_size(width)):
        return
    held = _held(tensors, heads, groups)
    if held is not None and held[0] != (width // heads if size is None else size):
        yield "head_dim", *held


def _held(tensors: Mapping[str, Tensor], heads: int, groups: int) -> tuple[int, str] | None:
    """The width of a head, and what shows it; None where two projections do not agree on it, as where groups are counted otherwise (Falcon)."""
    query, key = _size(tensors, QUERY), _size(tensors, KEY)
    if query is not None and key is not None:
        held = query // heads
        return (held, f"{heads} heads have {query} rows, and {groups} heads of keys have {key}") if (query, key) == (held * heads, held * groups) else None
    fused, back = _size(tensors, FUSED), _size(tensors, OUTPUT, side=1)
    if fused is None or back is None:
        return None
    held, parts = back // heads, heads + 2 * groups
    return (held, f"{heads} heads and {groups} of keys and of values have {fused} rows") if (back, fused) == (held * heads, held * parts) else None


def _size(tensors: Mapping[str, Tensor], ending: str | tuple[str, ...], side: int = 0) -> int | None:
    """The rows, or columns, of all projections of a kind; None where they are not all alike, not plain, or not there."""
    found = {tensor.shape[side] if len(tensor.shape) == 2 and tensor.dtype in PLAIN else None for name, tensor in tensors.items() if name.endswith(ending)}
    return found.pop() if len(found) == 1 else None


def _is_size(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
