"""How much quicker a run is on several machines: `python -m bench.nodes` starts a Ray cluster of simulated nodes on this one, and prints seconds and speed-up.

The stages of the run wait and do not compute, so that nodes which share this machine's processors do not stand in one another's way; everything around
them is real: the graph, the database, the tasks, and each stage's files, which travel through the store. Each node has been given a stage before the clock
starts, for what a node's first stage takes is spent on importing torch.
"""

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi

from config.settings import Settings
from config.words import Release
from config.written import load_recipe
from service.cluster.tasks import RayPlace
from service.execution.kept import StageStore
from service.release import abreast
from service.release.graph import Call, Data, Phase, Stage, graph_of
from service.release.job import Job
from service.release.work import Work
from service.store import RunOrder, open_store

NODES = (1, 2, 4)
OBJECTS = 80 * 2**20  # bytes of each node's object store: the least that Ray takes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.nodes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0, help="that each of them waits")
    parser.add_argument("--store", help="URL of the store; default: a folder")
    given = parser.parse_args()
    with TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as name, cluster(Path(name)) as nodes:
        folder = Path(name)
        url = given.store or f"file://{folder / 'store'}"
        print(f"{given.stages} stages that wait {given.seconds:g} s each, files through {url.partition('://')[0]}://")
        print(f"{'nodes':>5} {'seconds':>8} {'speed-up':>9} {'of linear':>10}")
        alone = None
        for count in NODES:
            nodes.number(count)
            settings = Settings(home=folder / f"home-{count}", executor="ray", store_url=url, threads=1)
            run(settings, url, stages=4 * count, seconds=1.0, of="warm")
            seconds = run(settings, url, stages=given.stages, seconds=given.seconds, of="timed")
            alone = alone or seconds
            print(f"{count:5} {seconds:8.1f} {alone / seconds:9.2f} {alone / seconds / count:10.2f}", flush=True)


def run(settings: Settings, url: str, *, stages: int, seconds: float, of: str) -> float:
    """Seconds that a run takes whose stages do not take one another's products."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    text = settings.folder / "text"
    text.write_text(of, encoding="utf-8")
    store = open_store(f"sqlite:///{settings.folder / f'{of}.db'}")
    release = Release(repo="nobody/nothing", sha="0" * 40)
    record, _ = store.enqueue(RunOrder(release=release, recipe="default", recipe_digest="0" * 64, namespace="nobody", trigger="bench"))
    place = RayPlace.of(settings, url, print)
    job = Job(store=store, run=record, recipe=load_recipe("default"), settings=settings, stages=StageStore(settings.folder), place=place)
    calls = [
        Call(function="bench.waiting:wait", inputs={"text": Data(path=text)}, params={"number": number, "seconds": seconds}, threaded=False)
        for number in range(stages)
    ]
    graph = graph_of(Stage(name=f"wait {number}", phase=Phase.BUILD, does="wait", work=call) for number, call in enumerate(calls))
    began = time.monotonic()
    abreast.carry_out(Work(job=job, api=HfApi(endpoint="http://127.0.0.1:1", token=False), graph=graph))
    took = time.monotonic() - began
    assert len(store.stages(record.id)) == stages
    assert {item.state for item in store.stages(record.id)} == {"done"}
    job.stages.close()
    store.close()
    return took


@dataclass
class Nodes:
    """A cluster whose nodes are processes of this machine."""

    cluster: Any
    folder: Path
    alive: list[Any] = field(default_factory=list)

    def number(self, wanted: int) -> None:
        """Have so many nodes at least, each with one processor and a cache of its own."""
        while len(self.alive) < wanted:
            os.environ["SLUICE_CACHE"] = str(self.folder / f"node-{len(self.alive)}")
            self.alive.append(self.cluster.add_node(num_cpus=1, memory=2**31, object_store_memory=OBJECTS, include_dashboard=False))
            del os.environ["SLUICE_CACHE"]


@contextmanager
def cluster(folder: Path) -> Iterator[Nodes]:
    """A cluster that has no node yet that works; this program is connected to it when it first asks for a place."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_TMPDIR": str(folder)}
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": OBJECTS, "include_dashboard": False})
    os.environ["RAY_ADDRESS"] = made.address
    try:
        yield Nodes(cluster=made, folder=folder)
    finally:
        ray.shutdown()
        made.shutdown()


if __name__ == "__main__":
    main()
