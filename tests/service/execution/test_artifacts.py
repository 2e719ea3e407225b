"""Files by their digests, in a folder and in a bucket of a server that speaks S3: whole or not there, compared when they are read, refused in words."""

import errno
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from config.digests import file_sha256
from config.errors import ClusterUnavailable, ConfigurationError, StageError
from service.execution import artifacts
from service.execution.artifacts import CHUNK, ArtifactStore, Lacking
from service.execution.leaving import Left, left_by
from tests.service.lines import accepting, relayed
from tests.service.s3 import S3, served


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with served(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """An empty store of each kind."""
    if request.param == "file":
        return ArtifactStore(f"file://{tmp_path / 'store'}")
    return ArtifactStore(f"{request.getfixturevalue('s3').url}/{tmp_path.name}")


def file(tmp_path: Path, content: bytes = b"content") -> tuple[Path, str]:
    path = tmp_path / "file"
    path.write_bytes(content)
    return path, file_sha256(path)


@pytest.mark.parametrize("size", [0, 1, 2 * CHUNK + 3])
def test_what_is_put_comes_back(store: ArtifactStore, tmp_path: Path, size: int) -> None:
    path, sha256 = file(tmp_path, os.urandom(size))
    store.check()
    assert not store.has(sha256)
    store.put(path, sha256)
    assert store.has(sha256)
    store.get(sha256, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_what_is_there_is_not_sent_again(store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, sha256 = file(tmp_path)
    store.put(path, sha256)

    def sent(*_: Any) -> Any:
        raise AssertionError("it is sent again")

    monkeypatch.setattr(artifacts, "_copied", sent)
    store.put(path, sha256)


def test_a_file_with_other_bytes_is_not_kept(store: ArtifactStore, tmp_path: Path) -> None:
    path, _ = file(tmp_path, os.urandom(CHUNK + 1))
    with pytest.raises(StageError, match=r"file has other bytes than when it was made \(sha256 0000"):
        store.put(path, "0" * 64)
    assert not store.has("0" * 64)
    assert store.sweep(datetime.now(UTC) + timedelta(days=1)) == 0, "nothing of it is left either"


def test_who_leaves_in_the_middle_leaves_nothing_half(store: ArtifactStore, tmp_path: Path) -> None:
    path, sha256 = file(tmp_path, os.urandom(3 * CHUNK))
    pieces = []

    def asked(whole: bool) -> None:
        pieces.append(whole)
        if len(pieces) == 2:
            raise Left("cancelled")

    with left_by(asked), pytest.raises(Left):
        store.put(path, sha256)
    assert not store.has(sha256)
    assert store.sweep(datetime.now(UTC) + timedelta(days=1)) == 0
    store.put(path, sha256)
    assert store.has(sha256)


def test_what_is_damaged_or_missing_is_lacking_and_can_be_put_again(store: ArtifactStore, tmp_path: Path) -> None:
    path, sha256 = file(tmp_path)
    with pytest.raises(Lacking, match=f"does not have the file with sha256 {sha256}"):
        store.get(sha256, tmp_path / "back")
    store.put(path, sha256)
    store._files.pipe_file(store._place(sha256), b"damaged")
    with pytest.raises(Lacking, match="or had it damaged"):
        store.get(sha256, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    assert not store.has(sha256)
    store.put(path, sha256)
    store.get(sha256, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content"


def test_what_is_old_is_swept(store: ArtifactStore, tmp_path: Path) -> None:
    old, young = (file(tmp_path, content)[1] for content in (b"old", b"young"))
    for content, sha256 in ((b"old", old), (b"young", young)):
        store.put(file(tmp_path, content)[0], sha256)
        if sha256 == old:
            time.sleep(2.1)  # S3 tells seconds
            between = datetime.now(UTC)
    assert store.sweep(between - timedelta(seconds=1)) == 1
    assert not store.has(old)
    assert store.has(young)


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("/a/folder", r"`store_url` must be `file:///a/folder` or `s3://bucket/prefix`"),
        ("ftp://host/folder", r"`store_url` must be"),
        ("s3://key:secret@bucket/prefix", r"credentials in the environment \(AWS_ACCESS_KEY_ID"),
    ],
)
def test_other_urls_are_refused(url: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        ArtifactStore(url)
    assert "secret@" not in str(caught.value)


def test_a_folder_that_cannot_be_written_to_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=rf"^Cannot write to file://{tmp_path}/file/store: .* Correct `store_url`\.$"):
        ArtifactStore(f"file://{tmp_path}/file/store").check()
    if os.getuid() == 0:
        return  # who may write everywhere
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigurationError, match="permission denied .* Let this account write there"):
        ArtifactStore(f"file://{tmp_path}/store").check()


@pytest.mark.parametrize(
    ("changed", "bucket", "kind", "match"),
    [
        ({"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "reader-secret"}, None, ConfigurationError, r"Cannot write to s3://.*: permission denied"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, None, ConfigurationError, "permission denied .* Correct the key in AWS_ACCESS_KEY_ID"),
        ({}, "s3://no-such-bucket/tests", ConfigurationError, "there is no such bucket or folder .* Make it, or correct `store_url`"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}, None, ClusterUnavailable, "Cannot write to .*: .* Check the network and AWS_ENDPOINT_URL_S3"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_refused_in_words(
    s3: S3, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], bucket: str | None, kind: type[Exception], match: str
) -> None:
    import s3fs

    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(kind, match=match) as caught:
            ArtifactStore(bucket or s3.url).check()
        assert "secret" not in str(caught.value)
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_store_that_takes_a_file_too_slowly_is_given_up_and_keeps_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, (path, sha256) = ArtifactStore(f"file://{tmp_path / 'store'}"), file(tmp_path)
    store.put(path, sha256)
    monkeypatch.setattr(artifacts, "PATIENCE", -1.0)
    with pytest.raises(ClusterUnavailable, match="for a file of 7 bytes"):
        store.get(sha256, tmp_path / "back")
    other, digest = file(tmp_path, b"another")
    with pytest.raises(ClusterUnavailable):
        store.put(other, digest)
    assert not store.has(digest)
    assert not list((tmp_path / "store").rglob("*.partial"))


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Deadlines that a test can wait for."""
    s3fs = pytest.importorskip("s3fs", reason="the extra `ray` is not installed: `make test-ray` does that, or pip install -r requirements-ray.lock")
    for name, value in {"AWS_ACCESS_KEY_ID": "writer", "AWS_SECRET_ACCESS_KEY": "writer-secret", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("ANSWER", "LISTING", "PATIENCE", "ENDING"):
        monkeypatch.setattr(artifacts, name, 1.0)
    monkeypatch.setattr(artifacts, "SLOWEST", 100_000_000)
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("word", [b"", b" "], ids=["silent", "trickling"])
def test_a_server_that_never_answers_holds_nobody(hurried: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: bytes) -> None:
    path, sha256 = file(tmp_path)
    with accepting(word) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        store = ArtifactStore("s3://bucket/prefix")
        calls: dict[str, Callable[[], object]] = {
            "write to": store.check,
            "look into": lambda: store.has(sha256),
            "read": lambda: store.get(sha256, tmp_path / "back"),
        }
        for doing, call in calls.items():
            with pytest.raises(ClusterUnavailable) as caught:
                call()
            said = f"Cannot {doing} s3://bucket/prefix: no answer came within 1 seconds. Check the network and AWS_ENDPOINT_URL_S3."
            assert str(caught.value) == said
        for call in (lambda: store.put(path, sha256), lambda: store.sweep(datetime.now(UTC))):
            with pytest.raises(ClusterUnavailable, match="Cannot look into s3://bucket/prefix: no answer came within 1 seconds"):
                call()


def test_who_waits_for_a_silent_server_may_leave(hurried: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "ANSWER", 600.0)

    def asked(whole: bool) -> None:
        raise Left("cancelled")

    with accepting() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        with left_by(asked), pytest.raises(Left):
            ArtifactStore("s3://bucket/prefix").has("0" * 64)


def test_a_server_that_falls_silent_in_a_transfer_is_given_up_and_nothing_half_is_left(
    hurried: None, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sha256 = file(tmp_path, os.urandom(6 * CHUNK))
    monkeypatch.setattr(artifacts, "ANSWER", 5.0)  # of a server that is there
    monkeypatch.setattr(artifacts, "PATIENCE", 300.0)
    with relayed(s3.endpoint) as relay:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", relay.endpoint)
        store = ArtifactStore(f"{s3.url}/{tmp_path.name}")
        relay.left = 3 * CHUNK
        with pytest.raises(ClusterUnavailable, match=r"Cannot write to s3://.*: no answer came within"):
            store.put(path, sha256)
        relay.left = None
        assert not store.has(sha256)
        store.put(path, sha256)
        relay.left = 3 * CHUNK
        with pytest.raises(ClusterUnavailable, match=r"Cannot read s3://.*: no answer came within"):
            store.get(sha256, tmp_path / "back")
        relay.left = None
        store.get(sha256, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_a_store_that_is_out_of_reach_is_asked_again_while_the_patience_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path, sha256), folder, heard = file(tmp_path), tmp_path / "store" / "artifacts", list[str]()
    folder.parent.mkdir()
    folder.symlink_to(folder)  # as a folder of a server may be that has lost its way

    def told(said: str) -> None:
        heard.append(said)
        folder.unlink()

    with pytest.raises(ClusterUnavailable, match="Cannot write to"):
        ArtifactStore(f"file://{tmp_path}/store").put(path, sha256)
    monkeypatch.setattr(artifacts, "FIRST", 0.1)
    store = ArtifactStore(f"file://{tmp_path}/store", patience=60, told=told)
    store.put(path, sha256)
    assert len(heard) == 1
    assert heard[0].endswith(". Check the server that the folder is of. It is tried again for 60 seconds.")
    folder.rename(tmp_path / "away")
    folder.symlink_to(folder)

    def told_again(said: str) -> None:
        folder.unlink()
        (tmp_path / "away").rename(folder)

    ArtifactStore(f"file://{tmp_path}/store", patience=60, told=told_again).get(sha256, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content"


def test_who_waits_for_a_store_to_come_back_may_leave(tmp_path: Path) -> None:
    (path, sha256), folder, gone = file(tmp_path), tmp_path / "store" / "artifacts", list[bool]()
    folder.parent.mkdir()
    folder.symlink_to(folder)

    def asked(whole: bool) -> None:
        if gone:
            raise Left("cancelled")

    with left_by(asked), pytest.raises(Left):
        ArtifactStore(f"file://{tmp_path}/store", patience=600, told=lambda said: gone.append(True)).put(path, sha256)


def test_a_disk_without_room_for_what_is_taken_is_no_fault_of_the_store(store: ArtifactStore, tmp_path: Path) -> None:
    path, sha256 = file(tmp_path)
    store.put(path, sha256)
    with pytest.raises(OSError, match="No space left on device") as caught:
        store.get(sha256, Path("/dev/full"))
    assert caught.value.errno == errno.ENOSPC
