"""What a check found, with the stage that would fail by it."""

from dataclasses import dataclass

from config.errors import ConfigurationError, SluiceError


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
    raised: type[SluiceError] = ConfigurationError  # what to refuse the run with, which decides exit code and HTTP status
