"""What somebody may have meant who wrote a name that is not there."""

from collections.abc import Iterable
from difflib import get_close_matches


def meant(written: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known name that is nearest to the written one, letters taken alike in either case; None when none is near."""
    folded: dict[str, str] = {}
    for name in known:
        folded.setdefault(name.casefold(), name)
    found = get_close_matches(written.casefold(), folded, n=1, cutoff=cutoff)
    return folded[found[0]] if found else None


def hint(written: str, known: Iterable[str]) -> str:
    """The same as a sentence to follow another one; "" when none is near."""
    near = meant(written, known)
    return "" if near is None else f" Did you mean {near}?"
