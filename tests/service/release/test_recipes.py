"""Recipes are kept whole with their runs: what becomes of the file, or of the data, afterwards fails no run that was done."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from config.errors import ConfigurationError
from config.recipe import Recipe
from config.written import load_recipe
from service.api import create_app
from service.api.tokens import create_token
from service.cli.main import app
from service.hubclient import connect
from service.release import lifecycle, recipes
from service.release.graph import Graph
from service.release.intake import ReleaseRequest, queue_release
from service.release.way import way
from service.store import KeptRecipe, Published, RunRecord, Store, open_store, order_of
from tests.published import TEXT, owned, publish, wikitext
from tests.service.conftest import DEMO, RECIPE, Upstream
from tests.service.helpers import queue_run

FIRST = ("upstream", "snapshot", "text overlap", "data")  # stages that know the recipe and read its texts, in a second


@pytest.fixture
def store(upstream: Upstream) -> Store:
    return open_store(upstream.settings.database)


@pytest.fixture
def recipe(upstream: Upstream) -> Path:
    return Path(upstream.settings.watch[0].recipe)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(of: Recipe) -> Graph:
        return Graph(stages=tuple(stage for stage in way(of).stages if stage.name in FIRST))

    monkeypatch.setattr(lifecycle, "way", short)
    monkeypatch.setattr(lifecycle, "_expect", lambda work, heard: None)  # which measures the machine first


@pytest.fixture
def queued(upstream: Upstream, store: Store, recipe: Path) -> Callable[[], RunRecord]:
    """The run of the model by the recipe as it is now."""

    def queue() -> RunRecord:
        wanted = ReleaseRequest(repo="upstream/model", revision="main", recipe=str(recipe), trigger="poll")
        return queue_release(store, upstream.settings, connect(upstream.settings), wanted)[0]

    return queue


def carried_out(upstream: Upstream, store: Store, run: RunRecord) -> RunRecord:
    leased = store.lease("worker", seconds=60, run=run.id)
    assert leased is not None
    lifecycle.execute(store, leased, upstream.settings)
    return store.run(run.id)


def again(store: Store, run: RunRecord) -> RunRecord:
    return store.enqueue(order_of(store.run(run.id), trigger="republish"), again=True)[0]


def test_a_run_is_carried_out_again_after_its_recipe_changed_and_after_all_of_it_vanished(
    upstream: Upstream, store: Store, recipe: Path, queued: Callable[[], RunRecord]
) -> None:
    run = queued()
    assert carried_out(upstream, store, run).state == "blocked", "nothing is built by so few stages"
    first = {stage.name: stage.key for stage in store.stages(run.id)}
    recipe.write_text(RECIPE.replace("Hello", "Good morning"), encoding="utf-8")
    assert carried_out(upstream, store, again(store, run)).state == "blocked"
    recipe.unlink()
    (recipe.parent / "text.txt").unlink()
    ended = carried_out(upstream, store, again(store, run))
    assert (ended.state, ended.error, ended.attempt) == ("blocked", None, 3)
    assert {stage.name: stage.key for stage in store.stages(run.id) if stage.state == "reused"} == first


def test_a_changed_recipe_is_a_new_run_and_the_one_that_was_queued_is_carried_out_as_it_was(
    upstream: Upstream, store: Store, recipe: Path, queued: Callable[[], RunRecord]
) -> None:
    run = queued()
    recipe.write_text(RECIPE.replace("Hello", "Good morning"), encoding="utf-8")
    other = queued()
    assert other.id != run.id
    for each, prompt in ((run, "Hello"), (other, "Good morning")):
        assert carried_out(upstream, store, each).state == "blocked"
        chosen = recipes.of_run(store, each, upstream.settings, connect(upstream.settings))
        assert chosen.recipe.evaluation.generation.prompts == (prompt,)
        assert chosen.recipe.digest() == each.recipe_digest


def test_data_that_changed_are_missed_by_the_stage_that_reads_them_and_by_no_other(
    upstream: Upstream, store: Store, recipe: Path, queued: Callable[[], RunRecord]
) -> None:
    run = queued()
    text = recipe.parent / "text.txt"
    before = text.read_text()
    for words, change in (("is another one", lambda: text.write_text("Other text.\n")), ("is gone", text.unlink)):
        change()
        with pytest.raises(ConfigurationError, match=rf"text\.txt {words} since this run was queued, and the stage text overlap has to read it"):
            carried_out(upstream, store, run)
        assert [stage.name for stage in store.stages(run.id) if stage.state in {"done", "reused"}] == ["snapshot"]
        again(store, run)
    text.write_text(before)
    assert carried_out(upstream, store, run).state == "blocked"


def test_data_of_the_hub_are_kept_at_the_commit_that_was_fetched(upstream: Upstream, store: Store, recipe: Path, queued: Callable[[], RunRecord]) -> None:
    owner = owned(recipe.parent / "hub", upstream.settings.hub_endpoint)
    recipe.write_text(RECIPE.replace("divergence: {plain: [text.txt]}", f"divergence: {{plain: ['{TEXT}']}}"), encoding="utf-8")
    run = queued()
    commit = owner.dataset_info("owner/text").sha
    publish(owner, "owner/text", {"raw/test-00000-of-00001.parquet": wikitext("calibration_questions.txt")})
    kept = store.recipe(run.recipe_digest)
    assert kept is not None
    assert kept.content["evaluation"]["divergence"]["plain"] == [TEXT.replace("@main", f"@{commit}")]
    (source,) = [item for item in kept.sources if item["use"] == "evaluation.plain"]
    assert (source["repo"], source["commit"]) == ("owner/text", commit)
    (upstream.settings.folder / "data").rename(recipe.parent / "elsewhere")
    assert carried_out(upstream, store, run).state == "blocked", "what was removed is fetched again, as it was"


def test_a_recipe_is_read_back_as_it_was(upstream: Upstream, recipe: Path) -> None:
    api = connect(upstream.settings)
    for name in (str(recipe), str(DEMO / "recipe.yaml"), "default"):
        chosen = recipes.choose(upstream.settings, name, api)
        kept = json.loads(json.dumps(chosen.kept.content))
        file = recipe.parent / "again.yaml"
        file.write_text(yaml.safe_dump(kept), encoding="utf-8")
        assert load_recipe(str(file)) == chosen.recipe == load_recipe(name)
        assert recipes.choose(upstream.settings, str(file), api).kept.digest == chosen.kept.digest


# ---- looking at them --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(upstream: Upstream) -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(app, arguments, env={"SLUICE_HOME": str(upstream.settings.home), "COLUMNS": "200"})


def test_the_recipes_of_runs_are_printed_and_compared(recipe: Path, queued: Callable[[], RunRecord], asked: Callable[..., Result], tmp_path: Path) -> None:
    first = queued()
    recipe.write_text(RECIPE.replace("Hello", "Good morning"), encoding="utf-8")
    second = queued()
    recipe.unlink()
    shown = asked("recipe", str(first.id))
    assert shown.exit_code == 0
    (tmp_path / "old.yaml").write_text(shown.stdout, encoding="utf-8")
    assert load_recipe(str(tmp_path / "old.yaml")).evaluation.generation.prompts == ("Hello",)
    lines = asked("recipe", str(first.id), str(second.id)).stdout.splitlines()
    assert [line for line in lines if line.startswith(("-", "+")) and line[1:2] == " "] == ["-    - Hello", "+    - Good morning"]
    same = json.loads(asked("recipe", str(first.id), str(first.id), "--json").stdout)
    assert (same["same"], same["diff"]) == (True, [])
    assert asked("recipe", "99").exit_code == 1


def test_the_api_tells_the_recipe_of_a_run_and_republishes_without_its_file(
    upstream: Upstream, store: Store, recipe: Path, queued: Callable[[], RunRecord]
) -> None:
    run = queued()
    carried_out(upstream, store, run)
    number = store.record_publication(run.id, Published(repo="ours/m", revision="1" * 40, url="", files=(), manifest_digest="m", changed=True))
    recipe.unlink()
    with TestClient(create_app(store, upstream.settings)) as client:
        bearer = {"Authorization": f"Bearer {create_token(store, 'ci')}"}
        told = client.get(f"/api/v1/runs/{run.id}/recipe", headers=bearer).json()
        assert (told["digest"], told["content"]["name"], told["named"]) == (run.recipe_digest, "small", str(recipe))
        assert client.post(f"/api/v1/publications/{number}/republish", headers=bearer).status_code == 202
        assert carried_out(upstream, store, run).state == "blocked"


def test_a_done_run_of_an_older_version_whose_recipe_changed_stays_done(upstream: Upstream, store: Store, recipe: Path) -> None:
    run = queue_run(store, recipe=str(recipe))
    store.lease("worker", seconds=60)
    number = store.record_publication(run.id, Published(repo="ours/m", revision="1" * 40, url="", files=(), manifest_digest="m", changed=True))
    store.finish(run.id, state="done")
    with TestClient(create_app(store, upstream.settings)) as client:
        bearer = {"Authorization": f"Bearer {create_token(store, 'ci')}"}
        answer = client.post(f"/api/v1/publications/{number}/republish", headers=bearer)
        assert (answer.status_code, answer.json()["code"]) == (422, "unusable_recipe")
        assert client.get(f"/api/v1/runs/{run.id}/recipe", headers=bearer).status_code == 404
    assert store.run(run.id).state == "done"


def test_an_older_run_s_recipe_is_kept_as_soon_as_it_is_read_unchanged(upstream: Upstream, store: Store, recipe: Path) -> None:
    api = connect(upstream.settings)
    run = queue_run(store, recipe=str(recipe), recipe_digest=load_recipe(str(recipe)).digest())
    assert store.recipe(run.recipe_digest) is None
    recipes.of_run(store, run, upstream.settings, api)
    recipe.unlink()
    assert recipes.of_run(store, run, upstream.settings, api).recipe.name == "small"


def test_a_recipe_is_kept_once(database_url: str) -> None:
    store = open_store(database_url)
    kept = KeptRecipe(digest="d" * 64, content={"name": "small", "gates": [{"at_most": 0.1}]}, sources=({"use": "evaluation.plain", "sha256": "e" * 64},))
    for _ in range(2):
        store.keep_recipe(kept)
    assert store.recipe(kept.digest) == kept
    assert store.recipe("e" * 64) is None
    said_otherwise = replace(kept, content={**kept.content, "on_rollback": "follow"})  # which is no part of the digest
    store.keep_recipe(said_otherwise)
    assert store.recipe(kept.digest) == said_otherwise
    store.close()
