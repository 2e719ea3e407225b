"""Files by their digests, in a folder and in a bucket of a server that speaks S3: whole or not there, compared when they are read, refused in words."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from config.digests import file_sha256
from config.errors import ClusterUnavailable, ConfigurationError, StageError
from service.execution import artifacts
from service.execution.artifacts import CHUNK, ArtifactStore, Lacking
from service.execution.leaving import Left, left_by
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
