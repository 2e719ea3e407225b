"""Bytes of what a run's stages made: whole or in parts, of that run alone, and only as long as they are kept."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.execution.kept import StageStore
from service.store import Store
from tests.service.helpers import kept_file, queue_run

Headers = dict[str, str]
CONTENT = os.urandom(200_000)
PATH = "/runs/{id}/artifacts/{sha256}"


@pytest.fixture
def run(file_store: Store) -> int:
    found = queue_run(file_store).id
    file_store.lease("worker", seconds=600, run=found)
    return found


@pytest.fixture
def sha256(file_store: Store, run: int, tmp_path: Path) -> str:
    return kept_file(file_store, tmp_path / "home", run, "convert", "sub/modèl.gguf", CONTENT)


def test_a_file_is_fetched_whole_or_in_parts(api: TestClient, run: int, sha256: str, token_for: Callable[..., Headers]) -> None:
    bearer = token_for("read")
    (listed,) = api.get(f"/runs/{run}/artifacts", headers=bearer).json()
    assert (listed["name"], listed["sha256"], listed["bytes"]) == ("sub/modèl.gguf", sha256, len(CONTENT))
    path = f"/runs/{run}/artifacts/{sha256}"
    whole = api.get(path, headers=bearer)
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert whole.headers["ETag"] == f'"{sha256}"'
    assert whole.headers["Accept-Ranges"] == "bytes"
    assert whole.headers["Content-Type"] == "application/octet-stream"
    assert whole.headers["Content-Disposition"] == "attachment; filename*=utf-8''mod%C3%A8l.gguf"
    part = api.get(path, headers={**bearer, "Range": "bytes=150000-", "If-Range": f'"{sha256}"'})
    assert (part.status_code, part.content) == (206, CONTENT[150_000:])
    assert part.headers["Content-Range"] == "bytes 150000-199999/200000"
    another = api.get(path, headers={**bearer, "Range": "bytes=150000-", "If-Range": '"another"'})
    assert (another.status_code, another.content) == (200, CONTENT), "parts of two files are none"
    assert api.get(path, headers={**bearer, "Range": "lines=1-2"}).status_code == 200, "what nobody understands is ignored"
    known = api.get(path, headers={**bearer, "If-None-Match": f'"{sha256}"'})
    assert (known.status_code, known.content, known.headers["ETag"]) == (304, b"", f'"{sha256}"')


def test_bytes_that_it_does_not_have_are_refused_in_words(api: TestClient, run: int, sha256: str, token_for: Callable[..., Headers]) -> None:
    answer = api.get(f"/runs/{run}/artifacts/{sha256}", headers={**token_for("read"), "Range": "bytes=200000-"})
    assert (answer.status_code, answer.headers["Content-Type"], answer.json()["code"]) == (416, "application/problem+json", "no_such_bytes")
    assert answer.headers["Content-Range"] == "bytes */200000"
    assert answer.json()["detail"] == "The file has 200,000 bytes, and 'bytes=200000-' names none of them."


def test_what_is_kept_no_more_is_told_from_what_never_was(
    api: TestClient, file_store: Store, run: int, sha256: str, tmp_path: Path, token_for: Callable[..., Headers]
) -> None:
    bearer, home = token_for("read"), tmp_path / "home"
    other = queue_run(file_store, "upstream/other").id
    for path in (f"/runs/{other}/artifacts/{sha256}", f"/runs/{run}/artifacts/{'0' * 64}"):
        answer = api.get(path, headers=bearer)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), "what another run made is not this one's"
        assert answer.json()["detail"].startswith(f"No stage of run {path.split('/')[2]} made a file with the sha256 {path[-64:]}. ")
    assert api.get(f"/runs/{run}/artifacts/sub/mod%C3%A8l.gguf", headers=bearer).status_code == 404
    assert api.get(f"/runs/{run}/artifacts/..%2F..%2Fsluice.db", headers=bearer).status_code in {404, 422}
    assert api.get(f"/runs/{run}/artifacts/{sha256}").status_code == 401
    StageStore(home).throw_away(f"convert-of-{run}")
    gone = api.get(f"/runs/{run}/artifacts/{sha256}", headers=bearer)
    assert (gone.status_code, gone.headers["Content-Type"], gone.json()["code"]) == (410, "application/problem+json", "not_kept")
    assert gone.json()["detail"] == (
        f"modèl.gguf, which stage convert of run {run} made, is not kept on the service's machine any more. `sluice redo {run} convert` makes it again."
    )
    assert str(tmp_path) not in gone.text


def test_what_was_changed_on_the_disk_is_not_sent(api: TestClient, run: int, sha256: str, tmp_path: Path, token_for: Callable[..., Headers]) -> None:
    (path,) = (tmp_path / "home" / "stages").rglob("*.gguf")
    path.chmod(0o600)
    path.write_bytes(CONTENT[:-1] + b"x" if not CONTENT.endswith(b"x") else CONTENT[:-1] + b"y")
    assert api.get(f"/runs/{run}/artifacts/{sha256}", headers=token_for("read")).status_code == 410


def test_it_is_described(api: TestClient) -> None:
    said = api.get("/openapi.json").json()["paths"][f"/api/v1{PATH}"]["get"]
    assert set(said["responses"]) == {"200", "206", "304", "401", "404", "410", "416", "422", "429", "503"}
    assert said["responses"]["200"]["content"].keys() == {"application/octet-stream"}
    parameters = {item["name"]: item for item in said["parameters"]}
    assert re.fullmatch(parameters["sha256"]["schema"]["pattern"], parameters["sha256"]["example"])
    assert {"Range", "If-None-Match"} <= parameters.keys()
