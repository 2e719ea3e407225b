"""Check: of a model that was trained to be quantized, the type that it was trained for is among the variants."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from builders.trained import trained_for
from service.release.checks.problem import Remark
from service.release.graph import Check

if TYPE_CHECKING:
    from service.release.prospect import Prospect


def missing(prospect: "Prospect") -> Iterator[str]:
    """That it is not, as far as name and head of the card tell."""
    found, repo = trained_for(prospect.upstream), prospect.upstream.release.repo
    tags = {variant.tag for variant in prospect.recipe.variants.listed()}
    if found is None or prospect.recipe.variants.qat is not None or found.type in tags:
        return
    wanted = found.type or "its type"
    missed = f", and the recipe builds no {found.type}" if found.type else ""
    yield Remark(
        f"{repo} was trained to be quantized ({found.because}){missed}: let the recipe say `qat: {wanted}` under `variants`, which is then published as the "
        "baseline and compared with the planned mixes."
    )


CHECKS = (Check(name="training", stage="upstream", look=missing),)
