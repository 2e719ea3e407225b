"""What is read before the first file, importance matrix, sensitivities and Hessians, against an earlier build: `python -m bench.passes --against REVISION`.

Checks that commit out into a folder of its own, and lets both builds read the same calibration text with the same model, one after the other, each stage in a
process of its own. Prints wall time, processor time and peak memory, and the ratios. The machine should do nothing else. On two cores the bundled model takes
some minutes, SmolLM2-135M, which comes from a package of the Python index, an hour or more with builds before November 2026.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.table import Table

from bench import program
from bench.models.fetched import MODELS
from bench.webhooks import checked_out
from builders import convert, fixes
from config.errors import SluiceError

ROOT = Path(__file__).parents[1]
CALL = ROOT / "bench" / "programs" / "call.py"
BUNDLED, NOW = "bundled", "now"
TEXT = {"chat": [ROOT / "demo" / "data" / "calibration.jsonl"], "plain": [ROOT / "demo" / "data" / "calibration_questions.txt"]}
GOALS = {"processor": 0.25, "seconds": 0.35, "memory": 0.35}  # of the earlier build's


@dataclass(frozen=True, kw_only=True)
class Used:
    """What one stage took."""

    stage: str
    seconds: float
    processor: float  # seconds
    memory: int  # bytes
    result: Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.passes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="REVISION", help="a commit of this repository to compare with")
    parser.add_argument("--models", nargs="+", choices=(BUNDLED, *MODELS), default=[BUNDLED, "SmolLM2-135M-Instruct"])
    parser.add_argument("--tokens", type=int, default=70_000, help="of calibration text, at most")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    sizes = {"tokens": given.tokens, "context": given.context, "threads": given.threads}
    console = program.console()
    for name in given.models:
        with TemporaryDirectory(prefix="sluice-passes-") as work:
            try:
                model, gguf = prepared(Path(work), name)
            except SluiceError as error:
                raise SystemExit(str(error)) from error
            found: dict[str, list[Used]] = {}
            for build in [*([given.against] if given.against else []), NOW]:
                with nullcontext(ROOT) if build == NOW else checked_out(build) as folder:
                    found[build] = read(folder, Path(work) / build, model=model, gguf=gguf, **sizes)
            console.print(table(name, found))
            for line in ratios(found):
                console.print(f"{name}: {line}")


def prepared(work: Path, name: str) -> tuple[Path, Path]:
    """The repaired model, and its 16-bit GGUF file. Raises ToolError when the packages cannot be fetched."""
    upstream, fixed, base = (work / part for part in ("upstream", "fixed", "base"))
    for folder in (upstream, fixed, base):
        folder.mkdir()
    if name != BUNDLED:
        MODELS[name](upstream)
    fixes.repair(fixed, snapshot=ROOT / "demo" / "model" if name == BUNDLED else upstream, repo=f"upstream/{name}", fixes=True)
    return fixed, base / str(convert.convert(base, model=fixed, name=name)["file"])


def read(source: Path, out: Path, *, model: Path, gguf: Path, **sizes: int) -> list[Used]:
    """The stages of the build whose sources these are."""
    shared = {"model": model, "gguf": gguf, **TEXT, **sizes}
    imatrix = call(source, "imatrix", "builders.calibrate:imatrix", out, shared)
    given = {**shared, "imatrix": out / "imatrix" / str(imatrix.result["file"])}
    measure = "builders.sensitivity.measure:by_gradients"
    if not (source / "builders" / "rounding" / "collect.py").exists():
        return [imatrix, call(source, "sensitivity", measure, out, {**given, "rounding": True})]
    return [imatrix, call(source, "sensitivity", measure, out, given), call(source, "hessians", "builders.rounding.collect:collect", out, shared)]


def call(source: Path, stage: str, function: str, out: Path, parameters: Mapping[str, Any]) -> Used:
    """One stage in a process of its own. Exits when it fails."""
    folder = out / stage
    folder.mkdir(parents=True)
    said = json.dumps({"out": folder, **parameters}, default=lambda path: {"path": str(path)})
    command = [sys.executable, str(CALL), function, said]
    done = subprocess.run(command, cwd=source, env=os.environ | {"PYTHONPATH": str(source)}, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{function} of {source} ended with {done.returncode}; what it said stands above.")
    return Used(stage=stage, **json.loads(done.stdout.splitlines()[-1]))


def totals(stages: Sequence[Used]) -> dict[str, float]:
    """Of all stages, which follow one another."""
    return {
        "processor": sum(one.processor for one in stages),
        "seconds": sum(one.seconds for one in stages),
        "memory": max(one.memory for one in stages),
    }


def table(title: str, found: Mapping[str, Sequence[Used]]) -> Table:
    """Every stage of every build."""
    made = Table(title=title, title_justify="left")
    made.add_column("build, stage")
    for heading in ("wall, s", "processor, s", "peak, MB", "windows"):
        made.add_column(heading, justify="right")
    for build, stages in found.items():
        for one in stages:
            windows = one.result.get("windows", one.result.get("chunks"))
            made.add_row(f"{build[:12]} {one.stage}", f"{one.seconds:.1f}", f"{one.processor:.1f}", f"{one.memory / 1e6:.0f}", str(windows))
    return made


def ratios(found: Mapping[str, Sequence[Used]]) -> list[str]:
    """Now over before, with the goals; nothing when there is only one build."""
    if len(found) < 2:
        return []
    before, now = (totals(stages) for stages in found.values())
    words = {"processor": "processor time", "seconds": "wall time", "memory": "peak memory"}
    return [f"{words[what]} now / before {now[what] / before[what]:.3f} (goal {goal})" for what, goal in GOALS.items()]


if __name__ == "__main__":
    main()
