"""Stages on the nodes of a cluster: what they are given, what comes back, and what becomes of them when a node, the store or the service goes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from config.digests import file_sha256
from config.errors import ClusterUnavailable, ConfigurationError, StageError, UpstreamError
from service.execution import artifacts
from service.execution.kept import Input, StageStore
from service.execution.leaving import Left, left_by
from service.execution.place import HERE
from tests.service.cluster.conftest import GIB, Bench, Nodes
from tests.service.helpers import alive, eventually
from tests.service.lines import accepting
from tests.service.s3 import BUCKET, S3

pytestmark = [pytest.mark.slow]
FUNCTIONS = "tests.service.stage_functions"
Benches = Callable[..., Bench]


@pytest.fixture
def two(nodes: Nodes) -> Nodes:
    """The cluster with two nodes."""
    nodes.number(2)
    return nodes


def note_of(path: Path) -> tuple[str, int]:
    """The node and the process of a stage that is at work."""
    eventually(lambda: path.exists() and path.read_text().endswith("\n"), 180)
    node, pid = path.read_text().splitlines()[-1].split()
    return node, int(pid)


def test_a_stage_makes_the_same_on_a_node_and_is_found_again_here(two: Nodes, bench_at: Benches, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "large.bin").write_bytes(os.urandom(9 * 2**20))
    (folder / "empty").write_bytes(b"")
    inputs = {"folder": Input.of(folder), "files": [Input.of(folder / "sub" / "large.bin"), Input.of(folder / "empty")]}
    at = bench_at()
    there = at.apart("copy", "copy", inputs)
    assert {file.path: file.sha256 for file in there.files} == {
        "folder/sub/large.bin": file_sha256(folder / "sub" / "large.bin"),
        "folder/empty": file_sha256(folder / "empty"),
        "large.bin": file_sha256(folder / "sub" / "large.bin"),
        "empty": file_sha256(folder / "empty"),
    }
    assert there.result == {"folder": "given"}
    here = replace(at.bench, place=HERE).apart("copy", f"{FUNCTIONS}:copy", inputs, threaded=False)
    assert (here.key, here.files, here.result) == (there.key, there.files, there.result)
    assert [event.state for event in at.events] == ["started", "done", "started", "reused"]


def test_log_progress_and_errors_reach_the_service_with_its_own_paths(two: Nodes, bench_at: Benches, tmp_path: Path) -> None:
    at = bench_at()
    made = at.apart("where", "where", seconds=1.5)
    assert made.result["node"] in two.alive
    log = at.bench.logs / "where.log"
    assert log.read_text().startswith(f"at work on {made.result['node']}\n")
    assert "s of processor time" in log.read_text()
    assert [event.progress.done for event in at.events if event.progress] == [1, 2]
    with pytest.raises(UpstreamError, match="^the model is broken; use another$"):
        at.apart("refuse", "refuse")
    text = tmp_path / "text"
    text.write_text("ab")
    with pytest.raises(StageError, match="KeyError") as caught:
        at.apart("stumble", "stumble", {"text": at.bench.data(text)})
    assert f"It read {text}. {at.bench.logs / 'stumble.log'} has all that is known" in str(caught.value)
    assert "Traceback" in (at.bench.logs / "stumble.log").read_text()
    with pytest.raises(StageError, match=r"(?s)SIGKILL \(probably out of memory\).*about to die"):
        at.apart("die", "die")
    assert at.said == [], "a stage's own end is no loss of its machine"
    assert not list(at.bench.stages.working.iterdir())


def test_a_stage_gets_the_processors_it_asks_for_but_no_more_than_a_node_has(two: Nodes, bench_at: Benches) -> None:
    at = bench_at(threads=64)
    made = at.bench.apart("threads", f"{FUNCTIONS}:threads_given", {})
    assert made.result == {"threads": 1, "libraries": "1"}


def test_requests_decide_which_node_does_it(two: Nodes, bench_at: Benches) -> None:
    from service.execution.place import Request

    large = two.add("large", memory=6 * GIB)
    gpu = two.add("gpu", num_gpus=1)
    try:
        at = bench_at()
        at.bench.requests = {"much": Request(memory=5 * GIB), "drawn": Request(gpu=True), "huge": Request(memory=2000 * GIB)}
        assert at.apart("much", "where").result["node"] == large
        assert at.apart("huge", "where", note="").result["node"] == large, "an estimate that no node meets is no reason to wait for ever"
        assert at.apart("drawn", "where", seconds=0.1).result == {"node": gpu, "gpus": "0"}
    finally:
        two.kill(large)
        two.kill(gpu)


def test_a_lost_node_s_stage_is_done_elsewhere(two: Nodes, bench_at: Benches, tmp_path: Path) -> None:
    at, note, made = bench_at(), tmp_path / "note", []
    thread = threading.Thread(target=lambda: made.append(at.apart("where", "where", note=str(note), seconds=8.0)))
    thread.start()
    lost, pid = note_of(note)
    two.kill(lost)
    eventually(lambda: not alive(pid))
    thread.join(90)
    assert made[0].result["node"] in two.alive, "done, and not on the node that was killed"
    assert len(note.read_text().splitlines()) == 2
    assert len(at.said) == 1
    assert "where: The node" in at.said[0]
    assert "was lost" in at.said[0]
    assert at.said[0] in (at.bench.logs / "where.log").read_text()
    assert [event.state for event in at.events if event.state != "progressed"] == ["started", "done"]


def test_who_leaves_ends_the_stage_on_its_node(two: Nodes, bench_at: Benches, tmp_path: Path) -> None:
    at, note, left = bench_at(), tmp_path / "note", threading.Event()

    def asked(whole: bool) -> None:
        if left.is_set():
            raise Left("cancelled")

    def work() -> None:
        with left_by(asked), suppress(Left):
            at.apart("where", "where", note=str(note), seconds=60.0)

    thread = threading.Thread(target=work)
    thread.start()
    _, pid = note_of(note)
    began = time.monotonic()
    left.set()
    thread.join(30)
    assert not thread.is_alive()
    eventually(lambda: not alive(pid))
    assert time.monotonic() - began < 20
    assert not list(at.bench.stages.working.iterdir())
    assert at.apart("after", "where").result["node"] in two.alive, "the node has room again"


def test_a_stage_that_takes_too_long_is_stopped_on_its_node(two: Nodes, bench_at: Benches, tmp_path: Path) -> None:
    at, note = bench_at(stage_minutes=2 / 60), tmp_path / "note"
    with pytest.raises(StageError, match="was stopped after 0 minutes; raise `stage_minutes`"):
        at.apart("where", "where", note=str(note), seconds=60.0)
    assert not alive(note_of(note)[1])


def test_no_token_reaches_a_node(two: Nodes, bench_at: Benches, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "hf_0123456789abcdefghij"
    monkeypatch.setenv("SLUICE_HUB_TOKEN", token)
    monkeypatch.setenv("HF_TOKEN", token)
    from pydantic import SecretStr

    at = bench_at(hub_token=SecretStr(token))
    environment = at.apart("environment", "environment").result["environment"]
    assert not {name for name in environment if name.startswith(("AWS_", "RAY_", "HF_TOKEN"))}
    assert token not in str(environment)
    ours = os.getpid()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (process / "cmdline").read_bytes()
            if int(process.name) != ours and b"ray" in line:
                assert token.encode() not in (process / "environ").read_bytes() + line, line
    session = Path(two.cluster.head_node.get_session_dir_path())
    assert not [path for path in session.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert not [path for path in s3.folder.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]


def test_what_the_store_lost_is_put_there_again(two: Nodes, bench_at: Benches, tmp_path: Path) -> None:
    import s3fs

    at, text = bench_at(), tmp_path / "text"
    text.write_text("ab")
    assert at.apart("shout", "shout", {"text": at.bench.data(text)}, times=1).file().path.read_text() == "AB"
    files = s3fs.S3FileSystem(use_listings_cache=False)
    root = f"{BUCKET}/tests/{tmp_path.name}/artifacts"
    digest = file_sha256(text)
    files.pipe_file(f"{root}/{digest[:2]}/{digest}", b"damaged")
    assert at.apart("shout", "shout", {"text": at.bench.data(text)}, times=2).file().path.read_text() == "ABAB"
    assert len(at.said) == 1
    assert f"The store lacked its input {digest}" in at.said[0]


def test_nothing_on_the_nodes_outlives_a_service_that_is_killed(two: Nodes, bench_at: Benches, s3: S3, tmp_path: Path) -> None:
    note = tmp_path / "note"
    program = f"""
