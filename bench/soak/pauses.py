"""Two services on one database, of which the one that works is stopped until the other one has its run, and wakes up while that one is at it."""

import signal
import time
from itertools import count
from threading import Event

from sqlalchemy.exc import SQLAlchemyError

from bench.faulty import Fault, Request
from bench.soak.ending import ONE, came, ended, undisturbed
from bench.soak.found import Found
from bench.soak.share import Share
from bench.soak.steps import Step, step_of
from bench.soak.world import Service, World, service, until
from service.release.job import COMMIT_SECONDS
from service.store import LeaseLost, RunRecord
from service.store.lease import LEASE_SECONDS

AT_WORK = "at work"
TAKEN = COMMIT_SECONDS + LEASE_SECONDS + 30.0  # seconds within which another service has to have the run: one that is about to publish holds it longer
WAKES = 10.0  # seconds after that in which the one that was stopped is woken


def pauses(world: World, share: Share) -> Found:
    """So many, while something is built, and before and after each step of a publication: what was asked before is carried out when others have the run."""
    found = Found("pauses", share.number)
    with service(world, "one", shared="shared") as one, service(world, "two", shared="shared") as two:
        _, took = undisturbed(world, one, "weights")
        writes, _ = undisturbed(world, one, "terms")
        places: list[str | tuple[str, Step]] = [place for step in writes for place in (AT_WORK, ("before", step), ("after", step))]
        for nth in count():
            if not share.goes_on(found):
                break
            place, pause = share.place(places, nth), _Pause(world, (one, two))
            if isinstance(place, str):
                pause.at_work(share.chance.uniform(0, sum(took.values())))
            else:
                pause.at_step(*place)
            pause.end(share.chance.uniform(0, WAKES), found)
            found.wrong += ended(world, one, left=False)
        world.push(ONE, "terms")  # by the end of which what was woken last has had its time
        found.wrong += ended(world, one)
    return found


class _Pause:
    """One of them."""

    def __init__(self, world: World, services: tuple[Service, Service]) -> None:
        self._world, self._services = world, services
        self._woken = Event()
        self._stopped: tuple[Service, RunRecord, str] | None = None  # which, the run that it had, and at what it was
        self._meant = ""

    def at_work(self, seconds: float) -> None:
        """Stop the service that builds what is released now, after so many seconds; neither, when it is done by then."""
        self._world.push(ONE, "weights")
        self._meant = AT_WORK
        came(self._services[0], lambda: self._run() is not None)
        until(lambda: self._run() is None, seconds)
        self._stop("")

    def at_step(self, when: str, step: Step) -> None:
        """Stop the one that publishes what is released now at a step; `before`, the Hub gets to see that only when the service is woken."""
        seen = count(1)
        self._meant = f"{when} {step.name}"

        def rule(request: Request) -> Fault | None:
            if self._stopped or step_of(request) != step.name or self._run() is None or next(seen) != step.number:
                return None
            self._stop(self._meant)
            if when == "before":
                self._woken.wait(TAKEN + WAKES)
            return None

        with self._world.ruled(rule):
            self._world.push(ONE, "terms")
            came(self._services[0], lambda: self._run() is not None)
            came(self._services[0], lambda: self._stopped is not None or self._run() is None)

    def end(self, seconds: float, found: Found) -> None:
        """Wake it, so many seconds after the other service took its run."""
        if self._stopped is None:
            found.wrong += [f"not stopped: the publication never came to it, {self._meant}"] if self._meant != AT_WORK else []
            return
        stopped, run, at = self._stopped
        taken = until(lambda: stopped.store.run(run.id).lease != run.lease, TAKEN)
        if taken:
            time.sleep(seconds)
        elif _writable(stopped, run):
            found.wrong.append(f"lost: nobody took over the run of a service that was stopped for {TAKEN:.0f} s, {at}")
        stopped.process.send_signal(signal.SIGCONT)
        self._woken.set()
        found.done[at if taken else f"{at}, holding the database"] += 1

    def _run(self) -> RunRecord | None:
        """The run of what was pushed last, while one of the services carries it out."""
        run = next(iter(self._services[0].store.runs(limit=1)), None)
        return run if run is not None and run.state == "running" and run.release.sha == self._world.newest else None

    def _stop(self, at: str) -> None:
        run = self._run()
        chosen = next((each for each in self._services if run is not None and each.has(run)), None)
        if run is not None and chosen is not None:
            chosen.process.send_signal(signal.SIGSTOP)
            self._stopped = chosen, run, at or chosen.place()


def _writable(running: Service, run: RunRecord) -> bool:
    """Whether the database can be written; a service that was stopped in the middle of that keeps all others from it."""
    try:
        running.store.prove_lease(run.id, run.lease)
    except SQLAlchemyError:
        return False
    except LeaseLost:
        return True
    return True
