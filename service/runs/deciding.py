"""A person's decision, which stands on record with name and reason."""

from dataclasses import dataclass, field
from typing import Any

from config.errors import SluiceError


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Who decides something, why, and by which way that came."""

    by: str
    comment: str
    source: str = "command"
    details: dict[str, Any] = field(default_factory=dict)  # for the audit trail

    def said(self, what: str, refused: type[SluiceError]) -> tuple[str, str]:
        """Name and comment, each on one line; `what` is decided, as a sentence begins. Raises `refused` when one is missing."""
        by, comment = " ".join(self.by.split()), " ".join(self.comment.split())
        if not by or not comment:
            raise refused(f"{what} needs a name and a comment: say who decides this, and why.")
        return by, comment