from pathlib import Path
from config.settings import Settings
from service.cluster.tasks import RayPlace
from service.execution.kept import StageStore
from service.execution.workbench import Workbench
settings = Settings(home=Path({str(tmp_path / "other")!r}), executor="ray", store_url={s3.url!r}, threads=1)
bench = Workbench(settings=settings, stages=StageStore(settings.folder), place=RayPlace.of(settings, settings.store_url, print))
bench.apart("where", "{FUNCTIONS}:where", {{}}, threaded=False, note={str(note)!r}, seconds=300.0)
"""
    service = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[3])
    try:
        _, pid = note_of(note)
    finally:
        service.send_signal(signal.SIGKILL)
        service.wait()
    eventually(lambda: not alive(pid), 30)
    assert bench_at().apart("after", "where").result["node"] in two.alive


def test_two_stages_are_at_work_at_once_and_no_more_than_nodes_have_room_for(two: Nodes, bench_at: Benches, tmp_path: Path) -> None:
    at = bench_at()
    assert at.bench.place.lanes() == 2
    at.bench.each(lambda number: at.apart(f"warm {number}", "where", seconds=1.0 + number / 10), range(2))
    began = time.monotonic()
    made = at.bench.each(lambda number: at.apart(f"where {number}", "where", seconds=2.0 + number / 100), range(4))
    seconds = time.monotonic() - began
    assert {output.result["node"] for output in made} == set(two.alive)
    assert [output.result["node"] for output in made] != [], "in the order of the items"
    assert 4.0 <= seconds < 8.0, "side by side, two at a time"
    running = peak = 0
    for event in at.events:
        running += {"started": 1, "done": -1}.get(event.state, 0)
        peak = max(peak, running)
    assert peak == 2


def test_a_node_with_another_sluice_is_refused_in_words(two: Nodes, bench_at: Benches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    root = Path(__file__).parents[3]
    other = tmp_path / "other"
    for folder in ("builders", "config", "engines", "publishers", "qa", "service"):
        subprocess.run(["cp", "-r", root / folder, other / folder] if other.mkdir(exist_ok=True) is None else [], check=True)
    ray.shutdown()
    monkeypatch.chdir(tmp_path)  # Ray lets nodes import what is in the folder of whoever connects, which a service's folder is not
    (other / "engines" / "another.py").write_text('"""Another version."""\n')
    name = two.add("older", environment={"PYTHONPATH": str(other)})
    try:
        with pytest.raises(ConfigurationError, match=r"The node .* cannot .* out: it has Sluice .* and the service Sluice .*; install the same there"):
            bench_at()
    finally:
        two.kill(name)


def test_a_node_whose_keys_may_not_write_is_refused_in_words(two: Nodes, bench_at: Benches, s3: S3) -> None:
    name = two.add("reader", environment=s3.environment("reader"))
    try:
        with pytest.raises(ConfigurationError, match=r"The node .* cannot carry .*: Cannot write to s3://.*: permission denied .* Put that right"):
            bench_at()
    finally:
        two.kill(name)


def test_a_store_that_a_node_cannot_reach_is_waited_for(two: Nodes, bench_at: Benches) -> None:
    name = two.add("cut off", environment={"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"})
    try:
        with pytest.raises(ClusterUnavailable, match=r"The node .* cannot carry .* at the moment: Cannot write to s3://.* Check the network"):
            bench_at()
    finally:
        two.kill(name)


def test_a_store_that_is_silent_is_waited_for(two: Nodes, bench_at: Benches, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.setattr(artifacts, "ANSWER", 1.0)
    with accepting() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(ClusterUnavailable, match="Cannot write to s3://.*: no answer came within 1 seconds"):
            bench_at()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_node_without_llama_cpp_is_refused_in_words(two: Nodes, bench_at: Benches, tmp_path: Path) -> None:
    name = two.add("bare", environment={"SLUICE_LLAMA_CPP": str(tmp_path / "nothing")})
    try:
        with pytest.raises(ConfigurationError, match=r"The node .* cannot carry stages out: .*llama"):
            bench_at()
    finally:
        two.kill(name)


def test_a_stage_that_comes_to_a_node_of_another_version_later_is_refused_by_it(two: Nodes, bench_at: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    from config.errors import ToolError
    from service.cluster import versions

    at = bench_at()
    monkeypatch.setattr(versions, "here", lambda: {"Python": "3.11.4", "Sluice": "0.0.9 (older)"})
    with pytest.raises(ToolError, match=r"The node .* cannot carry stages out: it has Python .* and the service Python 3\.11\.4"):
        at.apart("where", "where")


def test_outputs_are_in_the_stage_store_of_the_service(two: Nodes, bench_at: Benches, tmp_path: Path) -> None:
    at, text = bench_at(), tmp_path / "text"
    text.write_text("ab" * 100_000)
    made = at.apart("shout", "shout", {"text": at.bench.data(text)}, times=1)
    assert StageStore(at.bench.settings.folder).look_up(made.key) == made
    assert (at.bench.stages.blobs / made.files[0].sha256).samefile(made.file().path)


def test_a_cluster_of_another_ray_is_refused_in_words(two: Nodes, bench_at: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    ray.shutdown()
    monkeypatch.setattr(ray, "__version__", "2.0.0")
    with pytest.raises(ConfigurationError, match=r"The Ray cluster runs other versions than this service; install the same everywhere\. Ray said: .*2\.0\.0"):
        bench_at()
    monkeypatch.undo()


def test_a_cluster_that_is_not_there_is_told(two: Nodes, bench_at: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    ray.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ClusterUnavailable, match="Ray cluster"):
        bench_at()


def test_work_waits_for_a_node_and_then_is_away(nodes: Nodes, bench_at: Benches) -> None:
    from service.execution.leaving import Away

    nodes.number(1)
    at = bench_at(hub_patience=3)
    nodes.number(0)
    with pytest.raises(Away, match="has had no node with CPUs for 3 seconds"):
        at.apart("where", "where")
    assert not list(at.bench.stages.working.iterdir())
    nodes.number(2)
    assert at.apart("where", "where").result["node"] in nodes.alive


def test_a_stage_that_ends_before_its_machine_does_was_lost_with_it(two: Nodes, bench_at: Benches, tmp_path: Path) -> None:
    at, note, made = bench_at(), tmp_path / "note", []
    thread = threading.Thread(target=lambda: made.append(at.apart("where", "where", note=str(note), seconds=8.0)))
    thread.start()
    lost, pid = note_of(note)
    os.kill(pid, signal.SIGKILL)  # as Ray does, whose processes end what they have started before they end, and systemd, which ends all at once
    two.kill(lost)
    thread.join(120)
    assert made, "the stage was not blamed"
    assert made[0].result["node"] in two.alive
    assert [event.state for event in at.events if event.state != "progressed"] == ["started", "done"]


def test_a_stage_goes_on_although_the_store_has_lost_all_of_its_inputs(two: Nodes, bench_at: Benches, tmp_path: Path) -> None:
    import s3fs

    at, folder = bench_at(), tmp_path / "given"
    folder.mkdir()
    for number in range(5):
        (folder / str(number)).write_text(str(number))
    files = [Input.of(path) for path in sorted(folder.iterdir())]
    at.apart("copy", "copy", {"folder": Input.of(folder), "files": files})
    s3fs.S3FileSystem(use_listings_cache=False).rm(f"{BUCKET}/tests/{tmp_path.name}/artifacts", recursive=True)
    made = at.apart("copy again", "copy", {"folder": Input.of(folder), "files": files[1:]})
    assert len(made.files) == 9
    assert len(at.said) == 1


def test_a_stage_that_waits_for_a_machine_that_goes_is_done_by_a_smaller_one(nodes: Nodes, bench_at: Benches, tmp_path: Path) -> None:
    import ray

    nodes.number(0)
    large, note, made = nodes.add("large", cpus=2), tmp_path / "note", []
    at = bench_at(threads=2)

    def hold(path: str) -> None:
        Path(path).touch()
        time.sleep(600)

    ray.remote(hold).options(num_cpus=2, max_retries=0).remote(str(note))
    eventually(note.exists, 180)
    thread = threading.Thread(target=lambda: made.append(at.bench.apart("threads", f"{FUNCTIONS}:threads_given", {})))
    thread.start()
    eventually(lambda: bool(at.events))
    small = nodes.add("small")
    nodes.kill(large)
    thread.join(180)
    assert small in nodes.alive
    assert [output.result for output in made] == [{"threads": 1, "libraries": "1"}]
    assert at.said == ["threads: No node is left that has what it asks for. It is begun anew."]
