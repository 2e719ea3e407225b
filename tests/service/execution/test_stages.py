import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from config.errors import NoSpace, ProgramError, StageError, UpstreamError
from service.execution import kept as kept_outputs
from service.execution.kept import Input, Inputs, Output, StageStore, blocks, declared_version, stage_key
from service.execution.process import Limits, run_apart, run_here
from service.execution.space import with_space
from tests.service.helpers import output

ROOT = Path(__file__).parents[3]
FUNCTIONS = "tests.service.stage_functions"
LIMITS = Limits(seconds=60, memory_bytes=None, threads=1)


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path / "home")


def run(store: StageStore, function: str, inputs: Inputs | None = None, limits: Limits = LIMITS, **params: object) -> dict[str, object]:
    with store.workspace("0" * 64) as workspace:
        return run_apart(f"{FUNCTIONS}:{function}", workspace, inputs or {}, params, limits=limits, log=store.logs / "stage.log")


def test_a_finished_stage_is_found_again_with_its_files(store: StageStore, tmp_path: Path) -> None:
    source = tmp_path / "text"
    source.write_text("ab")
    inputs = {"text": Input.of(source)}
    key = stage_key(f"{FUNCTIONS}:shout", inputs, {"times": 2})
    assert store.look_up(key) is None
    with store.workspace(key) as workspace:
        result = run_apart(f"{FUNCTIONS}:shout", workspace, inputs, {"times": 2}, limits=LIMITS, log=store.logs / "stage.log")
        kept = store.keep(key, workspace, {"stage": "shout"}, result, 1.0)
    found = store.look_up(key)
    assert found == kept
    assert found is not None
    assert found.file().path.read_text() == "ABAB"
    assert [file.path for file in found.files] == ["sub/shout.txt"]
    assert list(store.working.iterdir()) == []


def test_a_result_is_the_same_when_it_is_made_and_when_it_is_found_again_down_to_the_order_of_its_keys(store: StageStore) -> None:
    with store.workspace("0" * 64) as workspace:
        kept = store.keep("0" * 64, workspace, {"stage": "any"}, {"b": {"z": 1, "a": (1, 2)}, "a": 2}, 1.0)
    found = store.look_up("0" * 64)
    assert found is not None
    assert json.dumps(kept.result) == json.dumps(found.result)


def test_the_key_follows_content_params_and_version_but_not_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, same, other = tmp_path / "one", tmp_path / "same", tmp_path / "other"
    one.write_text("x")
    same.write_text("x")
    other.write_text("y")
    function = f"{FUNCTIONS}:shout"

    def key(path: Path, times: int) -> str:
        return stage_key(function, {"text": Input.of(path)}, {"times": times})

    assert key(one, 1) == key(same, 1)
    assert len({key(one, 1), key(other, 1), key(one, 2)}) == 3
    before = key(one, 1)
    monkeypatch.setattr(kept_outputs, "declared_version", lambda _: 4)
    assert key(one, 1) != before
    assert declared_version(function) == 3


def test_a_stage_with_a_missing_file_is_not_reused(store: StageStore, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a")
    with store.workspace("k" * 64) as workspace:
        result = run_apart(f"{FUNCTIONS}:shout", workspace, {"text": Input.of(tmp_path / "text")}, {"times": 1}, limits=LIMITS, log=store.logs / "l.log")
        kept = store.keep("k" * 64, workspace, {}, result, 0.1)
    kept.file().path.unlink()
    assert store.look_up("k" * 64) is None
    assert not kept.folder.exists()


@pytest.mark.parametrize(("large", "hidden", "kept"), [(False, True, False), (True, False, False), (True, True, True)])
def test_a_stage_with_other_bytes_is_not_reused_where_that_can_be_told_at_a_price(
    store: StageStore, monkeypatch: pytest.MonkeyPatch, large: bool, hidden: bool, kept: bool
) -> None:
    """A small file is always compared; a large one when its time of change says that somebody wrote to it, which a failing disk does not."""
    if large:
        monkeypatch.setattr(kept_outputs, "AFFORDABLE", 1)
    with store.workspace("k" * 64) as workspace:
        (workspace / "files" / "weights").write_bytes(b"as they were made")
        made = store.keep("k" * 64, workspace, {}, {"file": "weights"}, 0.1)
    assert store.look_up("k" * 64) == made
    path = made.file().path
    times = path.stat()
    path.write_bytes(b"as they were MADE")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns if hidden else times.st_mtime_ns + 10**10))
    found = StageStore(store.finished.parent).look_up("k" * 64)
    assert (found is not None) is kept
    assert made.folder.exists() is kept


