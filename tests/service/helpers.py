"""A run to begin with, outputs of stages made by hand, a worker at work, and patience."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
from huggingface_hub import HfApi

from config.digests import file_sha256
from config.words import GateResult, Kind, Measurement, Outcome, Release, Variant, Verdict
from service.daemon.worker import Worker
from service.execution.kept import File, Output, StageStore
from service.release.job import Job
from service.release.way import way
from service.release.work import Work
from service.store import Artifact, Published, RunOrder, RunRecord, Store, VariantRecord

SHA = "0123456789abcdef0123456789abcdef01234567"
STAGE = "quantize IQ1_S"  # of a judged run


@contextmanager
def working(worker: Worker, *, seconds: float = 30.0) -> Iterator[Worker]:
    """The worker at work in a thread until the block ends, within so many seconds of which it has to."""
    thread = threading.Thread(target=worker.work)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(timeout=seconds)
        assert not thread.is_alive()


def retag(api: HfApi, repo: str, sha: str) -> None:
    """Let the tag `stable` of the repo name this commit."""
    if any(tag.name == "stable" for tag in api.list_repo_refs(repo).tags):
        api.delete_tag(repo, tag="stable")
    api.create_tag(repo, tag="stable", revision=sha)


def queue_run(store: Store, repo: str = "upstream/model", *, again: bool = False, attempts: int | None = None, **changes: object) -> RunRecord:
    """The queued run of some release; `changes` are fields of its order."""
    return store.enqueue(order(repo, **changes), again=again, attempts=attempts)[0]


def order(repo: str = "upstream/model", **changes: object) -> RunOrder:
    """An order of a run of some release."""
    values = {"release": Release(repo=repo, sha=SHA), "recipe": "default", "recipe_digest": "d" * 64, "namespace": "ours", "trigger": "test"}
    return RunOrder(**{**values, **changes})


def judged_run(store: Store, repo: str = "upstream/model", **changes: object) -> int:
    """A run that was blocked by one gate, and published one repo."""
    run = queue_run(store, repo, **changes).id
    store.lease("worker", seconds=60, run=run)
    stage = store.stage_started(run, STAGE, "k")
    store.stage_finished(stage, state="done", seconds=2.5, artifacts=(Artifact(name="m.gguf", sha256="a" * 64, bytes=10),))
    result = GateResult(
        gate="divergence", measure="kld.mean", value=0.4, stderr=0.01, condition="at most 0.1", limit=0.1, outcome=Outcome.FAILED, reason="0.4 is above 0.1."
    )
    record = VariantRecord(
        variant=Variant(tag="IQ1_S", kind=Kind.GGUF),
        file="m.gguf",
        bytes=10,
        bpw=1.6,
        measurements=(Measurement(name="kld.mean", value=0.4, unit="nats", stderr=0.01, n=4096),),
        verdict=Verdict(tag="IQ1_S", outcome=Outcome.FAILED, reasons=("0.4 is above 0.1.",), results=(result,)),
    )
    store.record_variant(run, record, position=0)
    name = f"ours/{repo.partition('/')[2]}-GGUF"
    store.record_publication(run, Published(repo=name, revision="1" * 40, url=f"http://hub/{name}", files=("README.md",), manifest_digest="m", changed=True))
    store.finish(run, state="blocked")
    return run


def kept_file(store: Store, home: Path, run: int, stage: str, name: str, content: bytes) -> str:
    """The sha256 of a file that a stage of the run made, and that is kept under the home."""
    stages, key = StageStore(home), f"{stage}-of-{run}"
    with stages.workspace(key) as workspace:
        path = workspace / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        (made,) = stages.keep(key, workspace, {}, {}, 1.0).files
    stages.close()
    step = store.stage_started(run, stage, key, stage=stage)
    store.stage_finished(step, state="done", seconds=1.0, artifacts=(Artifact(name=made.path, sha256=made.sha256, bytes=made.bytes),))
    return made.sha256


def at_work(job: Job, products: Mapping[str, object]) -> Work:
    """A run of which some stages are done, with a Hub that nobody asks."""
    return Work(job=job, api=HfApi(endpoint="http://127.0.0.1:1"), graph=way(job.recipe), products=dict(products))


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def output(folder: Path, result: dict[str, object]) -> Output:
    """A stage's output made by hand: its folder holds `files`."""
    files = tuple(File(path=path.name, sha256=file_sha256(path), bytes=path.stat().st_size) for path in sorted((folder / "files").iterdir()) if path.is_file())
    return Output(key=folder.name, folder=folder, result=result, files=files, seconds=0)
