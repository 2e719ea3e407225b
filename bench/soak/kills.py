"""SIGKILL at each stage in turn, and at each step of a publication, before the Hub gets it and after it has carried it out."""

import time
from itertools import count

from bench.faulty import Fault, Request
from bench.soak.ending import ONE, came, ended, undisturbed
from bench.soak.found import Found
from bench.soak.share import Share
from bench.soak.steps import Step, step_of
from bench.soak.world import Service, World, service, until

FOLLOWS = 30.0  # seconds within which what follows a run is done
REACHED = ("running", "done", "reused")
LONGEST = 5.0  # seconds into a stage after which it is killed, at most


def kills(world: World, share: Share) -> Found:
    """So many, each followed by a service that goes on with what was left off.

    Stages are killed while a release with other weights is built, of which nothing was built before. At steps a release is killed that goes to an account where
    nothing is yet, for a first publication has all steps; nothing need be built for that, so that what was killed before is all that takes time.
    """
    found = Found("kills", share.number)
    with service(world) as running:
        writes, took = undisturbed(world, running, "advice")
    places: list[str | tuple[str, Step]] = [*took, *((when, step) for step in writes for when in ("before", "after"))]
    for nth in count():
        if not share.goes_on(found):
            break
        place = share.place(places, nth)
        if isinstance(place, str):
            with service(world) as running:
                found.done[_killed_at_stage(world, running, place, share.chance.uniform(0, min(took[place], LONGEST)), found)] += 1
        else:
            when, step = place
            world.move()
            sha = world.push(ONE, "terms")
            with service(world) as running:
                if _killed_at_step(world, running, sha, place, found):
                    found.done[f"{when} {step.name}"] += 1
        found.wrong += world.judge.faults()
    with service(world) as running:
        found.wrong += ended(world, running)
    return found


def _killed_at_stage(world: World, running: Service, stage: str, seconds: float, found: Found) -> str:
    """Let the newest run come to the stage, or a new one when it is over, and kill it there after some seconds; where it was killed."""

    def there() -> bool:
        run = running.run()
        return run is not None and run.state == "running" and running.stages(run.id).get(stage, ("", 0.0))[0] in REACHED

    for _ in range(2):
        if not came(running, lambda: there() or running.over):
            found.wrong.append(f"lost: stage {stage} was not reached")
        if not running.over:
            break
        world.push(ONE, "weights")
        came(running, lambda: not running.over)
    time.sleep(seconds)
    at = running.place()
    found.wrong += [f"left running: process {pid}, {at}" for pid in running.kill()]
    return at


def _killed_at_step(world: World, running: Service, sha: str, place: tuple[str, Step], found: Found) -> bool:
    """Kill before or after a step of the publication of that commit where services publish now; whether it came to that."""
    when, step = place
    killed: list[str] = []
    seen = count(1)

    def begun() -> bool:
        run = next(iter(running.store.runs(limit=1)), None)  # what the service before this one was killed at has its turn before that
        return run is not None and (run.release.sha, run.namespace) == (sha, world.namespace) and run.state != "queued"

    def kill() -> None:
        killed.append(str(step))
        found.wrong.extend(f"left running: process {pid}, {when} {step}" for pid in running.kill())

    def rule(request: Request) -> Fault | None:
        if killed or step_of(request) != step.name or not begun() or next(seen) != step.number:
            return None
        if when == "after":
            return Fault(lose=True, then=kill)
        kill()
        return Fault(cut=0)

    with world.ruled(rule):
        came(running, lambda: bool(killed) or (begun() and running.over))
        until(lambda: bool(killed), FOLLOWS)  # what follows a run, as its place in a collection, is asked when it is over
        until(lambda: not killed or running.process.poll() is not None, FOLLOWS)
    if not killed:
        found.wrong.append(f"not killed: the publication for {world.namespace} never came to {step}")
    return bool(killed)
