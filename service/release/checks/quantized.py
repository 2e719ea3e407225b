"""Check: a release can begin with the model, as far as config.json and headers tell: it is neither packed into few bits nor a classifier or omni model."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from builders import beginning, mxfp4
from config.errors import UpstreamError
from service.release.checks.problem import Remark
from service.release.graph import Check

if TYPE_CHECKING:
    from service.release.prospect import Prospect


def look(prospect: "Prospect") -> Iterator[str]:
    """That weights of 8 bits or fewer become larger. Raises UpstreamError when the model is of no use."""
    repo = prospect.upstream.release.repo
    if (refusal := beginning.refusal(prospect.config, prospect.stored)) is not None:
        raise UpstreamError(f"{repo} {refusal}")
    if mxfp4.TYPE in prospect.recipe.variants.gguf and prospect.compact != mxfp4.TYPE:
        yield f"{repo} holds no weights in {mxfp4.TYPE}, so there is no variant {mxfp4.TYPE} of it. Take it out of the recipe's variants."
    if prospect.compact:
        yield Remark(
            f"{repo} holds weights in {prospect.compact}. They are multiplied out to bfloat16 once ({prospect.weights / 1e9:.2f} GB), and that is released."
        )


CHECKS = (Check(name="weights", stage="fix", look=look),)
