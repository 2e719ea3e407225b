"""What a caller may try: leaving the folder, lying about uploads, forging addresses, oversized bodies, another's files."""

import errno
import hashlib
import json
import os
from urllib.parse import urlsplit

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from hub.routes import lfs
from tests.hub.support import Place

OUTSIDE = [
    "..%2f..%2fsecret",
    "%2e%2e/%2e%2e/secret",
    "../../secret",
    "..",
    "a/../../secret",
    "/etc/passwd",
    "a%00b",
    "a%0ab",
    "a%5c..%5cb",
    "a//b",
    ".git/config",
    ".",
]


@pytest.fixture
def repo(ann: HfApi) -> str:
    return ann.create_repo("ann/thing").repo_id


def headers(api: HfApi) -> dict[str, str]:
    return {"Authorization": f"Bearer {api.token}"}


def commit(place: Place, api: HfApi, *lines: dict[str, object], repo: str = "ann/thing") -> tuple[int, dict[str, object]]:
    body = b"\n".join(json.dumps(line).encode() for line in ({"key": "header", "value": {"summary": "x"}}, *lines))
    status, _, answer = place.raw("POST", f"/api/models/{repo}/commit/main", body, headers(api))
    return status, json.loads(answer)


def batch(place: Place, api: HfApi, oid: str, size: int, repo: str = "ann/thing") -> dict[str, dict[str, object]]:
    body = {"operation": "upload", "transfers": ["basic", "multipart"], "objects": [{"oid": oid, "size": size}], "hash_algo": "sha256"}
    status, _, answer = place.raw("POST", f"/{repo}.git/info/lfs/objects/batch", json.dumps(body).encode(), headers(api))
    assert status == 200, answer
    return json.loads(answer)["objects"][0].get("actions")


def local(href: object) -> str:
    parts = urlsplit(str(href))
    return f"{parts.path}?{parts.query}"


def objects(place: Place) -> list[str]:
    return sorted(path.name for path in (place.root / "objects").glob("??/*"))


