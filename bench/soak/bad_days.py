"""Runs while one request in thirty meets what Hubs and networks do on bad days."""

import time
from collections import Counter
from itertools import count

from bench.faulty import Fault, Request
from bench.soak.ending import MODEL
from bench.soak.found import Found
from bench.soak.share import Share
from bench.soak.world import Service, World, service
from service.store.queue import FINISHED
from service.store.records import RunFilter

MODELS = 5  # that a world releases: those that wait for the Hub leave the service the others
FILES = 10  # releases, one of which changes what is in the files and the others what is beside them
JUDGED = 25  # runs after which what is on the Hub is looked at
LONGEST = 3600.0  # seconds that a run may wait for a Hub that has bad days: six looks in a row that meet a fault come to twenty minutes, as each wait doubles
RARE = 1 / 30  # of the requests
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


def bad_days(world: World, share: Share) -> Found:
    """So many runs. A model's next release comes when the run of the last one has ended, so that none waits for another."""
    found, serial = Found("bad days", share.number, met=Counter(dict.fromkeys(map(_called, BAD_DAYS), 0))), count()

    def rule(request: Request) -> Fault | None:
        if share.chance.random() >= RARE:
            return None
        fault = share.chance.choice(BAD_DAYS)
        found.met[_called(fault)] += 1
        return fault

    with service(world) as running:
        waiting = dict[str, tuple[str, float]]()  # of each model its newest release, and when it came
        with world.ruled(rule):
            while share.goes_on(found):
                _take(world, running, waiting, found)
                for repo in [name for name in map(MODEL.format, range(MODELS)) if name not in waiting]:
                    waiting[repo] = (world.push(repo, "terms" if next(serial) % FILES else "advice"), time.monotonic())
                time.sleep(1)
        while waiting:
            _take(world, running, waiting, found)
            time.sleep(1)
        found.wrong += world.judge.faults() + world.lost()
    return found


def _take(world: World, running: Service, waiting: dict[str, tuple[str, float]], found: Found) -> None:
    """Take the releases whose runs have ended out of those that wait, and say what is wrong with them."""
    running.run()  # which looks whether the service is still there
    for repo, (sha, came) in list(waiting.items()):
        run = next((run for run in running.store.runs(limit=1, wanted=RunFilter(repo=repo)) if run.release.sha == sha), None)
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
