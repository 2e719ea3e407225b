"""Which GGUF variants are measured beside one pass of the 16-bit model: neighbours in the recipe, as many as fit into memory."""

from collections.abc import Iterator, Sequence

import psutil

from config.settings import Settings
from service.execution.kept import Output
from service.release.kinds import LLAMA_CPP, kind_of
from service.release.products import Made, weights

WORKING_BYTES = 512 * 2**20  # of one open model on top of its weights: logits of a batch (128 × 256k floats), context and compute buffers
MOST = 16  # variants in a group: what a killed stage has to do again
BESIDE = 4  # variants in a group where several groups are measured at once, on several machines


def groups(made: Sequence[Made], base: Output, memory: int, *, most: int = MOST) -> Iterator[list[Made]]:
    """The variants that llama.cpp runs, in order, in groups whose models, the 16-bit one included, need at most `memory` bytes; one to `most` variants each."""
    group: list[Made] = []
    free = memory - _needed(base)
    for item in made:
        if kind_of(item.variant).engine is not LLAMA_CPP:
            continue
        if group and (len(group) == most or sum(_needed(other.output) for other in [*group, item]) > free):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def memory_for_models(settings: Settings) -> int:
    """Bytes that a group may use: what a stage is allowed, else half of the machine's memory.

    Not what is free right now: groups would then change from one start to the next, and stages that are done would not be found again.
    """
    return int(settings.memory_gib * 2**30) if settings.memory_gib else int(psutil.virtual_memory().total // 2)


def _needed(output: Output) -> int:
    return sum(file.bytes for file in weights(output)) + WORKING_BYTES
