"""Runs the findings, each from a fresh empty folder that is its home too, and prints which hold: `python -m bench.findings [PART …]`, or `make findings`.

They fetch from the package index and the npm registry that variables or the machine's own configuration name (PIP_INDEX_URL, npm_config_registry), for
a home's is not read. Ends with exit code 1 where one fails.
"""

import argparse
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench import program

FINDINGS = Path(__file__).parents[1] / "findings"
LONGEST = 1800.0  # seconds that one may take
SHOWN = 10  # lines of what one printed that failed


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a finding ended."""

    holds: bool
    seconds: float
    said: tuple[str, ...]  # its last lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.findings", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="only findings whose names hold one of these")
    given = parser.parse_args()
    found = [path for path in sorted(FINDINGS.glob("*.sh")) if not given.parts or any(part in path.stem for part in given.parts)]
    if not found:
        parser.error(f"no finding's name holds {' or '.join(given.parts)}")
    raise SystemExit(0 if tell(program.console(), found) else 1)


def tell(console: Console, findings: Sequence[Path]) -> bool:
    """Run them one after the other and print a line for each; whether all hold."""
    width = max(len(path.stem) for path in findings)
    whole = True
    for path in findings:
        ran = run(path)
        whole &= ran.holds
        console.print(f"{path.stem:{width}}  {'holds' if ran.holds else 'fails'}  {ran.seconds:5.0f} s", soft_wrap=True, markup=False)
        for line in () if ran.holds else ran.said:
            console.print(f"    {line}", soft_wrap=True, markup=False)
    return whole


def run(path: Path, *, longest: float = LONGEST) -> Ran:
    """Run a finding with nothing of the caller's but the search path and what configures registries; nothing that it starts or writes is left."""
    with tempfile.TemporaryDirectory(prefix="sluice-finding-") as empty:
        began = time.monotonic()
        with (Path(empty) / "log").open("w+b") as log:
            for name in ("home", "tmp", "work"):
                (Path(empty) / name).mkdir()
            started = subprocess.Popen(
                [path],
                cwd=Path(empty) / "work",
                env=_environment(Path(empty)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                holds, late = started.wait(timeout=longest) == 0, ""
            except subprocess.TimeoutExpired:
                holds, late = False, f"It did not end in {longest:.0f} seconds."
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(started.pid, signal.SIGKILL)
                started.wait()
            log.seek(0)
            said = tuple(log.read().decode("utf-8", errors="replace").splitlines()[-SHOWN:])
        return Ran(holds=holds, seconds=time.monotonic() - began, said=(*said, late) if late else said)


def _environment(empty: Path) -> dict[str, str]:
    """The caller's variables without settings of ours, of Python's and of the Hub's client, and without his folders."""
    left_out = ("SLUICE_", "HF_", "XDG_", "PYTHON", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)} | {"HOME": str(empty / "home"), "TMPDIR": str(empty / "tmp")}


if __name__ == "__main__":
    main()
