"""What is said when a library is missing or broken, by nothing but Python's own: the command itself may need that library."""

import sys
from collections.abc import Sequence

OURS = {"bench", "builders", "config", "engines", "hub", "publishers", "qa", "service"}


def tell(error: ImportError, arguments: Sequence[str]) -> int:
    """Say what is missing, or do what `sluice doctor` can still do; the exit code. Raises the error when it is a fault of ours."""
    if (error.name or "").partition(".")[0] in OURS:
        raise error
    if "doctor" in arguments:
        return examine()
    sys.stderr.write(f"error: {in_words(error)}\n")
    return 1


def in_words(error: ImportError) -> str:
    """What is wrong, and what to do."""
    return f"A library that Sluice needs cannot be loaded: {error}. Run `make setup`, which installs all of them; `sluice doctor` shows what else is missing."


def examine() -> int:
    """Print what Python, its libraries and the compiler are like; 1 as the exit code, for something is missing."""
    from service.machine import basics

    for finding in (*basics.python(), *basics.compiler()):
        mark = {True: "ok", False: "MISSING", None: "-"}[finding.ok]
        sys.stdout.write(f"{mark:8}{finding.name}: {finding.value}\n" + (f"{'':8}{finding.advice}\n" if finding.advice else ""))
    sys.stdout.write("More can be told when these libraries are there: run `sluice doctor` again then.\n")
    return 1
