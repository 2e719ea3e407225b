"""Carry out one leased run: read its recipe, say what to expect, go the release's way, write down how it ended."""

import logging
from collections.abc import Callable, Collection
from typing import Literal

from huggingface_hub import HfApi

from config.errors import ConfigurationError, Damaged, SluiceError, Superseded, Unavailable, UpstreamError, in_words
from config.near import hint
from config.settings import Settings
from service.cluster.choice import place_of
from service.execution.kept import StageStore
from service.execution.leaving import checkpoint
from service.execution.place import Request
from service.execution.workbench import Event, Listener, limited
from service.hubclient import connect, patient
from service.logs import redact
from service.pulse import pulse
from service.release import abreast, checks, executor, recipes
from service.release.checks.room import exceeded, room
from service.release.forecast import Forecast
from service.release.graph import Graph
from service.release.job import Job
from service.release.outlook import outlook
from service.release.overtaken import give_up_held, refuse_overtaken
from service.release.prospect import Prospect, foresee
from service.release.way import way
from service.release.withdrawing import Withdrawn, withdrawable
from service.release.work import Held, Work
from service.runs.again import at, wait
from service.store import RunRecord, Store
from service.store.database import passes

log = logging.getLogger(__name__)

Ended = Literal["done", "blocked", "held", "superseded", "failed", "cancelled", "paused"]

Expected = Callable[[Prospect, Forecast], None]
"""Hears what lies ahead of a run, once that is known."""


def execute(
    store: Store,
    run: RunRecord,
    settings: Settings,
    listener: Listener = lambda event: None,
    expected: Expected = lambda ahead, forecast: None,
    redo: Collection[str] = (),
) -> None:
    """Carry out `run`, whose lease the caller holds, and finish it in the store as it ended or as a person wants it; the stages `redo` are done anew.

    A run whose Hub or cluster is not available for longer than the settings' patience is put back, to be tried again later; that is raised as Unavailable.
    Raises what made it fail, and LeaseLost, with nothing written, when another process has the run by now.
    """

    def heard(event: Event) -> None:
        pulse.beat("worker", event.stage)
        listener(event)

    def waits(said: str) -> None:
        heard(Event(stage="hub", state="remark", message=said))
        checkpoint()

    with patient(settings.hub_patience, waits):
        _execute(store, run, settings, heard, expected, redo)
    _give_up_held(store, run, settings)


def _give_up_held(store: Store, run: RunRecord, settings: Settings) -> None:
    """What is held and was overtaken by what is published ends, this run too where another one was faster. The run has ended: no fault is its own any more."""
    try:
        with limited(settings, "looking for held runs"):
            give_up_held(store, connect(settings), run)
    except SluiceError as error:  # the next run of its kind looks again
        log.warning("held runs of %s are not looked at: %s", run.release.repo, error, extra={"action": "give up"})
    except Exception:
        log.exception("held runs of %s are not looked at", run.release.repo, extra={"action": "give up"})


def _execute(store: Store, run: RunRecord, settings: Settings, listener: Listener, expected: Expected, redo: Collection[str]) -> None:
    job: Job | None = None

    def finish(state: Ended, error: str | None = None) -> None:
        if state not in {"done", "blocked"} and (said := _public(store, run)):
            listener(Event(stage="publish", state="remark", message=said))
            error = said if error is None else f"{error} {said}"
        store.finish(run.id, state=state, error=error, disk_high_water=job.disk_high_water if job else None, lease=run.lease)

    try:
        api = connect(settings)
        chosen = _wanted(store, run, settings, api)
        graph = way(chosen.recipe)
        job = Job(
            store=store,
            run=run,
            recipe=chosen.recipe,
            promised=chosen.digests,
            sources=chosen.sources,
            settings=settings,
            stages=StageStore(settings.folder),
            listener=listener,
            redo=named(graph, redo) | _left(store, run, graph),
        )
        _expect(Work(job=job, api=api, graph=graph), expected)
        with withdrawable(store, run.id), place_of(settings, lambda said: listener(Event(stage="cluster", state="remark", message=said))) as job.place:
            state = _gone(job, lambda: Work(job=job, api=api, graph=graph))
    except Withdrawn as withdrawn:
        finish(withdrawn.state)
        listener(Event(stage="run", state="remark", message=f"The run was {withdrawn.state} by a person's wish."))
    except Held as held:
        finish("held")
        listener(Event(stage="approval", state="remark", message=f"The release is held. {held}"))
    except Superseded as newer:  # a newer release was published meanwhile, or waits: that is nobody's failure
        finish("superseded", str(newer))
        listener(Event(stage="publish", state="remark", message=str(newer)))
    except Unavailable as fault:
        if _deferred(store, run, fault, listener):
            raise
    except Exception as error:
        if not passes(error):  # the database can be asked; else whoever has the run puts it back when that is over
            finish("failed", redact(in_words(error)))
        raise
    else:
        finish(state)
    finally:
        if job is not None:
            job.stages.close()


