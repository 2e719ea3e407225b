"""A run whose cluster is away waits for it, which is nobody's failure."""

from dataclasses import replace
from pathlib import Path

import pytest

from config.errors import ClusterUnavailable
from service.execution.workbench import Event
from tests.service.release.short_way import ShortWay


def test_a_run_waits_for_its_cluster_and_is_tried_again_at_no_cost(short_way: ShortWay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed: `make test-ray` does that, or pip install -r requirements-ray.lock")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    elsewhere = replace(short_way.upstream, settings=short_way.settings.with_(executor="ray", store_url=f"file://{tmp_path}/store"))
    events, run = list[Event](), short_way.queued()
    with pytest.raises(ClusterUnavailable, match="No Ray cluster was found"):
        ShortWay(upstream=elsewhere, store=short_way.store).carried_out(run.id, events.append)
    waiting = short_way.store.run(run.id)
    assert (waiting.state, waiting.attempt, waiting.waits) == ("queued", 1, 1)
    assert waiting.due is not None
    assert "No Ray cluster was found" in str(waiting.error)
    assert events[-1].message.startswith("The run waits for the cluster, and is tried again by itself at ")
    assert short_way.carried_out(run.id)["state"] == "done"
