"""How the run of what was pushed last ended, and what is wrong then."""

import time
from collections.abc import Callable

from bench.soak.steps import Step, steps
from bench.soak.world import LOOK, Change, Service, Spoilt, World
from service.store.queue import FINISHED

MODEL = "upstream/model-{}"
ONE = MODEL.format(1)  # of parts that need no more
PATIENCE = 300.0  # seconds in which something of a run has to move
LONGEST = 1800.0  # seconds that a run may take until what is waited for, however it moves


def came(running: Service, condition: Callable[[], bool]) -> bool:
    """Whether it came true before the newest run stood still for too long, as one does that is lost; on a slow machine it only takes longer."""
    began = moved = time.monotonic()
    before = running.standing()
    while not (true := condition()) and (now := time.monotonic()) < min(moved + PATIENCE, began + LONGEST):
        time.sleep(LOOK)
        if (standing := running.standing()) != before:
            before, moved = standing, now
    return true


def ended(world: World, running: Service, *, retry: bool = False, left: bool = True) -> list[str]:
    """Let the run of what was pushed last end; what is wrong then. One that failed is tried again with `retry`, as a person would.

    Without `left`, a branch that was left on the Hub is not wrong: the next publication clears it away.
    """

    def over() -> bool:
        run = running.run()
        return run is not None and run.release.sha == world.newest and run.state in FINISHED

    if not came(running, over):
        run = running.run()
        return [f"lost: no run of {world.newest[:12]} ended; {'there is none' if run is None else f'{run.state}: {run.error}'}"]
    run = running.run()
    if retry and run is not None and run.state == "failed":
        running.told("retry", str(run.id))
        return ended(world, running, left=left)
    failed = [] if run is None or run.state == "done" else [f"ended as {run.state}: {run.error}"]
    branches = [f"left on the Hub: branch {name}" for name in world.judge.branches()] if left else []
    return failed + world.judge.faults() + world.lost() + branches


def undisturbed(world: World, running: Service, what: Change) -> tuple[list[Step], dict[str, float]]:
    """Release something that nobody disturbs: the steps of its publication, and the stages of its run with the seconds of each. Raises Spoilt when it fails."""
    before = len(world.proxy.seen)
    world.push(ONE, what)
    if problems := ended(world, running):
        raise Spoilt(f"The undisturbed run did not end well: {'; '.join(problems)}")
    run = running.run()
    assert run is not None
    return steps(world.proxy.seen[before:]), {name: seconds for name, (_, seconds) in running.stages(run.id).items()}
