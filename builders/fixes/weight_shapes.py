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
    count, stated, head = rows(tensors, config), config.get("vocab_size"), _rows(tensors, HEAD)
    if count is not None and head in (None, count) and _is_size(stated) and stated != count:  # some architectures embed more tokens than they predict
        yield "vocab_size", count, f"the embeddings have {count} rows, and {stated} were stated"
    query, key = _rows(tensors, QUERY), _rows(tensors, KEY)
    heads, width, size = (config.get(name) for name in ("num_attention_heads", "hidden_size", "head_dim"))
    groups = heads if config.get("num_key_value_heads") is None else config["num_key_value_heads"]
    if query is None or key is None or not (_is_size(heads) and _is_size(groups) and _is_size(width)):
        return
    held = query // heads
    if (query, key) == (held * heads, held * groups) and held != (width // heads if size is None else size):
        yield "head_dim", held, f"{heads} heads have {query} rows, and {groups} heads of keys have {key}"


def _rows(tensors: Mapping[str, Tensor], ending: str) -> int | None:
    """The rows of all projections of a kind; None where they are not all alike, not plain, or not there."""
    found = {tensor.shape[0] if len(tensor.shape) == 2 and tensor.dtype in PLAIN else None for name, tensor in tensors.items() if name.endswith(ending)}
    return found.pop() if len(found) == 1 else None


def _is_size(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
