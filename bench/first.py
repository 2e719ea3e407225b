"""A first evening: two real models as folders, released into folders by the default recipe with no data given: `python -m bench.first`.

SmolLM2-135M-Instruct and Gemma 3 270M (a base model) come from packages of the Python index. Drives `sluice release FOLDER --to OUT --quick` from outside;
prints how long it said it would take, how long it took, and what came of each variant. Whole, that is about an hour for each on two cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.models.gemma import gemma3_270m
from bench.models.real import smollm2
from config.errors import SluiceError

SLUICE = Path(sys.executable).parent / "sluice"
MODELS: Mapping[str, Callable[[Path], None]] = {"SmolLM2-135M-Instruct": smollm2, "gemma-3-270m": gemma3_270m}
WELL = (0, 3)  # exit codes of a run that came to its end: 3 says that a variant was blocked


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.first", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--variants", help="only these, e.g. Q8_0,Q4_K_M,UD-Q4_K_XL,bnb-4bit; all of the default recipe when absent")
    given = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    for name in given.models:
        with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
            try:
                release(console, Path(folder), name, given.variants)
            except SluiceError as error:
                raise SystemExit(str(error)) from error


def release(console: Console, folder: Path, name: str, variants: str | None) -> None:
    """Make the model's folder, release it, and print what came of it. Raises ToolError when the packages cannot be fetched."""
    MODELS[name](folder / "model")
    command = ["release", str(folder / "model"), "--name", name, "--to", str(folder / "out"), "--quick", "--json"]
    command += ["--variants", variants] if variants else []
    before = _sluice(folder, *command, "--dry-run")
    started = time.perf_counter()
    found = _sluice(folder, *command)
    took = time.perf_counter() - started
    table = Table(title=name, title_justify="left")
    for heading in ("variant", "MB", "mean KLD", "same top", "verdict", "waived"):
        table.add_column(heading, justify="left" if heading in {"variant", "verdict"} else "right")
    for row in found["variants"]:
        kld, top = row["kld"].get("mean"), row.get("same_top")
        figures = (_told(row["bytes"], "{:.1f}", 1e-6), _told(kld, "{:.5f}"), _told(top, "{:.1%}"))
        table.add_row(row["tag"], *figures, row["verdict"] or "—", str(len(row.get("waivers") or ())))
    console.print(table)
    repos = sorted(path.name for path in (folder / "out").iterdir()) if (folder / "out").is_dir() else []
    console.print(f"{name}: {took / 60:.1f} min, said beforehand {before['seconds'] / 60:.1f} min; left: {', '.join(repos) or 'nothing'}")


def _told(value: float | None, form: str, scale: float = 1.0) -> str:
    return "—" if value is None else form.format(value * scale)


def _sluice(folder: Path, *arguments: str) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "HF_"))}
    environment |= {name: os.environ[name] for name in ("SLUICE_CACHE", "SLUICE_LLAMA_CPP", "SLUICE_THREADS") if name in os.environ}
    environment["SLUICE_HOME"] = str(folder / "home")
    done = subprocess.run([SLUICE, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in WELL:
        raise SystemExit(f"`sluice {' '.join(arguments)}` ended with {done.returncode}; what it said stands above.")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
