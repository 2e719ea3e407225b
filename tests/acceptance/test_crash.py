"""Kill the process anywhere, start it again, and the run ends as if nothing had happened."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import NAMESPACE, PROGRAMS, RECIPE, UPSTREAM, Hub, environment, sluice, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

COMMAND = ("run", UPSTREAM, "--recipe", RECIPE, "--json")


def killed_after(hub: Hub, home: Path, stages: int) -> None:
    """Start the run and SIGKILL it once so many stages are finished and the next one works."""
    with subprocess.Popen(
        [PROGRAMS / "sluice", *COMMAND], env=environment(**hub.environment(home)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        finished, working = home / "stages", home / "working"

        def deep_enough() -> bool:
            assert process.poll() is None, "the run ended before it could be killed"
            return len(list(finished.glob("*"))) >= stages and any(working.glob("*.lock"))

        wait_until(deep_enough, seconds=300, what=f"{stages} finished stages")
        time.sleep(0.3)  # into the stage
        process.send_signal(signal.SIGKILL)


def comparable(summary: dict[str, Any]) -> dict[str, Any]:
    """What must be equal in two runs of the same recipe on the same release."""
    return {
        "state": summary["state"],
        "patches": summary["patches"],
        "variants": summary["variants"],
        "files": {item["repo"]: item["files"] for item in summary["publications"]},
    }


def published_digests(hub: Hub) -> dict[str, str | None]:
    files = hub.publisher.model_info(f"{NAMESPACE}/tiny-chat-GGUF", files_metadata=True).siblings or []
    return {file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id for file in files}


def test_a_run_killed_again_and_again_ends_like_an_undisturbed_one(hub: Hub, tmp_path: Path) -> None:
    undisturbed = sluice(*COMMAND, **hub.environment(tmp_path / "undisturbed"))
    assert undisturbed.returncode == 3, undisturbed.stderr
    expected, digests = json.loads(undisturbed.stdout), published_digests(hub)
    hub.publisher.delete_repo(f"{NAMESPACE}/tiny-chat-GGUF")

    home = tmp_path / "disturbed"
    for stages in (0, 2, 5, 8, 10):
        killed_after(hub, home, stages)
        assert not hub.publisher.repo_exists(f"{NAMESPACE}/tiny-chat-GGUF"), "nothing half-published"
    finished = sluice(*COMMAND, **hub.environment(home))
    assert finished.returncode == 3, finished.stderr
    assert comparable(json.loads(finished.stdout)) == comparable(expected)
    assert published_digests(hub) == digests
    assert len(hub.commits(f"{NAMESPACE}/tiny-chat-GGUF")) <= 2, "the Hub's initial commit and ours"
    assert list((home / "working").iterdir()) == [], "no temporary files stay"
