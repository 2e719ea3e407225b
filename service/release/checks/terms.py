"""Check: the release may be published again, as far as its page says."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from config.errors import UpstreamError
from service.release.checks.problem import Remark
from service.release.graph import Check

if TYPE_CHECKING:
    from builders.snapshot import Upstream
    from service.release.prospect import Prospect


def refusal(upstream: "Upstream") -> str | None:
    """Why the release may not be published again; None when it may."""
    # its owner chose who may have it; publishing it to everyone is a person's decision
    if upstream.gated:
        return f"{upstream.release.repo} is gated, so Sluice does not publish it again. Ask its owner, or take it off the watch list."
    if upstream.base is not None and upstream.base.gated:
        return (
            f"{upstream.base.release.repo}, the base model of {upstream.release.repo}, is gated, so Sluice does not publish what is made of it. Ask its "
            "owner, or take the adapter off the watch list."
        )
    return None


def unfit(prospect: "Prospect") -> Iterator[str]:
    """What is worth knowing before the release is published. Raises UpstreamError when it may not be."""
    upstream = prospect.upstream
    if upstream.license is None:
        ask = "Write `license:` at the head of its README.md" if upstream.release.local else "Ask its owner under which terms it may be published again"
        yield Remark(f"{upstream.release.repo} states no licence. {ask}.")
    if (said := refusal(upstream)) is not None:
        raise UpstreamError(said)


CHECKS = (Check(name="terms", stage="upstream", look=unfit),)
