"""Drives the program from outside, as a person would."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

SLUICE = Path(sys.executable).parent / "sluice"
KEPT = ("SLUICE_CACHE", "SLUICE_LLAMA_CPP", "SLUICE_THREADS")  # of the caller's own settings: what says nothing of a home or a Hub
WELL = (0, 3)  # exit codes of a run that came to its end: 3 says that a variant was blocked


def console() -> Console:
    """Of the terminal's width, or of 120 columns where the output goes elsewhere."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def environment(**settings: str) -> dict[str, str]:
    """The caller's environment with these variables, and without settings of the caller's own."""
    return {name: value for name, value in os.environ.items() if name in KEPT or not name.startswith(("SLUICE_", "HF_"))} | settings


def sluice(*arguments: str | Path, **settings: str) -> dict[str, Any]:
    """What a command with `--json` says under these settings, which are given in its environment, tokens too. Exits when it does not come to its end."""
    done = subprocess.run([SLUICE, *arguments], env=environment(**settings), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in WELL:
        raise SystemExit(f"`sluice {' '.join(map(str, arguments))}` ended with {done.returncode}; what it said stands above.")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
