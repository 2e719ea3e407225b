"""A first evening: two real models as folders, released into folders by the default recipe with no data given: `python -m bench.first`.

SmolLM2-135M-Instruct and Gemma 3 270M (a base model) come from packages of the Python index. Drives `sluice release FOLDER --to OUT --quick` from outside;
prints how long it said it would take, how long it took, also of processor time, and what came of each variant. Whole, that is more than an hour for
each on two cores.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import program
from bench.models.fetched import MODELS
from config.errors import SluiceError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.first", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--variants", help="only these, e.g. Q8_0,Q4_K_M,UD-Q4_K_XL,bnb-4bit; all of the default recipe when absent")
    parser.add_argument("--keep", type=Path, help="a folder for the released repos, in one named as the model; they are thrown away when absent")
    given = parser.parse_args()
    console = program.console()
    for name in given.models:
        with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
            try:
                release(console, Path(folder), name, variants=given.variants, out=(given.keep or Path(folder) / "out").resolve() / name)
            except SluiceError as error:
                raise SystemExit(str(error)) from error


def release(console: Console, folder: Path, name: str, *, variants: str | None, out: Path) -> None:
    """Make the model's folder, release it into `out`, and print what came of it. Raises ToolError when the packages cannot be fetched."""
    MODELS[name](folder / "model")
    command = ["release", str(folder / "model"), "--name", name, "--to", str(out), "--quick", "--json"]
    command += ["--variants", variants] if variants else []
    home = str(folder / "home")
    before = program.sluice(*command, "--dry-run", SLUICE_HOME=home)
    started, worked = time.perf_counter(), _processor_time()
    found = program.sluice(*command, SLUICE_HOME=home)
    took, worked = time.perf_counter() - started, _processor_time() - worked
    table = Table(title=name, title_justify="left")
    for heading in ("variant", "MB", "mean KLD", "same top", "verdict", "waived"):
        table.add_column(heading, justify="left" if heading in {"variant", "verdict"} else "right")
    for row in found["variants"]:
        kld, top = row["kld"].get("mean"), row.get("same_top")
        figures = (_told(row["bytes"], "{:.1f}", 1e-6), _told(kld, "{:.5f}"), _told(top, "{:.1%}"))
        table.add_row(row["tag"], *figures, row["verdict"] or "—", str(len(row.get("waivers") or ())))
    console.print(table)
    repos = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    said = f"{took / 60:.1f} min, {worked / 60:.1f} min of processor time, said beforehand {before['seconds'] / 60:.1f} min"
    console.print(f"{name}: {said}; left: {', '.join(repos) or 'nothing'}")


def _processor_time() -> float:
    """Seconds that all programs which were run and have ended took of processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _told(value: float | None, form: str, scale: float = 1.0) -> str:
    return "—" if value is None else form.format(value * scale)


if __name__ == "__main__":
    main()
