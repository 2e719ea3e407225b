"""A whole release over a cluster, a node of which is killed while it builds: published as by one machine, and by the service alone."""

import threading
from pathlib import Path

import pytest

from service.execution.workbench import Event
from service.release import foreground
from service.release.intake import ReleaseRequest
from service.store import open_store
from tests.service.cluster.conftest import Nodes
from tests.service.conftest import Upstream
from tests.service.s3 import S3

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_release_goes_its_whole_way_although_a_node_is_killed(nodes: Nodes, s3: S3, upstream: Upstream, postgres_url: str, tmp_path: Path) -> None:
    nodes.number(3)
    settings = upstream.settings.with_(executor="ray", store_url=f"{s3.url}/{tmp_path.name}", threads=1, database_url=postgres_url, watch=())
    events, killers = list[Event](), list[threading.Timer]()

    def killed() -> None:
        nodes.kill(next(iter(nodes.alive)))  # one is added by the main thread only: Ray sets handlers of signals then

    def heard(event: Event) -> None:
        events.append(event)
        if not killers and event.state == "progressed" and event.stage.startswith(("imatrix", "build", "divergence", "sensitivity")):
            killers.append(threading.Timer(0.0, killed))
            killers[0].start()

    recipe = str(ROOT / "tests" / "acceptance" / "recipe.yaml")
    summary = foreground.run(settings, ReleaseRequest(repo="upstream/model", revision="main", recipe=recipe, trigger="command"), heard)
    for killer in killers:
        killer.join()
    assert killers, "no stage was caught at work"
    assert summary["state"] == "done", summary["error"]
    store = open_store(postgres_url)
    try:
        assert store.publications(summary["run"])
        assert {stage.state for stage in store.stages(summary["run"])} <= {"done", "reused"}
    finally:
        store.close()
    running = peak = 0
    for event in events:
        running += {"started": 1, "done": -1, "failed": -1, "reused": -1}.get(event.state, 0) if not event.stage.startswith("gates") else 0
        peak = max(peak, running)
    assert peak > 1, "several stages were at work at once"
