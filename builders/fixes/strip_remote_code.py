"""Removes what makes a loader fetch or run code (auto_map, hub kernels, private settings), and paths of the uploader's machine."""

from collections.abc import Iterator
from typing import Any

from builders.fixes.edits import Edit, Files, Key
from config.rules import Family

LOADED = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
"""The files that transformers reads settings from. Vocabularies are not settings: their tokens may begin with an underscore."""

FORBIDDEN = frozenset(
    {
        "auto_map",
        "trust_remote_code",
        "code_revision",
        "custom_pipelines",
        # an attention or expert implementation may name a repo of compiled kernels, which transformers would fetch and load
        "attn_implementation",
        "attn_implementation_internal",
        "experts_implementation",
        "experts_implementation_internal",
        "kernel_config",
        "use_kernels",
        # paths, which a tokenizer would read
        "tokenizer_file",
        "vocab_file",
        "merges_file",
        "special_tokens_map_file",
    }
)
HARMLESS = frozenset({"__type", "__float__", "_sliding_window_pattern", "_remove_final_layer_norm", "_from_model_config"})
"""Marks of an AddedToken in older tokenizer files and of an infinity in newer configs, neither of which can be read without; parts of architectures; and what
transformers 5 writes into every generation_config.json."""
_ENOUGH = 40  # levels of nesting; real files have up to six


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Remove forbidden keys, and all that begin with an underscore, at any depth: transformers treats those as its own internal state."""
    return [Edit(file=file, key=key, remove=True) for file in LOADED if file in files for key in _forbidden(files[file], ())]


def _forbidden(value: Any, key: Key) -> Iterator[Key]:
    if isinstance(value, dict):
        for name, item in value.items():
            if name in FORBIDDEN or (name.startswith("_") and name not in HARMLESS) or len(key) >= _ENOUGH:
                yield (*key, name)
            else:
                yield from _forbidden(item, (*key, name))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _forbidden(item, (*key, position))
