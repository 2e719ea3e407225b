"""Stages that a person wants done anew, of a run that has ended."""

from pathlib import Path

import pytest

from config.recipe import Recipe
from config.settings import Settings
from service.release import lifecycle
from service.release.redoing import RedoRefused, redo
from service.release.way import way
from service.runs import steering
from service.runs.recipe import NoRecipe
from service.runs.steering import Actor
from service.store import KeptRecipe, SteeringRefused, Store
from tests.service.helpers import queue_run

ACTOR = Actor(source="api", details={"token": "ci"})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def run(store: Store) -> int:
    """A run that is done."""
    found = queue_run(store)
    store.keep_recipe(KeptRecipe(digest=found.recipe_digest, content={"name": "small", "variants": {"gguf": ["Q4_0", "Q8_0"]}}, sources=()))
    store.lease("worker", seconds=60)
    store.finish(found.id, state="done")
    return found.id


def test_what_is_asked_for_is_kept_until_the_run_has_ended(store: Store, settings: Settings, run: int) -> None:
    again = redo(store, settings, run, ["convert", "build"], ACTOR)
    assert (again.state, again.redo, again.trigger, again.attempt) == ("queued", ("convert", "build"), "redo", 2)
    store.lease("worker", seconds=60)
    assert store.finish(run, state="paused")
    assert store.resume(run, source="test", details={}).redo == ("convert", "build"), "put aside is not ended"
    store.lease("worker", seconds=60)
    store.finish(run, state="done")
    assert store.run(run).redo == ()
    assert steering.retry(store, run, ACTOR).redo == (), "the next attempt does nothing anew"
    (told,) = (event for event in store.audit_events(subject=f"run/{run}") if event.action == "redo")
    assert (told.source, told.details) == ("api", {"stages": ["convert", "build"], "attempt": 2, "token": "ci"})


def test_what_was_done_since_is_not_done_once_more(store: Store, settings: Settings, run: int) -> None:
    redo(store, settings, run, ["convert", "build"], ACTOR)
    leased = store.lease("worker", seconds=60)
    assert leased is not None
    graph = way(Recipe.model_validate({"name": "small", "variants": {"gguf": ["Q4_0", "Q8_0"]}}))
    assert lifecycle._left(store, leased, graph) == {"convert", "build Q4_0", "build Q8_0"}
    store.stage_finished(store.stage_started(run, "convert", "k", stage="convert"), state="done", seconds=1.0)
    store.stage_finished(store.stage_started(run, "build Q8_0", "l", stage="build Q8_0"), state="failed", seconds=1.0)
    assert lifecycle._left(store, leased, graph) == {"build Q4_0", "build Q8_0"}


def test_what_cannot_be_done_anew_is_refused_in_words(store: Store, settings: Settings, run: int) -> None:
    with pytest.raises(RedoRefused, match="has no stage 'convrt'. Did you mean convert"):
        redo(store, settings, run, ["convert", "convrt"], ACTOR)
    assert store.run(run).state == "done"
    other = queue_run(store, "upstream/other", recipe_digest="e" * 64).id
    with pytest.raises(SteeringRefused, match="it waits for its turn"):
        redo(store, settings, other, ["convert"], ACTOR)
    store.cancel(other, source="test", details={})
    with pytest.raises(NoRecipe):
        redo(store, settings, other, ["convert"], ACTOR)
