"""A service under everything that months bring, against the embedded Hub: `python -m bench.soak`.

Kills it at every stage and at every step of a publication, before and after the Hub has carried it out; puts a proxy before the Hub that does what Hubs and
networks do on bad days; stops one of two services for longer than its lease; takes the disk away; polls for long; lets days pass by a clock that is set. After
each of these the Hub itself is read: nothing may be half published, published twice, or replaced by something older, no process may be left, and in the end
the newest release of every model has to be there. A part that --minutes cuts short is a failure, unless --partly is given.
"""

import argparse
import logging
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog
from huggingface_hub import constants
from huggingface_hub.utils.tqdm import disable_progress_bars

from bench.faulty import Fault, Request
from bench.program import SLUICE
from bench.soak.found import Found
from bench.soak.hours import hours
from bench.soak.steps import Step, step_of, steps
from bench.soak.world import Service, World, service, until, world
from config.written import load_recipe
from service.release.way import way
from service.store.lease import LEASE_SECONDS
from service.store.queue import FINISHED

MODEL = "upstream/model-{}"
FOLLOWS = 30.0  # seconds within which what follows a run is done
LONGEST = 1200.0  # seconds that a run may wait for a Hub that has bad days
MODELS = 20  # that are released on bad days
FILES = 10  # releases on bad days, one of which changes what is in the files and the others what is beside them
JUDGED = 50  # runs after which what is on the Hub is looked at
PATIENCE = 300.0  # seconds that a run may take until the next thing happens
BAD_DAYS: tuple[Fault, ...] = (
    Fault(answer=429, headers={"Retry-After": "1"}),
    Fault(answer=500),
    Fault(answer=502),
    Fault(answer=503, headers={"Retry-After": "0"}),
    Fault(cut=0),
    Fault(cut=40),
    Fault(lose=True),
    Fault(stall=True),
    Fault(answer=401, said="Invalid credentials in Authorization header"),
    Fault(rate=100.0),
    Fault(choke=True),
)
Part = Callable[[World, int, float], Found]
"""Of a world, how often, and until when."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (number, _, told) in PARTS.items():
        parser.add_argument(f"--{name}", type=int, default=number, help=f"{told} ({number})")
    parser.add_argument("--minutes", type=float, default=60.0, help="for each part at most (60)")
    parser.add_argument("--partly", action="store_true", help="a part that is cut short is no failure")
    given = parser.parse_args()
    constants.HF_HUB_DISABLE_XET = True  # the embedded Hub stores files by LFS
    disable_progress_bars()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # of what runs in this process
    bad = False
    for name, (_, part, _) in PARTS.items():
        if wanted := getattr(given, name):
            with TemporaryDirectory(prefix="sluice-soak-") as folder, world(Path(folder)) as built:
                began = time.monotonic()
                found = part(built, wanted, began + 60 * given.minutes)
                found.tell(began)
                bad = bad or bool(found.wrong) or (found.short and not given.partly)
    raise SystemExit(1 if bad else 0)


def kills(world: World, number: int, until_when: float) -> Found:
    """SIGKILL at each stage in turn, and at each step of a publication, before the Hub gets it and after it has carried it out."""
    found, new = Found("SIGKILL", number), count(2)
    writes = _undisturbed(world)
    stages = [f"stage {stage.name}" for stage in way(load_recipe(str(world.recipe))).stages]
    named: list[str | tuple[str, Step]] = [*stages, *((when, step) for step in writes for when in ("before", "after"))]
    targets = cycle(named)
    world.push(MODEL.format(1))
    while found.done.total() < number and time.monotonic() < until_when:
        target = next(targets)
        with service(world) as running:
            if isinstance(target, str):
                found.done[_killed_at_stage(world, running, target.removeprefix("stage "), found)] += 1
            else:
                when, step = target
                if _killed_at_step(world, running, when, step, MODEL.format(next(new)), found):
                    found.done[f"{when} {step.name}"] += 1
        found.wrong += world.judge.faults()
    with service(world) as running:
        found.wrong += ended(world, running)
    return found


def _undisturbed(world: World) -> list[Step]:
    """The steps of a publication that nobody disturbs, the first one of its repo."""
    world.push(MODEL.format(0))
    with service(world) as running:
        if problems := ended(world, running):
            raise SystemExit(f"The undisturbed run did not end well: {'; '.join(problems)}")
    found = steps(world.proxy.seen)
    print(f"steps of a publication: {', '.join(map(str, found))}", flush=True)
    return found


def _killed_at_stage(world: World, running: Service, stage: str, found: Found) -> str:
    """Let the newest run come to the stage, and kill it there; where it was killed."""

    def there() -> bool:
        return running.stages().get(stage) in ("running", "done", "reused") and running.at_work

    if not until(lambda: there() or running.over, PATIENCE):
        found.wrong.append(f"lost: stage {stage} was not reached in {PATIENCE:.0f} s")
    if running.over:
        world.push(MODEL.format(1))
        until(lambda: not running.over, PATIENCE)
    time.sleep(random.uniform(0, 0.2))  # noqa: S311
    at = running.working() or "between stages"
    found.wrong += [f"left running: process {pid}, of {at}" for pid in running.kill()]
    return at


def _killed_at_step(world: World, running: Service, when: str, step: Step, repo: str, found: Found) -> bool:
    """Kill before or after a step of the first publication of what is new on the Hub, for later ones have fewer; whether it came to that."""
    killed: list[str] = []
    seen = count(1)

    def kill() -> None:
        killed.append(str(step))
        found.wrong.extend(f"left running: process {pid}, {when} {step}" for pid in running.kill())

    def rule(request: Request) -> Fault | None:
        if killed or step_of(request) != step.name or next(seen) != step.number:
            return None
        if when == "after":
            return Fault(lose=True, then=kill)
        kill()
        return Fault(cut=0)

    if not until(lambda: running.run() is None or running.over, PATIENCE):  # what the service before this one was killed at
        found.wrong.append(f"lost: what was left off is not over after {PATIENCE:.0f} s")
    with _rule(world, rule):
        sha = world.push(repo)
        until(lambda: bool(killed) or (running.over and (run := running.run()) is not None and run.release.sha == sha), PATIENCE)
        until(lambda: bool(killed), FOLLOWS)  # what follows a run, as its place in a collection, is asked when it is over
        until(lambda: not killed or running.process.poll() is not None, PATIENCE)
    if not killed:
        found.wrong.append(f"not killed: the publication of {repo} never came to {step}")
    return bool(killed)


def bad_days(world: World, number: int, until_when: float) -> Found:
    """Runs while one request in thirty meets a fault. A model's next release comes when the run of the last one has ended, so that none waits for another."""
    found, chance, serial = Found("bad days", number), random.Random(0), count()  # noqa: S311

    def rule(request: Request) -> Fault | None:
        if chance.random() >= 1 / 30:
            return None
        fault = chance.choice(BAD_DAYS)
        found_faults[_called(fault)] += 1
        return fault

    found_faults = Counter[str]()
    with service(world) as running:
        waiting = dict[str, tuple[str, float]]()  # of each model its newest release, and when it came
        with _rule(world, rule):
            while found.done.total() < number and time.monotonic() < until_when:
                _take(world, running, waiting, found)
                for repo in [name for name in map(MODEL.format, range(MODELS)) if name not in waiting]:
                    waiting[repo] = (world.push(repo, terms=next(serial) % FILES > 0), time.monotonic())
                time.sleep(2)
        while waiting:
            _take(world, running, waiting, found)
            time.sleep(2)
        found.wrong += world.judge.faults() + world.lost()
    print(f"faults of the Hub: {', '.join(f'{name} {count}' for name, count in sorted(found_faults.items()))}")
    return found


