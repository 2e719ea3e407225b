"""What a card tells of a release that is no fault, and good to know."""

from service.release.work import Work

REMARKS = (
    "template.remarks",
    "sanity.loops",
    "parity.known",
    "metadata.lacking",
    "long.known",
    "long.unseen",
    "imatrix.unreached",
    "imatrix.unused",
    "conversations.adapted",
    "conversations.skipped",
)
"""Measurements whose details are told."""


def remarks(work: Work) -> tuple[str, ...]:
    """What is known of the release's family and was found of itself that is no fault, but good to know."""
    measured, notes = work.measured, work.output("fix").result["notes"]
    found = (detail for name in REMARKS if name in measured and measured[name].inapplicable is None for detail in measured[name].details)
    return tuple(f"{' '.join(remark.split()).rstrip('.')}." for remark in (*notes, *found))
