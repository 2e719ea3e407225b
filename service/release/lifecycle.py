"""Carry out one leased run: read its recipe, say what to expect, go the release's way, write down how it ended."""

import logging
from collections.abc import Callable

from huggingface_hub import HfApi

from config.errors import ConfigurationError, SluiceError, UpstreamError, in_words
from config.recipe import Recipe
from config.settings import Settings
from service.execution.kept import StageStore
from service.execution.workbench import Event, Listener
from service.hubclient import connect
from service.release import datasets
from service.release.checks.room import exceeded, room
from service.release.executor import carry_out
from service.release.forecast import Forecast
from service.release.job import Job
from service.release.outlook import outlook
from service.release.prospect import Prospect, foresee
from service.release.way import way
from service.release.withdrawing import Withdrawn, withdrawable
from service.release.work import Held, Work
from service.store import RunRecord, Store

log = logging.getLogger(__name__)

Expected = Callable[[Prospect, Forecast], None]
"""Hears what lies ahead of a run, once that is known."""


def execute(
    store: Store, run: RunRecord, settings: Settings, listener: Listener = lambda event: None, expected: Expected = lambda ahead, forecast: None
) -> None:
    """Carry out `run`, whose lease the caller holds, and finish it in the store as it ended, or as a person wants it. Raises what made it fail."""
    job = None
    try:
        api = connect(settings)
        recipe = recipe_of(run, settings, api)
        job = Job(store=store, run=run, recipe=recipe, settings=settings, stages=StageStore(settings.folder), listener=listener)
        work = Work(job=job, api=api, graph=way(recipe))
        _expect(work, expected)
        with withdrawable(store, run.id):
            state = carry_out(work)
    except Withdrawn as withdrawn:
        store.finish(run.id, state=withdrawn.state, worker=run.worker)
        listener(Event(stage="run", state="remark", message=f"The run was {withdrawn.state} by a person's wish."))
        return
    except Held as held:
        store.finish(run.id, state="held", worker=run.worker)
        listener(Event(stage="approval", state="remark", message=f"The release is held. {held}"))
        return
    except Exception as error:
        reason = in_words(error)
        store.finish(run.id, state="failed", error=reason, disk_high_water=job.disk_high_water if job else None, worker=run.worker)
        raise
    store.finish(run.id, state=state, disk_high_water=job.disk_high_water, worker=run.worker)


def recipe_of(run: RunRecord, settings: Settings, api: HfApi) -> Recipe:
    """The recipe that the run was queued with. Raises ConfigurationError when it, or its data, is another one by now."""
    recipe = datasets.recipe_for(settings, run.recipe, api)
    if recipe.digest() != run.recipe_digest:
        raise ConfigurationError(f"The recipe {run.recipe} or its data changed after run {run.id} was queued. Start a new run of {run.release.repo} with it.")
    return recipe


def _expect(work: Work, heard: Expected) -> None:
    """Reckon how long each stage will take, for whoever watches, and tell it; not of a run that published before, which has little to do.

    Raises UpstreamError when disk, memory or time surely do not suffice.
    """
    job = work.job
    if job.store.publications(job.run.id):
        return
    try:
        upstream = work.route.resolve(work.release.repo, work.release.sha)
        ahead = foresee(job.store, job.settings, work.route, work.recipe, upstream)
        expected = outlook(job.store, ahead)
    except SluiceError as error:  # the stages say better what is wrong, or do without
        log.info("no estimate of run %d: %s", job.run.id, error, extra={"action": "forecast"})
        return
    except Exception:  # whatever is odd about a model, an estimate is not worth a run
        log.exception("no estimate of run %d", job.run.id, extra={"action": "forecast"})
        return
    heard(ahead, expected)
    if lacking := list(exceeded(expected, room(job.settings), surely=True)):
        raise UpstreamError(" ".join(lacking))
    job.store.record_forecast(job.run.id, expected.foretold)
    job.estimates = {name: needs.seconds for name, needs in expected.stages.items()}