def _take(world: World, running: Service, waiting: dict[str, tuple[str, float]], found: Found) -> None:
    """Take the releases whose runs have ended out of those that wait, and say what is wrong with them."""
    running.run()  # which looks whether the service is still there
    runs = {run.release.sha: run for run in running.store.runs(limit=50 * MODELS)}
    for repo, (sha, came) in list(waiting.items()):
        run = runs.get(sha)
        if run is not None and run.state in FINISHED:
            found.done[run.state] += 1
            found.wrong += [f"failed for good: {run.error}"] if run.state == "failed" else []
            if found.done.total() % JUDGED == 0:
                found.wrong += world.judge.faults()
        elif time.monotonic() < came + LONGEST:
            continue
        else:
            found.wrong.append(f"lost: the run of {repo} at {sha[:12]} is {'not there' if run is None else run.state} after {LONGEST:.0f} s")
        del waiting[repo]


def _called(fault: Fault) -> str:
    named = {"lost": fault.lose, "stalled": fault.stall, "choked": fault.choke, "trickled": fault.rate, "cut": fault.cut is not None}
    return str(fault.answer or next(name for name, given in named.items() if given))


def pauses(world: World, number: int, until_when: float) -> Found:
    """Two services on one database, of which the one that works is stopped for longer than its lease."""
    found = Found("pauses", number)
    database = f"sqlite:///{world.folder / 'shared.db'}"
    with service(world, "one", database=database) as one, service(world, "two", database=database) as two:
        while found.done.total() < number and time.monotonic() < until_when:
            world.push(MODEL.format(1))
            if not until(lambda: one.at_work, PATIENCE):
                found.wrong.append("lost: no run began")
            time.sleep(random.uniform(0, 10))  # noqa: S311
            chosen = next((each for each in (one, two) if _works(each)), one)
            chosen.process.send_signal(signal.SIGSTOP)
            time.sleep(LEASE_SECONDS + 5)
            chosen.process.send_signal(signal.SIGCONT)
            found.done["stopped at work" if chosen is one else "stopped the other"] += 1
            found.wrong += ended(world, one)
            found.wrong += world.judge.faults()
    return found