def _wanted(store: Store, run: RunRecord, settings: Settings, api: HfApi) -> recipes.Chosen:
    """The run's recipe with its data. Raises Superseded where what the run was for is not wanted any more."""
    with limited(settings, "looking for newer releases"):
        refuse_overtaken(store, api, run)
    with limited(settings, "reading the recipe and its data"):
        return recipes.of_run(store, run, settings, api)


def _public(store: Store, run: RunRecord) -> str:
    """Which repos a run that did not come to its end has published all the same; nothing where there is none."""
    found = [item.repo for item in store.published_since_begun(run.id)]
    return f"Published all the same, before that: {', '.join(found)}." if found else ""


def _deferred(store: Store, run: RunRecord, fault: Unavailable, listener: Listener) -> bool:
    """Put the run back until what it waits for may be there again; False when a person wished it otherwise meanwhile."""
    left = store.defer(run.id, run.lease, error=redact(f"{fault} {_public(store, run)}".strip()), seconds=wait(run.waits, fault.wait))
    if left.due is None:
        listener(Event(stage="run", state="remark", message=f"The run was {left.state} by a person's wish."))
        return False
    log.info("run %d waits: %s", run.id, fault, extra={"action": "defer"})
    listener(Event(stage="run", state="remark", message=f"The run waits for {fault.what}, and is tried again by itself {at(left.due)}."))
    return True


def _gone(job: Job, begin: Callable[[], Work]) -> Literal["done", "blocked"]:
    """Go the way; whenever the file of a stage turns out to be damaged, throw that stage's output away and go once more, which makes it again.

    An output that is damaged again after it was made again is a failure: raises Damaged.
    """
    carry_out = abreast.carry_out if job.place.wide else executor.carry_out
    made_again = set[str]()
    while True:
        try:
            return carry_out(begin())
        except Damaged as damage:
            key = None if damage.path is None else job.stages.key_of(damage.path)
            if key in made_again:
                disk = f"look at the disk that {job.stages.finished} lies on, then start the run again."
                raise Damaged(f"{damage} That was done in this run, and it is damaged once more: {disk}", damage.path) from damage
            if key is None or not job.stages.throw_away(key):
                raise
            made_again.add(key)
            log.warning("%s; it was thrown away", damage, extra={"action": "redo"})
            job.listener(Event(stage="", state="remark", message=f"{damage} It was thrown away, and is made now."))


def _left(store: Store, run: RunRecord, graph: Graph) -> frozenset[str]:
    """The stages that the run was queued to do anew, and that it has not done since: it may have been put back or paused meanwhile."""
    since = [step for step in store.stages(run.id) if step.state == "done" and run.queued is not None and step.started >= run.queued]
    return named(graph, run.redo) - {name for step in since for name in (step.name, step.stage) if name is not None}


def named(graph: Graph, wanted: Collection[str]) -> frozenset[str]:
    """The stages of these names, or families of names, to be done again. Raises ConfigurationError for a name of none."""
    known = [stage.name for stage in graph.stages]
    if unknown := next((name for name in wanted if not any(name in {stage.name, stage.family} for stage in graph.stages)), None):
        raise ConfigurationError(f"The recipe has no stage {unknown!r}.{hint(unknown, known)} `sluice stages --recipe RECIPE` lists those that it has.")
    return frozenset(stage.name for stage in graph.stages if {stage.name, stage.family} & set(wanted))


def _expect(work: Work, heard: Expected) -> None:
    """Reckon how long each stage will take, for whoever watches, and tell it; make the checks that take a process, of stages not done yet.

    Neither of a run that published before, which has little to do. Raises UpstreamError when disk, memory or time surely do not suffice, and what checks find.
    """
    job = work.job
    if job.store.publications(job.run.id):
        return
    try:
        with job.limited("the forecast"):
            upstream = work.route.resolve(work.release.repo, work.release.sha)
            ahead = foresee(job.store, job.settings, work.route, work.recipe, upstream)
        expected = outlook(job.store, ahead)
    except Unavailable:
        raise
    except SluiceError as error:  # the stages say better what is wrong, or do without
        log.info("no estimate of run %d: %s", job.run.id, error, extra={"action": "forecast"})
        return
    except Exception:  # whatever is odd about a model, an estimate is not worth a run
        log.exception("no estimate of run %d", job.run.id, extra={"action": "forecast"})
        return
    heard(ahead, expected)
    if lacking := list(exceeded(expected, room(job.settings), surely=True)):
        raise UpstreamError(" ".join(lacking))
    left = Graph(stages=tuple(stage for stage in work.graph.stages if stage.name not in expected.kept))
    checks.refuse(checks.problems(left, ahead, apart=True))
    job.store.record_forecast(job.run.id, expected.foretold)
    job.estimates = {name: needs.seconds for name, needs in expected.stages.items()}
    job.requests = {name: Request(memory=needs.memory, gpu=needs.gpu) for name, needs in expected.stages.items()}
