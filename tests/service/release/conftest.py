"""Prospects of the bundled model, and of what an embedded Hub holds."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from bench.short_way import short
from builders.snapshot import Upstream as Described
from builders.weights import read_header, weight_files
from config.recipe import Recipe
from config.settings import Settings
from config.words import Release
from config.written import load_recipe
from service.execution.kept import StageStore
from service.release.job import Job
from service.release.prospect import Prospect
from service.store import Store
from tests.service.conftest import RECIPE as RECIPE_FILE
from tests.service.conftest import Upstream
from tests.service.helpers import queue_run
from tests.service.release.short_way import ShortWay

ROOT = Path(__file__).parents[3]
DATA = ROOT / "demo" / "data"
RECIPE = {
    "name": "small",
    "variants": {"gguf": ["Q4_0"]},
    "calibration": {"plain": [DATA / "calibration_questions.txt"]},
    "evaluation": {
        "divergence": {"plain": [DATA / "evaluation_questions.txt"]},
        "mmlu": {"data": DATA / "tiny_mmlu"},
        "generation": {"prompts": ["Hello"]},
    },
    "gates": [{"name": "close", "measure": "kld.mean", "at_most": 0.1}],
}


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    """A sound recipe with some parts replaced."""
    return lambda **parts: Recipe.model_validate({**RECIPE, **parts})


@pytest.fixture
def prospect(recipe: Callable[..., Recipe], tmp_path: Path) -> Callable[..., Prospect]:
    """What would be known of a model in a folder, the bundled one by default, with some of it replaced."""

    def make(model: str = "demo/model", **changes: object) -> Prospect:
        folder = ROOT / model
        known = {
            "settings": Settings(home=tmp_path),
            "api": HfApi(endpoint="http://127.0.0.1:1", token=False),
            "recipe": recipe(),
            "upstream": Described(release=Release(repo="upstream/model", sha="1" * 40), private=False, gated=False, license="mit"),
            "sizes": {path.name: path.stat().st_size for path in weight_files(folder)},
            "shapes": {tensor.name: tensor.shape for path in weight_files(folder) for tensor in read_header(path)},
            "stored": {tensor.name: tensor for path in weight_files(folder) for tensor in read_header(path)},
            "config": json.loads((folder / "config.json").read_bytes()),
            "namespace": "ours",
        }
        return Prospect(**{**known, **changes})

    return make


@pytest.fixture
def job(file_store: Store, tmp_path: Path) -> Job:
    """A run of a small recipe with a gate on the release, whose lease nobody has."""
    path = tmp_path / "recipe.yaml"
    gate = "gates: [{name: overlap, measure: overlap.share, at_most: 0.1, scope: release}, {name: close, measure: kld.mean, at_most: 0.1}]"
    path.write_text(RECIPE_FILE.replace("gates: [{name: close, measure: kld.mean, at_most: 0.1}]", gate), encoding="utf-8")
    (tmp_path / "text.txt").write_text("Some text.\n", encoding="utf-8")
    settings = Settings(home=tmp_path / "home")
    return Job(store=file_store, run=queue_run(file_store), recipe=load_recipe(str(path)), settings=settings, stages=StageStore(settings.folder))


@pytest.fixture
def short_way(upstream: Upstream, file_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShortWay:
    """A service whose runs take no time."""
    short(monkeypatch, tmp_path / "built")
    return ShortWay(upstream=upstream, store=file_store)


@pytest.fixture
def each_way(upstream: Upstream, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShortWay:
    """The same on each kind of database in turn."""
    short(monkeypatch, tmp_path / "built")
    return ShortWay(upstream=upstream, store=store)
