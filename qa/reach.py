"""How long a text must be for a model to compute all that it can: after how many tokens it attends, or counts positions, in another way."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engines import kv_cache, text_part

LONGEST = 9216  # tokens of the text: past 8192, where the farthest edges lie that are common and not out of all proportion
SHORTEST = 2048  # of the text where there is no edge, or none within reach
SCORED = 384  # tokens at the text's end that are looked at
PLACED = 512  # tokens of the text that is read as if it stood far into a longer one
MOST_MEMORY = 6 * 2**30  # bytes of llama.cpp's cache that it may take; 32768 tokens of a model of 8B take 4 GiB
SLIDING = "sliding_attention"  # what config.json calls a layer that attends to the last tokens only

Config = Mapping[str, Any]

_POSITIONS = frozenset({"original_max_position_embeddings", "rope.scaling.original_context_length", "floor_scale"})


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A number of tokens after which a model computes in another way."""

    tokens: int
    key: str  # that says so, of config.json or of the GGUF's header

    @property
    def positions(self) -> bool:
        """Whether a token's position alone decides: however few tokens there are before one, it is computed as it is far into a text."""
        return self.key in _POSITIONS


def window(config: Config) -> int | None:
    """To how many of the last tokens some layers attend; None where all attend to everything. The file is a stranger's."""
    text = text_part.of(config)
    size, kinds = text.get("sliding_window"), text.get("layer_types")
    slides = text.get("use_sliding_window") is not False and (not isinstance(kinds, list) or SLIDING in kinds)
    return size if slides and _number(size) else None


def edges(config: Config) -> list[Edge]:
    """What config.json says, or what transformers makes of it; only what lies within the model's context."""
    text = text_part.of(config)
    found: dict[str, Any] = {"sliding_window": window(config)}
    found |= {key: text.get(key) for key in ("attention_chunk_size", "floor_scale")}  # Llama 4: chunks, and the temperature of attention
    name = "original_max_position_embeddings"
    scalings = [text, *(own for key in ("rope_parameters", "rope_scaling") if isinstance(own := text.get(key), dict))]
    scalings += [own for scaling in scalings[1:] for own in scaling.values() if isinstance(own, dict)]  # one for each kind of attention
    found[name] = next((scaling[name] for scaling in scalings if _number(scaling.get(name))), None)
    most = text.get("max_position_embeddings")
    return [Edge(tokens=int(value), key=key) for key, value in found.items() if _number(value) and _number(most) and value < most]


def edges_of_header(header: Mapping[str, str]) -> Iterator[Edge]:
    """What a GGUF's header says, which llama.cpp goes by."""
    architecture = header.get("general.architecture", "")
    most = int(header.get(f"{architecture}.context_length", 0))
    for key in ("attention.sliding_window", "rope.scaling.original_context_length"):
        value = header.get(f"{architecture}.{key}", "")
        if value.isdigit() and 0 < int(value) < most:
            yield Edge(tokens=int(value), key=key)


def length(edges: Sequence[Edge], context: int) -> int:
    """Tokens of the text: twice the farthest edge that can be passed, as far as LONGEST and the model's context allow."""
    most = min(LONGEST, context)
    return min(most, max([SHORTEST, *(2 * edge.tokens for edge in edges if edge.tokens + SCORED <= most)]))


def far(edges: Sequence[Edge], config: Config, size: int) -> int | None:
    """Where a text of PLACED tokens starts that is past every edge of positions that one of `size` tokens does not reach, as far as the model's context and
    MOST_MEMORY allow; None where there is no such edge.

    It starts at a multiple of its length, so that it does not cross the border of a chunk of attention.
    """
    context = kv_cache.context_length(config) or 0
    starts = [-(-edge.tokens // PLACED) * PLACED for edge in edges if edge.positions and edge.tokens + SCORED > size]
    return max((start for start in starts if start + PLACED <= context and _kept(config, start + PLACED) <= MOST_MEMORY), default=None)


def _kept(config: Config, tokens: int) -> float:
    """Bytes of llama.cpp's cache; without end where that is not known."""
    found = kv_cache.cache_bytes(config, tokens)
    return math.inf if found is None else found


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**31
