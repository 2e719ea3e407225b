"""What is told of an upload, from the embedded Hub with the real client."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from hub.server import running
from hub.tokens import create_token
from publishers import sending
from publishers.hub import publish
from tests.heard import hearing, whole
from tests.publishers.conftest import MakePlan

LARGE = 3_000_000  # bytes; a GGUF goes by LFS whatever its size


@pytest.mark.parametrize("xet", [False, True], ids=["as bytes go out", "file by file, as with Xet"])
def test_bytes_are_told_up_to_the_last(tmp_path: Path, xet: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    (tmp_path / "hub").mkdir()
    files = []
    for number in range(2):
        files.append(tmp_path / f"{number}.gguf")
        files[-1].write_bytes(bytes([number]) * LARGE)
    with running(tmp_path / "hub") as url:
        api = HfApi(endpoint=url, token=create_token(tmp_path / "hub", user="acme"))
        api.create_repo("acme/model")
        if xet:  # the embedded Hub does not speak it, and the client knows by its own name for the setting
            monkeypatch.setattr(sending, "constants", type("Constants", (), {"HF_HUB_DISABLE_XET": False}))
        operations: list[sending.Operation] = [sending.Addition(path_in_repo=file.name, path_or_fileobj=file) for file in files]
        operations.append(sending.Addition(path_in_repo="notes.txt", path_or_fileobj=b"small"))
        with hearing() as found:
            sending.upload(api, "acme/model", operations)
        made = api.create_commit("acme/model", operations, commit_message="both").oid
        assert whole(found, "bytes") == [2 * LARGE + len(b"small")]
        assert len({item.done for item in found}) > (3 if xet else 20), "more often than once a file unless only files are heard of"
        held = set(api.list_repo_files("acme/model", revision=made))
        assert {"0.gguf", "1.gguf", "notes.txt"} <= held
        with hearing() as found:  # the same bytes under another name are there already
            sending.upload(api, "acme/model", [sending.Addition(path_in_repo="copy.gguf", path_or_fileobj=files[0])])
        assert whole(found, "bytes") == [LARGE]


def test_a_publication_tells_bytes(tmp_path: Path, make_plan: MakePlan) -> None:
    (tmp_path / "hub").mkdir()
    with running(tmp_path / "hub") as url:
        api = HfApi(endpoint=url, token=create_token(tmp_path / "hub", user="acme"))
        plan = make_plan(content=bytes(LARGE))
        with hearing() as found:
            publish(api, plan)
    (size,) = whole(found, "bytes")
    assert size > LARGE
