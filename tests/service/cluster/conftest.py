"""A Ray cluster of small nodes on this machine, whose files travel through a server that speaks S3."""

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings
from service.execution.kept import StageStore
from service.execution.workbench import Event, Workbench
from tests.service.s3 import S3, served

SMALL = {"object_store_memory": 80 * 2**20, "include_dashboard": False}  # bytes: the least that Ray takes
GIB = 2**30
STARTED = 300.0  # seconds within which a node is there
# Nothing of the cluster ends because other programs use the machine: Ray gives a worker a minute to start, and ends workers where little memory is free.
PATIENT = {
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_memory_monitor_refresh_ms": "0",
}


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A server that this process and what it starts may write to."""
    with served(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        yield server


@dataclass(kw_only=True)
class Nodes:
    """The cluster, to which nodes are added and of which some are killed."""

    cluster: Any
    caches: Path
    count: int = 0
    alive: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str = "", *, cpus: int = 1, environment: dict[str, str] | None = None, **more: Any) -> str:
        """A node with a cache of its own, and perhaps other variables in its environment; its name."""
        self.count += 1
        name = name or f"node-{self.count}"
        own = {"SLUICE_CACHE": str(self.caches / name), "SLUICE_TEST_NODE": name, **(environment or {})}
        before = {key: os.environ.get(key) for key in own}
        os.environ.update(own)  # Ray starts a node in the environment of whoever asks for it
        try:
            self.alive[name] = self.cluster.add_node(wait=False, num_cpus=cpus, memory=more.pop("memory", 2 * GIB), **SMALL, **more)
            self.cluster._wait_for_node(self.alive[name], timeout=STARTED)  # Ray itself waits half a minute, whatever else the machine does
        finally:
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.__setitem__(key, value)
        return name

    def kill(self, name: str) -> None:
        """End a node as a power cut would, and all that runs on it."""
        self.cluster.remove_node(self.alive.pop(name), allow_graceful=False)

    def number(self, wanted: int) -> None:
        """See to it that so many nodes are alive."""
        while len(self.alive) > wanted:
            self.kill(next(iter(self.alive)))
        while len(self.alive) < wanted:
            self.add()


@pytest.fixture(scope="module")
def nodes(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A cluster without a node that works, to which this process is connected when it first asks for a place."""
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed: `make test-ray` does that, or pip install -r requirements-ray.lock")
    from ray.cluster_utils import Cluster

    # the paths of its sockets must be short, and nothing of it is to stay
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as short:
        patch.setenv("RAY_TMPDIR", short)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        for variable, value in PATIENT.items():
            patch.setenv(variable, value)
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **SMALL})
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield Nodes(cluster=cluster, caches=tmp_path_factory.mktemp("caches"))
        ray.shutdown()
        cluster.shutdown()


@dataclass(kw_only=True)
class Bench:
    """A workbench whose place is the cluster."""

    bench: Workbench
    events: list[Event]
    said: list[str]

    def apart(self, name: str, function: str, *args: Any, **params: Any) -> Any:
        return self.bench.apart(name, f"tests.service.stage_functions:{function}", *(args or ({},)), threaded=False, **params)


@pytest.fixture
def bench_at(nodes: Nodes, s3: S3, tmp_path: Path) -> Callable[..., Bench]:
    """A workbench on the cluster, with a home of its own and changed settings."""

    def make(**changes: Any) -> Bench:
        from service.cluster.tasks import RayPlace

        settings = Settings(home=tmp_path / "home", executor="ray", store_url=f"{s3.url}/{tmp_path.name}", threads=1, hub_patience=20).with_(**changes)
        events, said = list[Event](), list[str]()
        assert settings.store_url is not None
        place = RayPlace.of(settings, settings.store_url, said.append)
        bench = Workbench(settings=settings, stages=StageStore(settings.folder), listener=events.append, place=place)
        return Bench(bench=bench, events=events, said=said)

    return make
