"""What a piece of work reported, for tests."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from config.progress import Progress, heard_by


@contextmanager
def hearing() -> Iterator[list[Progress]]:
    found: list[Progress] = []
    with heard_by(found.append):
        yield found


def phases(found: Iterable[Progress]) -> list[list[Progress]]:
    """The reports, cut wherever the unit or the total changes or less is done than before."""
    cut: list[list[Progress]] = []
    for item in found:
        last = cut[-1][-1] if cut else None
        if last is None or (last.unit, last.total) != (item.unit, item.total) or item.done < last.done:
            cut.append([])
        cut[-1].append(item)
    return cut


def whole(found: Iterable[Progress], unit: str) -> list[int]:
    """The totals of the phases in this unit that were told from 0 to the end."""
    return [phase[-1].done for phase in phases(found) if phase[0].unit == unit and phase[0].done == 0 and phase[-1].done == phase[-1].total]
