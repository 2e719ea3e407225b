"""Mixes that are rounded anew one after another: each is given those before it, whose matrices of the same bytes it need not round again."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings
from config.written import load_recipe
from service.execution.kept import Input, Output, StageStore
from service.execution.place import HERE
from service.execution.workbench import steps_of
from service.release.job import Job
from service.store import Store
from tests.service.conftest import RECIPE
from tests.service.helpers import at_work, output, queue_run

MIXES = ("UD-Q6_K_XL", "UD-Q4_K_XL", "UD-Q3_K_XL")


@dataclass(kw_only=True)
class Bench(Job):
    """A job that notes what a stage is given, and does nothing."""

    given: dict[str, Any] = field(default_factory=dict)

    def apart(self, name: str, function: str, inputs: Any, /, *, threaded: bool = True, helps: Any = None, **params: Any) -> Output:
        self.given = dict(helps)
        return output_of(self.settings.folder, f"{name} now")


def output_of(folder: Path, name: str, **result: object) -> Output:
    files = folder / name / "files"
    files.mkdir(parents=True)
    (files / "m.gguf").write_text(name)
    return output(folder / name, {"file": "m.gguf", **result})


@pytest.fixture
def bench(file_store: Store, tmp_path: Path) -> Bench:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("gguf: [Q4_0]", f"dynamic: [{', '.join(MIXES)}]"), encoding="utf-8")
    (tmp_path / "text.txt").write_text("Some text.\n", encoding="utf-8")
    settings = Settings(home=tmp_path / "home")
    return Bench(store=file_store, run=queue_run(file_store), recipe=load_recipe(str(path)), settings=settings, stages=StageStore(settings.folder))


def rounded(bench: Bench, tmp_path: Path, *, rounding: bool = True, done: tuple[str, ...] = MIXES[:1]) -> Output:
    """What comes of the second mix, when those in `done` are."""
    made = {f"build {tag}": output_of(tmp_path, f"build {tag}") for tag in MIXES[:2]}
    made |= {f"round {tag}": output_of(tmp_path, f"round {tag}") if rounding else made[f"build {tag}"] for tag in done}
    work = at_work(bench, {"convert": output_of(tmp_path, "convert"), "sensitivity": output_of(tmp_path, "sensitivity", rounding=rounding), **made})
    stage = work.graph[f"round {MIXES[1]}"]
    assert callable(stage.work)
    with steps_of(stage.name):
        product = stage.work(work)
    assert isinstance(product, Output)
    return product


def texts(given: list[Input]) -> list[str]:
    return [item.path.read_text() for item in given]


def test_what_was_rounded_before_is_given(bench: Bench, tmp_path: Path) -> None:
    assert rounded(bench, tmp_path).key == f"round {MIXES[1]} now"
    assert {name: texts(files) for name, files in bench.given.items()} == {"built": [f"build {MIXES[0]}"], "rounded": [f"round {MIXES[0]}"]}


def test_the_first_is_given_nothing(bench: Bench, tmp_path: Path) -> None:
    rounded(bench, tmp_path, done=())
    assert not any(bench.given.values())


def test_on_several_machines_nothing_is_sent_for_it(bench: Bench, tmp_path: Path) -> None:
    bench.place = replace(HERE, wide=True)
    rounded(bench, tmp_path)
    assert not any(bench.given.values())


def test_a_model_that_cannot_be_rounded_anew_keeps_what_was_built(bench: Bench, tmp_path: Path) -> None:
    assert rounded(bench, tmp_path, rounding=False).key == f"build {MIXES[1]}"
    assert not bench.given
