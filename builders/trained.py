"""Recognises models that were trained to be quantized (quantization-aware training, QAT), and for which of llama.cpp's types.

Their weights are stored in 16 bits like any other's, and neither config.json nor the tensors tell: only their makers' words do, which are the repo's name and
its card's tags and base models. The card's text is not asked: it speaks of other models, and of what was not done, in the same words.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from builders.snapshot import Upstream
from config.plans import GgufType

_NAMED = re.compile(r"(?:^|[-_./ ])qat(?:$|[-_./ ])|quanti[sz]ation[- ]aware", re.IGNORECASE)
_TYPE = re.compile(rf"(?<![A-Za-z0-9])({'|'.join(sorted(get_args(GgufType), key=len, reverse=True))})(?![A-Za-z0-9])", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a model was trained for."""

    type: str | None  # one of llama.cpp's; None where only the training is told
    because: str  # what says so: "its name", "the tags of its card"


def trained_for(upstream: Upstream) -> Trained | None:
    """What the upstream's own words say that it was trained for; None where they say nothing of the kind."""
    found = list(_found(upstream))
    if not found:
        return None
    types = [type for type, _ in found if type is not None]
    return Trained(type=types[0].upper() if types else None, because=" and ".join(place for _, place in found))


def _found(upstream: Upstream) -> Iterator[tuple[str | None, str]]:
    """Each place that speaks of it, with the type that it names."""
    for place, words in (("its name", [upstream.release.name]), ("the tags of its card", upstream.tags), ("the name of its base model", upstream.base_models)):
        if any(map(_NAMED.search, words)):
            yield next((type[1] for word in words if (type := _TYPE.search(word))), None), place
