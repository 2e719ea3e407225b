"""What a person sees of a run that works: in a pipe, by another command that follows it, and over the API's own words."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.conftest import PROGRAMS, UPSTREAM, Hub, environment, slow_recipe, sluice, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

AT_WORK = re.compile(r"^· +\d+\.\d s  (?P<stage>\S.*?)  [\d,.]+ of [\d,.]+ \w+, .*\d (s|min) left", re.MULTILINE)


def started(*arguments: str | Path, **extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PROGRAMS / "sluice", *arguments], env=environment(**extra), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_run_says_how_far_it_has_come_and_how_long_it_will_take(hub: Hub, tmp_path: Path) -> None:
    extra, recipe = hub.environment(tmp_path, SLUICE_PROGRESS_SECONDS="0.5"), slow_recipe(tmp_path)
    foretold = json.loads(sluice("run", UPSTREAM, "--recipe", recipe, "--dry-run", "--json", **extra).stdout)
    assert foretold["targets"] == {"acme/tiny-chat-GGUF": ["Q4_K_M", "IQ1_S"]}
    assert {gate["name"]: gate["condition"] for gate in foretold["gates"]}["divergence"] == "at most 0.15"
    assert not any(stage["reused"] for stage in foretold["stages"])
    with started("run", UPSTREAM, "--recipe", recipe, **extra) as run:

        def looked() -> dict[str, object]:
            """The run's summary while a stage works that has said how far it came."""
            assert run.poll() is None, "the run ended before anybody saw it work"
            told = sluice("status", "1", "--json", **extra)
            document = json.loads(told.stdout) if told.returncode == 0 and told.stdout else {}
            return document if any(stage["progress"] for stage in document.get("stages", ()) if stage["state"] == "running") else {}

        seen = wait_until(looked, seconds=300, what="a stage with progress")
        follower = started("status", "--follow", **extra)
        with follower:
            out, errors = run.communicate(timeout=600)
            followed, _ = follower.communicate(timeout=60)
    assert run.returncode == follower.returncode == 3, errors
    assert {"publish"} <= set(seen["coming"])
    assert seen["left"] > 0
    (working,) = [stage for stage in seen["stages"] if stage["state"] == "running"]
    assert 0 <= working["progress"]["done"] <= working["progress"]["total"]
    assert working["estimate"] > 0 or working["name"] not in {stage["name"] for stage in foretold["stages"]}
    assert {match["stage"] for match in AT_WORK.finditer(out)}, out
    assert "✓" in followed
    assert "run 1: done" in followed

    again = json.loads(sluice("run", UPSTREAM, "--recipe", recipe, "--dry-run", "--json", **extra).stdout)
    reused = {stage["name"] for stage in again["stages"] if stage["reused"]}
    assert {"snapshot", "convert", "imatrix", "build Q4_K_M", "divergence", "questions", "measure IQ1_S", "chat"} <= reused
    assert again["seconds"] < foretold["seconds"] / 4
