"""The costs of what a model that reads images has besides: the projectors (mmproj) and the comparison of what they make of images."""

import math

from builders import modalities
from service.machine.speed import Speed
from service.release.costs.engines import TORCH_MEMORY
from service.release.costs.prepare import engines
from service.release.graph import Needs
from service.release.prospect import Prospect

SEEN, PATCHES = 4, 1024  # images of `qa.mmproj`, and the patches of one: 32 × 32 of 14 pixels, and few towers take many more


def projectors(prospect: Prospect, speed: Speed) -> Needs:
    """Convert what reads images, once for each type; no time of a model that reads none."""
    size = _seeing(prospect)
    if not size:
        return Needs()
    at, types = engines(prospect, speed), prospect.recipe.variants.mmproj
    seconds = len(types) * (at.start + at.imports + 2 * size / speed.disk)
    return Needs(seconds=seconds, memory=2 * TORCH_MEMORY + 2 * size + 2 * at.model.table, disk=len(types) * size)


def compared(prospect: Prospect, speed: Speed) -> Needs:
    """Show a few images to vision tower and projectors, beside the embeddings and a layer of the language model in float32."""
    size = _seeing(prospect)
    if not size:
        return Needs()
    at, sides = engines(prospect, speed), 1 + len(prospect.recipe.variants.mmproj)
    passes = sides * SEEN * PATCHES * size / speed.narrow
    return Needs(seconds=at.torch + at.load + passes, memory=TORCH_MEMORY + 3 * size + 4 * at.model.table)


def _seeing(prospect: Prospect) -> int:
    """Bytes in 16 bits of what reads images."""
    return 2 * sum(math.prod(shape) for name, shape in prospect.shapes.items() if modalities.sees(prospect.config, name))