@pytest.mark.parametrize("path", OUTSIDE)
def test_paths_out_of_the_repo_are_bad_requests(place: Place, ann: HfApi, repo: str, path: str) -> None:
    assert place.raw("GET", f"/{repo}/resolve/main/{path}")[0] == 400
    assert place.raw("HEAD", f"/api/models/{repo}/resolve/main/{path}")[0] == 400
    if path != ".":
        assert place.raw("GET", f"/api/models/{repo}/tree/main/{path}")[0] == 400


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/passwd", "a/../b", "a\0b", "a\nb", "a\\b", "", ".", "..", "a//b", "a/", ".git/hooks/x", "a/.GIT/x", "\ud800", "x" * 256]
)
def test_paths_out_of_the_repo_are_not_committed(place: Place, ann: HfApi, repo: str, path: str) -> None:
    file = {"key": "file", "value": {"path": path, "content": "", "encoding": "base64"}}
    for line in (file, {"key": "deletedFile", "value": {"path": path}}, {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": "0" * 64}}):
        assert commit(place, ann, line)[0] == 400
    body = json.dumps({"files": [{"path": path, "size": 1, "sample": ""}]}).encode()
    assert place.raw("POST", f"/api/models/{repo}/preupload/main", body, headers(ann))[0] == 400


@pytest.mark.parametrize("address", ["/../etc/passwd", "/..%2f..%2fetc/passwd", "/api/models/..%2f../x", "/api/models/%2e%2e/x", "/ann/%2e%2e/resolve/main/x"])
def test_addresses_out_of_the_hub_are_bad_requests(place: Place, address: str) -> None:
    assert place.raw("GET", address)[0] == 400


@pytest.mark.parametrize("name", ["..", "a/b", "../x", "a\0", "", ".hidden", "a--b", "x.git", "x" * 97])
def test_names_that_no_repo_can_have(place: Place, ann: HfApi, name: str) -> None:
    for body in ({"name": name}, {"name": "x", "organization": name}):
        status = place.raw("POST", "/api/repos/create", json.dumps(body).encode(), headers(ann))[0]
        assert status == 400


@pytest.mark.parametrize("branch", ["..", "a%2f..%2fb", "refs%2fheads%2fx", "a.lock", "-x", "a%0ab", "0" * 40, "%ff"])
def test_names_that_no_branch_can_have(place: Place, ann: HfApi, repo: str, branch: str) -> None:
    assert place.raw("POST", f"/api/models/{repo}/branch/{branch}", b"{}", headers(ann))[0] == 400


def test_an_upload_that_is_not_what_was_announced_is_refused(place: Place, ann: HfApi, repo: str) -> None:
    before = objects(place)
    data = b"\0the truth"
    oid = hashlib.sha256(data).hexdigest()
    href = local(batch(place, ann, oid, len(data))["upload"]["href"])
    for lie, status in ((b"\0the faker", 400), (data[:-1], 400), (data + b"!", 413), (b"", 400)):
        assert place.raw("PUT", href, lie)[0] == status
        assert objects(place) == before
        assert batch(place, ann, oid, len(data)) is not None
    large = {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": oid, "size": len(data)}}
    assert commit(place, ann, large)[0] == 400
    assert list((place.root / "tmp").iterdir()) == []
    assert place.raw("PUT", href, data)[0] == 200
    assert batch(place, ann, oid, len(data)) is None
    large["value"]["size"] = 5
    assert commit(place, ann, large)[0] == 400
    large["value"]["size"] = len(data)
    assert commit(place, ann, large)[0] == 200


def test_parts_that_do_not_make_up_the_file_are_refused(place: Place, ann: HfApi, repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lfs, "PART_SIZE", 10)
    before = objects(place)
    data = os.urandom(25)
    oid = hashlib.sha256(data).hexdigest()
    upload = batch(place, ann, oid, len(data))["upload"]
    assert upload["header"]["chunk_size"] == "10"
    done = json.dumps({"oid": oid, "parts": []}).encode()
    parts = [local(upload["header"][f"{number:05d}"]) for number in (1, 2, 3)]
    assert place.raw("PUT", parts[0], data[:9])[0] == 400
    assert place.raw("PUT", parts[2], data[20:] + b"!")[0] == 413
    assert place.raw("POST", local(upload["href"]), done)[0] == 400
    for part, piece in zip(parts, (data[:10], data[10:20], b"wrong"), strict=True):
        assert place.raw("PUT", part, piece)[0] == 200
    assert place.raw("POST", local(upload["href"]), done)[0] == 400
    assert objects(place) == before
    for part, piece in zip(parts, (data[:10], data[10:20], data[20:]), strict=True):
        assert place.raw("PUT", part, piece)[1]["etag"] == f'"{hashlib.sha256(piece).hexdigest()}"'
    assert place.raw("POST", local(upload["href"]), done)[0] == 200
    assert batch(place, ann, oid, len(data)) is None


def test_upload_addresses_cannot_be_forged(place: Place, ann: HfApi, repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, other = b"\0one", b"\0two"
    oids = [hashlib.sha256(each).hexdigest() for each in (data, other)]
    actions = batch(place, ann, oids[0], 4)
    href = local(actions["upload"]["href"])
    assert place.raw("PUT", href.replace(oids[0], oids[1]), other)[0] == 403
    assert place.raw("PUT", href.replace("size=4", "size=5"), data)[0] == 403
    assert place.raw("PUT", href.replace("expires=", "expires=9"), data)[0] == 403
    assert place.raw("PUT", href.split("?")[0], data)[0] == 403
    assert place.raw("POST", local(actions["verify"]["href"]), json.dumps({"oid": oids[0], "size": 4}).encode())[0] == 404
    monkeypatch.setattr(lfs, "LIFETIME", -1)
    assert place.raw("PUT", local(batch(place, ann, oids[0], 4)["upload"]["href"]), data)[0] == 403
    monkeypatch.undo()
    stale = local(batch(place, ann, oids[0], 4)["upload"]["href"])
    ann.delete_repo(repo)
    assert place.raw("PUT", stale, data)[0] == 404


def test_knowing_a_digest_does_not_open_the_file(place: Place, ann: HfApi) -> None:
    ann.create_repo("ann/secret", private=True)
    data = b"\0only for ann"
    ann.upload_file(path_or_fileobj=data, path_in_repo="w.bin", repo_id="ann/secret")
    bob = place.api("bob")
    bob.create_repo("bob/probe")
    oid = hashlib.sha256(data).hexdigest()
    assert batch(place, bob, oid, len(data), "bob/probe") is not None
    assert commit(place, bob, {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": oid}}, repo="bob/probe")[0] == 400
    # The commit of a private repo is no commit of another one.
    assert place.raw("GET", f"/api/models/bob/probe/revision/{ann.model_info('ann/secret').sha}")[0] == 404


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b"nonsense", b'{"name": 1}', b'{"name": NaN}', b'{"name": "x", "type": "kernel"}', b'{"name": "\\ud800"}', b"[" * 100_000, b"\xff"]
)
def test_bodies_that_make_no_sense_are_bad_requests(place: Place, ann: HfApi, repo: str, body: bytes) -> None:
    assert place.raw("POST", "/api/repos/create", body, headers(ann))[0] == 400
    for address in ("commit/main", "preupload/main", "tag/main", "discussions"):
        assert place.raw("POST", f"/api/models/{repo}/{address}", body, headers(ann))[0] == 400


def test_oversized_bodies_are_refused_while_they_come(place: Place, ann: HfApi, repo: str) -> None:
    def endless() -> object:
        for _ in range(64):
            yield b"x" * (1 << 20)

    for address in ("/api/repos/create", f"/api/models/{repo}/commit/main"):
        try:
            status = httpx2.post(place.url + address, content=endless(), headers=headers(ann)).status_code
        except httpx2.HTTPError:
            continue  # the Hub hung up while the body was still being sent
        assert status == 413


def test_a_full_disk_is_said_so_at_once(place: Place, ann: HfApi, repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    head = ann.model_info(repo).sha
    for target in ("hub.objects.Incoming.write", "hub.objects.os.fsync", "hub.disk.os.fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(target, full)
            with pytest.raises((RuntimeError, HfHubHTTPError)) as info:
                ann.create_commit(repo, [CommitOperationAdd("w.bin", b"\0weights")], commit_message="x")
            error = info.value if isinstance(info.value, HfHubHTTPError) else info.value.__cause__
            assert isinstance(error, HfHubHTTPError)
            assert error.response.status_code == 507
        assert ann.model_info(repo).sha == head
        assert list((place.root / "tmp").iterdir()) == []
    ann.create_commit(repo, [CommitOperationAdd("w.bin", b"\0weights")], commit_message="x")


def test_files_are_not_run_by_a_browser(place: Place, ann: HfApi, repo: str) -> None:
    ann.upload_file(path_or_fileobj=b"<script>alert(1)</script>", path_in_repo="x.html", repo_id=repo)
    _, answer, _ = place.raw("GET", f"/{repo}/resolve/main/x.html")
    assert answer["content-type"].startswith("text/plain")
    assert answer["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer["content-security-policy"]


def test_pages_for_people_escape_everything(place: Place, ann: HfApi, repo: str) -> None:
    card = b"---\nlicense: mit\ntags: ['<script>']\n---\n<script>alert(1)</script>"
    ann.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repo, commit_message="<script>")
    ann.upload_file(path_or_fileobj=b"\0" * 1500, path_in_repo="<script>.bin", repo_id=repo)
    status, answer, page = place.raw("GET", f"/{repo}")
    assert status == 200
    assert b"<script>" not in page
    assert b"&lt;script&gt;.bin" in page
    assert b"1.5 kB" in page
    assert "default-src 'none'" in answer["content-security-policy"]
    assert b"ann/thing" in place.raw("GET", "/")[2]


def test_everything_else_is_a_harmless_404(place: Place, ann: HfApi, repo: str) -> None:
    for address in ("/api/agent-harnesses", "/api/telemetry/x", f"/api/models/{repo}/likers", "/favicon.ico", "/v2/"):
        assert place.raw("GET", address)[0] == 404
    status, answer, _ = place.raw("GET", f"/api/models/{repo}/xet-write-token/main")
    assert status == 404
    assert "HF_HUB_DISABLE_XET=1" in answer["x-error-message"]
    # Repos without a namespace do not exist here, which the client is told as of any repo that does not.
    for address in ("/api/models/gpt2", "/gpt2/resolve/main/config.json"):
        assert place.raw("GET", address)[1]["x-error-code"] == "RepoNotFound"