def _works(each: Service) -> bool:
    """Whether this service has the lease of the newest run."""
    run = each.run()
    return run is not None and f"/{each.process.pid}/" in (run.worker or "")


def disks(world: World, number: int, until_when: float) -> Found:
    """A disk that fills up at a random moment, and is given back. Wants to mount a file system in memory, as root may."""
    found = Found("full disks", number)
    home = world.folder / "home"
    home.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", home], check=False, capture_output=True).returncode:  # noqa: S607
        print("full disks: not done, for only root may mount a small one")
        return found
    try:
        with service(world) as running:
            while found.done.total() < number and time.monotonic() < until_when:
                world.push(MODEL.format(1))
                until(lambda: running.at_work, PATIENCE)
                time.sleep(random.uniform(0, 12))  # noqa: S311
                at = running.working() or "between stages"
                with _filled(home):
                    time.sleep(5)
                found.done[at] += 1
                found.wrong += ended(world, running, retry=True)
                found.wrong += world.judge.faults()
    finally:
        subprocess.run(["umount", home], check=False)  # noqa: S607
    return found


@contextmanager
def _filled(home: Path) -> Iterator[None]:
    """The disk without a byte to spare."""
    ballast = home / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65_536))
        except OSError:
            pass
    try:
        yield
    finally:
        ballast.unlink()


def polls(world: World, number: int, until_when: float) -> Found:
    """Memory of a service that does nothing but poll."""
    found = Found("polls", number)
    world.push(MODEL.format(1))
    with service(world, poll_minutes=0.005) as running:
        found.wrong += ended(world, running)
        before = _after(world, number // 10, until_when)
        early = running.memory()
        polled = _after(world, number - before, until_when)
        late = running.memory()
        found.done["polls"] = before + polled
        print(f"memory after {before} polls {early / 1e6:.1f} MB, after {before + polled} {late / 1e6:.1f} MB")
        if late > 1.03 * early:
            found.wrong.append(f"memory grew by {(late - early) / 1e6:.1f} MB")
    return found


def _after(world: World, number: int, until_when: float) -> int:
    """Wait for so many polls; how many there were."""
    began = world.proxy.count("GET", "/api/models?")
    until(lambda: world.proxy.count("GET", "/api/models?") - began >= number or time.monotonic() > until_when, 3600, every=0.2)
    return world.proxy.count("GET", "/api/models?") - began


def ended(world: World, running: Service, *, retry: bool = False) -> list[str]:
    """Let the run of what was pushed last end; what is wrong then."""
    newest = next(reversed(world.pushed.values()))[-1]

    def over() -> bool:
        run = running.run()
        return run is not None and run.release.sha == newest and run.state in FINISHED

    if not until(over, PATIENCE, every=0.2):
        run = running.run()
        return [f"lost: no run of {newest[:12]} ended in {PATIENCE:.0f} s; {'there is none' if run is None else f'{run.state}: {run.error}'}"]
    run = running.run()
    if retry and run is not None and run.state == "failed":
        subprocess.run([SLUICE, "--config", running.home / "sluice.yaml", "retry", str(run.id)], check=False)
        return ended(world, running)
    failed = [] if run is None or run.state == "done" else [f"ended as {run.state}: {run.error}"]
    return failed + world.judge.faults() + world.lost() + [f"left on the Hub: branch {name}" for name in world.judge.branches()]


@contextmanager
def _rule(world: World, rule: Callable[[Request], Fault | None]) -> Iterator[None]:
    before, world.proxy.rule = world.proxy.rule, rule
    try:
        yield
    finally:
        world.proxy.rule = before


PARTS: dict[str, tuple[int, Part, str]] = {
    "kills": (200, kills, "SIGKILLs, at every stage and every write to the Hub"),
    "runs": (1000, bad_days, "runs through a Hub that has bad days"),
    "pauses": (50, pauses, "stops of one of two services for longer than its lease"),
    "disks": (20, disks, "disks that are full for a while"),
    "polls": (500, polls, "polls, after which memory is compared"),
    "hours": (72, hours, "hours of a clock that is set, with retention on"),
}

if __name__ == "__main__":
    main()
