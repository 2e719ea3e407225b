"""A year of commits on a disk that does not grow, with a clock that is set.

Scaled down: the issue speaks of ten commits a day of a model of 7 MB and of 2 GB. Here it is a commit every fourth day, a fortieth of them, and files have a
hundredth of their size, so that all stays below 20 MB. What stays is decided by the newest runs and not by their number, so the bound must already be reached
after a few weeks; what grows with each run, its records, is counted for all 3,650.
"""

import os
from collections.abc import Callable
from datetime import timedelta

import pytest

from bench.clock import Clock
from config.words import Release
from service.disk.pruning import prune
from service.execution.kept import StageStore, blocks
from service.store import Artifact, Published
from tests.service.disk.conftest import Home
from tests.service.helpers import queue_run

COMMITS, EVERY = 91, timedelta(days=4)
SCALE = 100
WEIGHTS, VARIANT, SMALL = 7_000_000 // SCALE, 4_000_000 // SCALE, 200_000 // SCALE  # bytes
BOUND = 2_000_000_000 // SCALE
ALL_RUNS = 3650
RECORDS = 200_000  # bytes that a run may take in the database and in its logs: 60 stages with their files, and what was answered to each question


def release(at: Home, stages: StageStore, number: int, content: Callable[[str, int], bytes]) -> None:
    """A run of the commit of that number: every tenth brings new weights, every fifth another template, all others other words in the README."""
    weights, template = number // 10, number // 5
    made = {
        "snapshot": (f"snapshot-{number}", content(f"weights-{weights}", WEIGHTS)),
        "fix": (f"fix-{number}", content(f"weights-{weights}", WEIGHTS)),
        "convert": (f"convert-{template}", content(f"convert-{template}", WEIGHTS)),
        "build Q4_K_M": (f"q4-{template}", content(f"q4-{template}", VARIANT)),
        "build Q8_0": (f"q8-{template}", content(f"q8-{template}", WEIGHTS)),
        "report": (f"report-{number}", os.urandom(SMALL)),
    }
    run = queue_run(at.store, release=Release(repo="upstream/model", sha=f"{number:040}")).id
    at.store.lease("worker", seconds=60, run=run)
    for stage, (key, data) in made.items():
        if stages.look_up(key) is None:
            with stages.workspace(key) as workspace:
                (workspace / "files" / "model").write_bytes(data)
                stages.keep(key, workspace, {"stage": stage}, {"file": "model"}, 0.1)
        at.store.stage_reused(run, stage, key, seconds=0.1, artifacts=(Artifact(name="model", sha256="a" * 64, bytes=len(data)),))
    at.store.record_publication(run, Published(repo="ours/model-GGUF", revision=f"{number:040}", url="", files=("model",), manifest_digest="m", changed=True))
    at.store.finish(run, state="done")
    stages.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # what lies on the disk is the same beside either
def test_a_year_of_commits_stays_bounded(home: Callable[..., Home], clock: Clock) -> None:
    at, found = home(), dict[str, bytes]()
    stages, sizes = StageStore(at.settings.folder), list[int]()

    def content(name: str, size: int) -> bytes:
        return found.setdefault(name, os.urandom(size))

    for number in range(COMMITS):
        clock.at += EVERY
        release(at, stages, number, content)
        sizes.append(sum(blocks([stages.finished, stages.blobs]).values()))  # before anything goes, as it is at its largest
        prune(at.store, at.settings, now=clock.at)
    grown = sum(len(data) for data in found.values()) / max(sizes)
    assert grown > 2, "without that, the weights alone would have been several times as much"
    assert max(sizes[COMMITS // 4 :]) <= max(sizes[: COMMITS // 4]) * 1.1, "it does not grow"
    assert max(sizes) + ALL_RUNS * RECORDS / SCALE < BOUND
    last = COMMITS - 1
    assert {f"snapshot-{last}", f"fix-{last}", f"report-{last}", f"report-{last - 2}"} <= at.there
    assert f"report-{last - 3}" not in at.there
    assert at.set_aside() == []
