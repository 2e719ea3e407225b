"""Whether a run fits on this machine, by what it is expected to need."""

from pathlib import Path

import pytest

from config.settings import Settings
from service.release.checks.room import Room, exceeded, room
from service.release.forecast import Forecast
from service.release.graph import Needs

GIB = 2**30
EXPECTED = Forecast(
    stages={"snapshot": Needs(seconds=10, disk=4 * GIB), "sensitivity": Needs(seconds=7200, memory=10 * GIB, disk=2 * GIB)},
    kept=frozenset({"snapshot"}),
    foretold={},
)
ENOUGH = {"disk": 2 * GIB, "memory": 10 * GIB, "seconds": 7200.0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"disk": 2 * GIB - 1}, "the disk is too small"),
        ({"memory": 10 * GIB - 1}, "10.0 GiB of memory"),
        ({"seconds": 7199.0}, "sensitivity will take up to 120 minutes, and a stage is stopped after 120"),
    ],
)
def test_what_does_not_suffice_is_told_and_only_refused_where_it_is_sure(tmp_path: Path, changes: dict[str, float], words: str) -> None:
    there = Room(home=tmp_path, **{**ENOUGH, **changes})
    said = list(exceeded(EXPECTED, there))
    assert len(said) == len(changes)
    assert words in " ".join(said)
    assert list(exceeded(EXPECTED, there, surely=True)) == []


def test_far_too_little_of_everything_is_told_together(tmp_path: Path) -> None:
    assert len(list(exceeded(EXPECTED, Room(home=tmp_path, disk=GIB, memory=GIB, seconds=60), surely=True))) == 3


def test_the_settings_limit_what_a_stage_may_have(tmp_path: Path) -> None:
    there = room(Settings(home=tmp_path / "not" / "there", memory_gib=2, stage_minutes=3))
    assert (there.memory, there.seconds) == (2 * GIB, 180)
    assert there.disk > 0
