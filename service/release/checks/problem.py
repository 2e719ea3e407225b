"""What a check found, with the stage that would fail by it."""

from dataclasses import dataclass


class Remark(str):
    """A sentence of a check that is worth reading before the run and that nothing is refused for."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong, found before anything was done."""

    stage: str  # the first one that has the check
    check: str
    sentence: str  # what is wrong, where, what to do
    fatal: bool = True  # False: a remark
