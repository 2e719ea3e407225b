"""Carry out one leased run: read its recipe, go the release's way, write down how it ended."""

from config.errors import ConfigurationError, in_words
from config.recipe import Recipe, load_recipe
from config.settings import Settings
from service.execution.kept import StageStore
from service.execution.workbench import Listener
from service.hubclient import connect
from service.release.executor import carry_out
from service.release.job import Job
from service.release.way import way
from service.release.work import Work
from service.store import RunRecord, Store


def execute(store: Store, run: RunRecord, settings: Settings, listener: Listener = lambda event: None) -> None:
    """Carry out `run`, whose lease the caller holds, and finish it in the store as done, blocked or failed. Raises what made it fail."""
    job = None
    try:
        recipe = recipe_of(run)
        job = Job(store=store, run=run, recipe=recipe, settings=settings, stages=StageStore(settings.folder), listener=listener)
        state = carry_out(Work(job=job, api=connect(settings), graph=way(recipe)))
    except Exception as error:
        reason = in_words(error)
        store.finish(run.id, state="failed", error=reason, disk_high_water=job.disk_high_water if job else None, worker=run.worker)
        raise
    store.finish(run.id, state=state, disk_high_water=job.disk_high_water, worker=run.worker)


def recipe_of(run: RunRecord) -> Recipe:
    """The recipe that the run was queued with. Raises ConfigurationError when it, or its data, is another one by now."""
    recipe = load_recipe(run.recipe)
    if recipe.digest() != run.recipe_digest:
        raise ConfigurationError(f"The recipe {run.recipe} or its data changed after run {run.id} was queued. Start a new run of {run.release.repo} with it.")
    return recipe