def test_the_stage_s_own_error_arrives_and_nothing_half_written_stays(store: StageStore) -> None:
    with pytest.raises(UpstreamError, match="the model is broken; use another"):
        run(store, "refuse")
    assert list(store.working.iterdir()) == []
    assert list(store.finished.iterdir()) == []


def test_an_unexpected_error_says_where_and_what_and_what_to_do(store: StageStore, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a")
    with pytest.raises(StageError) as caught:
        run(store, "stumble", {"text": Input.of(tmp_path / "text")})
    said, log = str(caught.value), store.logs / "stage.log"
    assert said.startswith("The stage stage failed in a way that Sluice has no advice for: KeyError: 'missing'.")
    assert f"It read {tmp_path / 'text'}. {log} has all that is known" in said
    assert "report this with that file" in said
    assert "Traceback" not in said
    assert "Traceback" in log.read_text()


def test_a_program_s_traceback_stays_in_the_log(store: StageStore) -> None:
    """As llama.cpp's converter ends, whose last lines are in the error."""
    with pytest.raises(UpstreamError) as caught:
        run(store, "convert_in_vain")
    said, log = str(caught.value), store.logs / "stage.log"
    assert said.startswith("tiny cannot be converted. It ends with:\nINFO: loading\nKeyError: 'rope'\n")
    assert said.endswith(f"{log} has all that it printed. If other programs can use the model, report this with that file.")
    assert 'File "' not in said
    assert 'File "convert.py", line 7' in log.read_text()


def test_a_stage_in_this_process_is_told_alike(tmp_path: Path) -> None:
    def fall(out: Path, token: str) -> dict[str, Any]:
        raise TypeError(f"no such thing as {token}")

    log = tmp_path / "logs" / "snapshot.log"
    with pytest.raises(StageError, match=r"The stage snapshot failed .*: TypeError: no such thing as .*report this with that file") as caught:
        run_here(fall, tmp_path, {"token": "hf_abcdefghijklmnopqrstuvwxyz"}, log=log)
    assert "hf_abc" not in str(caught.value) + log.read_text()
    assert "Traceback" in log.read_text()
    with pytest.raises(UpstreamError, match=r"^use another$"):
        run_here(refuse, tmp_path, {}, log=log)


def refuse(out: Path) -> dict[str, Any]:
    raise UpstreamError("use another")


def test_what_the_system_refuses_a_stage_is_told_with_stage_and_files(store: StageStore, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a")
    with pytest.raises(StageError) as caught:
        run(store, "descend", {"text": Input.of(tmp_path / "text")})
    said, log = str(caught.value), store.logs / "stage.log"
    assert said.startswith(f"The stage stage was refused something by the system: [Errno 20] Not a directory: '{tmp_path / 'text' / 'below'}'.")
    assert f"It read {tmp_path / 'text'}. {log} has all that is known: look whether the user that Sluice runs as may read and write" in said
    assert "Traceback" in log.read_text()

    def descend_here(out: Path, text: Path) -> dict[str, Any]:
        return {"text": (text / "below").read_text()}

    with pytest.raises(StageError, match=r"^The stage snapshot was refused something by the system: \[Errno 20\]"):
        run_here(descend_here, tmp_path, {"text": tmp_path / "text"}, log=tmp_path / "logs" / "snapshot.log")
    assert "Traceback" in (tmp_path / "logs" / "snapshot.log").read_text()


@pytest.mark.parametrize("function", ["fill_the_disk", "exceed_a_quota"])
def test_a_quota_is_a_full_disk_also_where_a_stage_meets_it(store: StageStore, function: str) -> None:
    with pytest.raises(NoSpace, match="is full"), with_space(store.working, "the stage"):
        run(store, function)


def test_a_full_disk_is_told_with_what_to_do(store: StageStore) -> None:
    with pytest.raises(StageError, match="No space left on device; free some space, or set `home`"):
        run(store, "fill_the_disk")


REPORT = "look whether other programs can use the model, and report this with that file and the model's name."
MEMORY = "Let other programs leave it more memory, or use a machine that has more, then run it again: it goes on where it was."


@pytest.mark.parametrize(("name", "ending", "advice"), [("SIGKILL", "SIGKILL (probably out of memory)", f". {MEMORY}"), ("SIGABRT", "SIGABRT", f": {REPORT}")])
def test_a_killed_stage_is_told_with_what_it_read_its_log_and_what_to_do(store: StageStore, tmp_path: Path, name: str, ending: str, advice: str) -> None:
    (text := tmp_path / "text").write_text("a")
    with pytest.raises(StageError) as caught:
        run(store, "end", {"text": Input.of(text)}, name=name)
    read = f"It read {text}. {store.logs / 'stage.log'} has all that it printed{advice}"
    assert str(caught.value) == f"The stage stage ended with {ending}. It had printed last:\nabout to die\n{read}"
    with pytest.raises(ProgramError) as caught_program:
        run(store, "run_a_program_that_dies", {"text": Input.of(text)}, name=name)
    assert str(caught_program.value) == f"sh was ended by {ending}. It ends with:\nat work\nIt worked for the stage stage. {read}"


def test_a_program_that_fails_is_told_with_the_stage_its_file_and_what_to_do(store: StageStore, tmp_path: Path) -> None:
    (broken := tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 60)
    with pytest.raises(ProgramError) as caught:
        run(store, "quantize_in_vain", {"gguf": Input.of(broken)})
    said, log = str(caught.value), store.logs / "stage.log"
    assert said.startswith("llama-quantize ended with exit code 1. It ends with:\n")
    assert said.endswith(f"\nIt worked for the stage stage. It read {broken}. {log} has all that it printed: {REPORT}")


def test_a_stage_that_runs_too_long_is_stopped(store: StageStore) -> None:
    started = time.monotonic()
    with pytest.raises(StageError, match="raise `stage_minutes`"):
        run(store, "sleep", limits=Limits(seconds=1, memory_bytes=None, threads=1))
    assert time.monotonic() - started < 30


def test_a_result_that_is_not_finite_is_refused(store: StageStore) -> None:
    with pytest.raises(StageError, match="not JSON compliant"):
        run(store, "not_a_number")


def test_memory_is_limited(store: StageStore) -> None:
    with pytest.raises(StageError, match="out of memory"):
        run(store, "allocate", limits=Limits(seconds=60, memory_bytes=2**30, threads=1), size=2**31)


def test_a_stage_sees_no_token(store: StageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "SLUICE_HUB_TOKEN", "SLUICE_WEBHOOK_SECRET", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "hf_secret")
    seen = run(store, "environment")["environment"]
    assert isinstance(seen, dict)
    assert "hf_secret" not in seen.values()
    assert seen["HF_HUB_OFFLINE"] == "1"
    assert seen["HOME"] != os.environ["HOME"]


def test_a_stage_has_no_network(store: StageStore) -> None:
    allowed = subprocess.run(
        [sys.executable, "-c", "from service.execution.child import leave_network; raise SystemExit(not leave_network())"], check=False, cwd=ROOT
    )
    if allowed.returncode:
        pytest.skip("this kernel allows no network namespaces here")
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = run(store, "connect", port=server.getsockname()[1])
    assert answer["connected"] is False


def test_leftovers_of_a_killed_process_are_swept_and_those_of_a_living_one_are_not(tmp_path: Path) -> None:
    home = tmp_path / "home"
    script = f"""
import os, signal, sys
from pathlib import Path
from service.execution.kept import StageStore
with StageStore(Path({str(home)!r})).workspace("a" * 64) as folder:
    (folder / "files" / "big").write_bytes(b"0" * 1000)
    print("ready", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        store = StageStore(home)
        assert len(list(store.working.glob("*/files/big"))) == 1
        process.kill()
    StageStore(home)
    assert list(store.working.iterdir()) == []


def test_a_working_folder_without_a_lock_does_not_stay_for_ever(tmp_path: Path) -> None:
    working = StageStore(tmp_path).working
    for name, days in {"old": 15, "new": 13, "key.partial": 15}.items():
        (working / name / "files").mkdir(parents=True)
        os.utime(working / name, (time.time() - days * 86_400,) * 2)
    StageStore(tmp_path)
    assert [path.name for path in working.iterdir()] == ["new"]


def test_disk_usage_counts_a_hard_linked_file_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(os.urandom(100_000))
    once = sum(blocks([tmp_path]).values())
    os.link(tmp_path / "a", tmp_path / "b")
    assert sum(blocks([tmp_path]).values()) == once >= 100_000


def test_stage_record_says_what_was_done(store: StageStore) -> None:
    with store.workspace("r" * 64) as workspace:
        kept = store.keep("r" * 64, workspace, {"stage": "x", "function": "f", "params": {"a": 1}}, {"bytes": 0}, 2.5)
    record = json.loads((kept.folder / "stage.json").read_text())
    assert record == {"stage": "x", "function": "f", "params": {"a": 1}, "key": "r" * 64, "result": {"bytes": 0}, "files": [], "seconds": 2.5}


def test_what_is_left_of_a_damaged_stage_is_thrown_away_and_made_again(store: StageStore, tmp_path: Path) -> None:
    source = tmp_path / "text"
    source.write_text("ab")
    key = "k" * 64
    for damage in ("no record", "half a record", "no file"):
        with store.workspace(key) as workspace:
            (workspace / "files" / "out").write_text("x")
            kept = store.keep(key, workspace, {}, {"file": "out"}, 0.1)
        if damage == "no file":
            kept.file().path.unlink()
        else:
            (kept.folder / "stage.json").write_text('{"result": ') if damage == "half a record" else (kept.folder / "stage.json").unlink()
        assert StageStore(tmp_path / "home", reading=True).look_up(key) is None
        assert kept.folder.exists(), "who only reads changes nothing"
        assert store.look_up(key) is None
        assert not kept.folder.exists()
    assert list(store.working.iterdir()) == []


def test_who_only_reads_makes_no_folder(tmp_path: Path) -> None:
    assert StageStore(tmp_path / "nowhere", reading=True).look_up("k" * 64) is None
    assert not (tmp_path / "nowhere").exists()


def test_only_the_chosen_files_of_a_folder_decide_what_is_taken(tmp_path: Path) -> None:
    def made(key: str, **texts: str) -> Output:
        folder = tmp_path / key
        (folder / "files").mkdir(parents=True)
        for name, text in texts.items():
            (folder / "files" / f"{name}.json").write_text(text)
        return output(folder, {})

    first, second = made("first", config="a", readme="x"), made("second", config="a", readme="y")
    chosen = [item.part(lambda path: path == "config.json") for item in (first, second)]
    assert chosen[0].digest == chosen[1].digest
    assert chosen[1].path == second.folder / "files"
    assert first.whole.digest != second.whole.digest
