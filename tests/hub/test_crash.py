"""What is on disk after a kill, at any moment, is what was there before or what was asked for; and one root has one server."""

import base64
import contextlib
import hashlib
import json
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from huggingface_hub import HfApi

from hub.errors import RootError
from hub.server import running, serve
from hub.tokens import create_token
from tests.hub.support import Process

# A Hub whose process ends, as if killed, just before or after the n-th rename of a file of that name.
DYING = """
import os, pathlib, sys
from hub import __main__
real, count = pathlib.Path.replace, {number}
def replace(self, target):
    global count
    if {name!r} in str(target):
        count -= 1
        if count == 0:
            if {after}: real(self, target)
            os._exit(9)
    return real(self, target)
pathlib.Path.replace = replace
sys.exit(__main__.main())
"""


def client(hub: Process) -> HfApi:
    return HfApi(endpoint=hub.url, token=create_token(hub.root, user="ann"))


def check_whole(api: HfApi, root: Path) -> None:
    """Every file of every commit of every repo can be read, and is what its name in the store says."""
    for info in api.list_models():
        for commit in api.list_repo_commits(info.id):
            assert api.list_repo_files(info.id, revision=commit.commit_id)
    for path in (root / "objects").glob("??/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    assert list((root / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "after", "committed"), [("/commits/", False, False), ("/commits/", True, False), ("state.json", False, False), ("state.json", True, True)]
)
def test_a_commit_cut_short_is_whole_or_nothing(process: Callable[..., Process], name: str, after: bool, committed: bool) -> None:
    first = process()
    api = client(first)
    api.create_repo("ann/thing")
    old = api.upload_file(path_or_fileobj=b"old", path_in_repo="x.txt", repo_id="ann/thing").oid
    assert first.stop() == 0
    dying = process(program=DYING.format(name=name, number=1, after=after))
    with pytest.raises(Exception, match="disconnected"):
        client(dying).upload_file(path_or_fileobj=b"new", path_in_repo="x.txt", repo_id="ann/thing")
    assert dying.close() == 9
    again = process()
    api = client(again)
    assert (api.model_info("ann/thing").sha == old) is not committed
    assert Path(api.hf_hub_download("ann/thing", "x.txt", cache_dir=first.root.parent / "cache")).read_bytes() == (b"new" if committed else b"old")
    check_whole(api, first.root)
    assert api.upload_file(path_or_fileobj=b"next", path_in_repo="x.txt", repo_id="ann/thing")


def commit(api: HfApi, number: int, parent: str | None) -> str:
    """Commit as the client does, but without its retries, which would outlast the test."""
    file = {"path": "n.txt", "content": base64.b64encode(b"%d" % number).decode(), "encoding": "base64"}
    lines = [{"key": "header", "value": {"summary": str(number), "parentCommit": parent}}, {"key": "file", "value": file}]
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    answer = httpx2.post(f"{api.endpoint}/api/models/ann/thing/commit/main", content=body, headers={"Authorization": f"Bearer {api.token}"})
    return str(answer.raise_for_status().json()["commitOid"])


def test_killed_anywhere_nothing_acknowledged_is_lost(process: Callable[..., Process]) -> None:
    chance = random.Random(7)
    hub = process()
    api = client(hub)
    api.create_repo("ann/thing")
    number = 0
    for _ in range(6):
        head = api.model_info("ann/thing").sha
        timer = threading.Timer(chance.uniform(0.05, 0.5), hub.process.kill)
        timer.start()
        with contextlib.suppress(httpx2.HTTPError):
            while True:
                head = commit(api, number, head)
                number += 1
        timer.join()
        hub.close()
        hub = process()
        api = client(hub)
        # The commit that was under way may have been made; all that were answered are there.
        newest = api.list_repo_commits("ann/thing")[0]
        assert newest.commit_id == head or newest.title == str(number)
        number += newest.commit_id != head
        assert [each.title for each in api.list_repo_commits("ann/thing")] == [*map(str, reversed(range(number))), "initial commit"]
        check_whole(api, hub.root)
    assert number > 6


def test_an_upload_cut_short_leaves_nothing(process: Callable[..., Process]) -> None:
    first = process()
    api = client(first)
    api.create_repo("ann/thing")
    data = bytes(range(256)) * 40_000
    oid = hashlib.sha256(data).hexdigest()
    body = json.dumps({"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid, "size": len(data)}]}).encode()
    answer = httpx2.post(f"{first.url}/ann/thing.git/info/lfs/objects/batch", content=body, headers={"Authorization": f"Bearer {api.token}"})
    href = urlsplit(answer.json()["objects"][0]["actions"]["upload"]["href"])
    with socket.create_connection((href.hostname, href.port)) as connection:
        head = f"PUT {href.path}?{href.query} HTTP/1.1\r\nHost: {href.netloc}\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data[: len(data) // 2])
        deadline = time.monotonic() + 10
        while not (leftover := [path for path in (first.root / "tmp").iterdir() if path.stat().st_size]) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert leftover
        first.kill()
    second = process()
    assert list((first.root / "tmp").iterdir()) == []
    assert not list((first.root / "objects").glob(f"??/{oid}"))
    api = client(second)
    assert api.list_repo_files("ann/thing") == [".gitattributes"]
    api.upload_file(path_or_fileobj=data, path_in_repo="w.bin", repo_id="ann/thing")
    assert Path(api.hf_hub_download("ann/thing", "w.bin", cache_dir=first.root.parent / "cache")).read_bytes() == data


def test_a_caller_that_hangs_up_leaves_nothing(process: Callable[..., Process]) -> None:
    hub = process()
    with socket.create_connection((urlsplit(hub.url).hostname, urlsplit(hub.url).port)) as connection:
        connection.sendall(b"POST /api/repos/create HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    assert client(hub).whoami()["name"] == "ann"


def test_objects_of_deleted_repos_go_at_the_next_start(process: Callable[..., Process]) -> None:
    first = process()
    api = client(first)
    for name in ("ann/kept", "ann/gone"):
        api.create_repo(name)
        api.upload_file(path_or_fileobj=b"\0 of both", path_in_repo="w.bin", repo_id=name)
    api.upload_file(path_or_fileobj=b"\0 of one", path_in_repo="v.bin", repo_id="ann/gone")
    api.delete_repo("ann/gone")
    first.kill()
    api = client(process())
    kept = {path.name for path in (first.root / "objects").glob("??/*")}
    assert hashlib.sha256(b"\0 of both").hexdigest() in kept
    assert hashlib.sha256(b"\0 of one").hexdigest() not in kept
    check_whole(api, first.root)


def test_a_root_has_one_server(tmp_path: Path) -> None:
    with running(tmp_path / "root"):
        with pytest.raises(RootError, match="in use by another"):
            serve(tmp_path / "root")
        create_token(tmp_path / "root", user="ann")
    with running(tmp_path / "root"):
        pass


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RootError, match="neither empty nor"):
        serve(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_port_that_is_taken_is_said_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(RootError, match="cannot listen"):
        serve(tmp_path / "root", port=taken.getsockname()[1])
