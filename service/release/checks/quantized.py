"""Check: the weights are ones that a release can begin with, as far as their headers tell: neither packed into few bits nor those of a classifier."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from builders import packed
from config.errors import UpstreamError
from service.release.checks.problem import Remark
from service.release.graph import Check

if TYPE_CHECKING:
    from service.release.prospect import Prospect


def look(prospect: "Prospect") -> Iterator[str]:
    """That weights of 8 bits become larger. Raises UpstreamError when the weights are of no use."""
    repo = prospect.upstream.release.repo
    if (refusal := packed.refusal(prospect.config, prospect.stored)) is not None:
        raise UpstreamError(f"{repo} {refusal}")
    if prospect.eight:
        yield Remark(f"{repo} holds weights in 8 bits. They are multiplied out to bfloat16 once ({prospect.weights / 1e9:.2f} GB), and that is released.")


CHECKS = (Check(name="weights", stage="fix", look=look),)
