"""What a release is estimated to take beside what it takes, stage by stage: `python -m bench.estimate`.

Drives the program from outside, against an embedded Hub: `sluice run --dry-run --json` before anything is done, then the same run. The machine should do
nothing else meanwhile: estimates are of a quiet one. Models: `demo`, the bundled one, about five minutes on two cores; `smollm2`, a real one of 135M
parameters that comes from a package of the Python index, about twelve.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from rich.table import Table

from bench import program
from bench.models import real
from config.errors import SluiceError
from config.settings import Settings
from hub.server import running
from hub.tokens import create_token
from service import demo
from service.hubclient import connect

RECIPE = Path(__file__).parent / "models" / "smollm2.yaml"
PARTS = {"contents": "report", "chat": "publish"}  # steps by the stages that they are parts of, where these have another name


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A release on a Hub, and the settings and the recipe to carry it out with."""

    settings: Settings
    repo: str
    recipe: Path


@dataclass(frozen=True, kw_only=True)
class Row:
    """One stage."""

    name: str
    estimated: float  # seconds
    taken: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.estimate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=tuple(SCENES), default=list(SCENES))
    given = parser.parse_args()
    console = program.console()
    for name in given.models:
        with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
            try:
                with SCENES[name](Path(folder)) as scene:
                    estimate, truth, wall = both(scene)
            except SluiceError as error:
                raise SystemExit(str(error)) from error
        console.print(table(name, rows(estimate["stages"], truth["stages"])))
        console.print(f"{name}: from beginning to end {wall:.1f} s, estimated {estimate['seconds']:.1f} s: {estimate['seconds'] / wall:.2f} of it")
        high = truth.get("disk_high_water")
        if high:
            console.print(f"{name}: {high / 1e6:.1f} MB of disk, estimated {estimate['disk'] / 1e6:.1f} MB: {estimate['disk'] / high:.2f} of it")


@contextmanager
def demo_scene(folder: Path) -> Iterator[Scene]:
    """The demo's."""
    with demo.stage(folder, fixes=True) as scene:
        yield Scene(settings=scene.settings, repo=demo.UPSTREAM, recipe=scene.recipe)


@contextmanager
def smollm2_scene(folder: Path) -> Iterator[Scene]:
    """The real model on a Hub of its own. Raises ToolError when its package cannot be fetched."""
    model, hub = folder / "model", folder / "hub"
    real.smollm2(model)
    hub.mkdir()
    owner = "upstream"
    with running(hub) as url:
        settings = Settings(home=folder / "service", hub_endpoint=url, hub_token=SecretStr(create_token(hub, user="bench")), namespace="bench")
        api = connect(settings.with_(hub_token=SecretStr(create_token(hub, user=owner))))
        repo = f"{owner}/SmolLM2-135M-Instruct"
        api.create_repo(repo)
        api.upload_folder(repo_id=repo, folder_path=model, commit_message="Release")
        yield Scene(settings=settings, repo=repo, recipe=RECIPE)


SCENES: Mapping[str, Callable[[Path], Any]] = {"demo": demo_scene, "smollm2": smollm2_scene}


def both(scene: Scene) -> tuple[dict[str, Any], dict[str, Any], float]:
    """The estimate, the run's summary, and the seconds that the run took as a whole. Exits when either fails."""
    estimate = _run(scene, "--dry-run")
    if "stages" not in estimate:
        raise SystemExit("`sluice run --dry-run --json` says nothing of stages: it is older than this bench.")
    started = time.perf_counter()
    truth = _run(scene)
    return estimate, truth, time.perf_counter() - started


def _run(scene: Scene, *options: str) -> dict[str, Any]:
    settings = scene.settings
    about = {"SLUICE_HOME": str(settings.home), "SLUICE_HUB_ENDPOINT": settings.hub_endpoint, "SLUICE_NAMESPACE": settings.namespace or ""}
    return program.sluice("run", scene.repo, "--recipe", scene.recipe, "--json", *options, **about, SLUICE_HUB_TOKEN=settings.token or "")


def rows(estimated: Sequence[Mapping[str, Any]], taken: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Every stage of the estimate with the seconds of its steps, which begin with its name; steps of no stage come last, with an estimate of 0."""
    names = [str(stage["name"]) for stage in estimated]
    sums = dict.fromkeys(names, 0.0)
    for step in taken:
        name = owner(str(step["name"]), names)
        sums[name] = sums.get(name, 0.0) + float(step["seconds"])
    foretold = {str(stage["name"]): float(stage["seconds"]) for stage in estimated}
    return [Row(name=name, estimated=foretold.get(name, 0.0), taken=seconds) for name, seconds in sums.items()]


def owner(step: str, names: Sequence[str]) -> str:
    """The stage that a step is one of: the longest name that the step's begins with; else the step itself."""
    own = [name for name in names if step == name or step.startswith(f"{name} ")]
    if own:
        return max(own, key=len)
    return PARTS[step] if PARTS.get(step) in names else step


def table(title: str, found: Sequence[Row]) -> Table:
    """Stages one below the other, and all of them together."""
    total = Row(name="all", estimated=sum(row.estimated for row in found), taken=sum(row.taken for row in found))
    result = Table(title=title, title_justify="left", show_footer=True)
    result.add_column("stage", footer=total.name)
    for heading, footer in (("estimated, s", f"{total.estimated:.1f}"), ("taken, s", f"{total.taken:.1f}"), ("factor", _factor(total))):
        result.add_column(heading, justify="right", footer=footer)
    for row in found:
        result.add_row(row.name, f"{row.estimated:.1f}", f"{row.taken:.1f}", _factor(row))
    return result


def _factor(row: Row) -> str:
    return f"{row.estimated / row.taken:.2f}" if row.taken else ""


if __name__ == "__main__":
    main()
