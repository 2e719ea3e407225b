import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hf_xet import XetConfig, XetSession
from huggingface_hub import HfApi

from builders.asking import in_words
from config.errors import HubError, HubUnavailable
from publishers.wire import hub_errors, redact
from tests.answering import Answer, Request, answering

TOKEN = "hf_" + "A1b2" * 8


@pytest.fixture
def broken_hub(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that answers everything with the status of the test's parameter and repeats the token it was sent."""

    def answer(asked: Request) -> Answer:
        return request.param, {"X-Error-Message": f"Not now, {asked.headers['Authorization']}", "X-Request-Id": "abc123"}, b""

    with answering(answer) as url:
        yield url


@pytest.mark.parametrize(
    ("broken_hub", "advice"),
    [
        (503, "fault of the Hub. Run it again later"),
        (429, "too many requests"),
        (403, "Use one with write permission"),
        (418, "Correct what it complains about"),
    ],
    indirect=["broken_hub"],
)
def test_what_a_person_reads(broken_hub: str, advice: str, request: pytest.FixtureRequest) -> None:
    api = HfApi(endpoint=broken_hub, token=TOKEN)
    with pytest.raises(HubError) as caught, hub_errors(api, "look up acme/x"):
        api.repo_info("acme/x")
    message = str(caught.value)
    assert message.startswith(f"Could not look up acme/x: the Hub at {broken_hub} answered ")
    assert advice in message
    assert "(request abc123)" in message
    assert "\n" not in message
    assert TOKEN not in message
    assert caught.value.__cause__ is None  # its text repeats the token


def test_an_answer_that_is_no_json_passes() -> None:
    """As a proxy's page, which may come with any status."""
    with answering(lambda asked: (200, {}, b"<html>Back in a minute</html>")) as url:
        api = HfApi(endpoint=url, token=TOKEN)
        with pytest.raises(HubUnavailable) as caught, hub_errors(api, "look up acme/x"):
            api.repo_info("acme/x")
    assert str(caught.value).startswith(f"Could not look up acme/x: the Hub at {url} gave an answer that is not JSON (Expecting value: ")
    assert "check `hub_endpoint`" in str(caught.value)


def test_an_upload_that_broke_says_why() -> None:
    def upload() -> None:
        raise RuntimeError("Error while uploading 'x.gguf' to the Hub.") from ValueError("disk on fire")

    with pytest.raises(HubError, match=r"Error while uploading 'x.gguf' to the Hub. The Hub at .*disk on fire") as caught, hub_errors(HfApi(), "publish"):
        upload()
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"Bearer {TOKEN}\nnext", "Bearer [token] next"),
        ("PUT https://store.example/a/b?X-Signature=deadbeef&x=1 failed", "PUT https://store.example/a/b?… failed"),
        ("secret word", "[token] word"),
        ("plain https://hub.example/api", "plain https://hub.example/api"),
    ],
)
def test_redact(text: str, shown: str) -> None:
    assert redact(text, "secret\n") == shown


def xet(request: Request) -> Answer:
    """A Hub that hands out tokens for Xet, or refuses that, and whose Xet answers with the status in its path."""
    place, _, status = request.path.strip("/").partition("/")[0].partition("-")
    if place != "token":
        return int(status), {}, b""
    return 200, {}, json.dumps({"accessToken": "t", "exp": int(time.time()) + 3600, "casUrl": f"http://{request.headers['Host']}/cas-{status}"}).encode()


@pytest.fixture
def xet_hub() -> Iterator[str]:
    with answering(xet) as url:
        yield url


@pytest.mark.parametrize(
    ("path", "passing"), [("token-503", True), ("token-403", False), ("refused-500", True), ("refused-401", True), ("refused-404", False), (None, True)]
)
def test_what_becomes_of_an_upload_over_xet(xet_hub: str, path: str | None, passing: bool) -> None:
    """Its client raises Python's own ConnectionError for all of it."""
    api = HfApi(endpoint=xet_hub, token=TOKEN)
    address = f"{xet_hub}/{path}" if path else "http://127.0.0.1:1/"
    session = XetSession(XetConfig().with_config("client.retry_max_attempts", 1))
    for words in (hub_errors(api, "publish acme/x"), in_words(api, "acme/x", "main")):
        with pytest.raises(HubError) as caught, words, session.new_upload_commit(token_refresh_url=address, token_refresh_headers={}) as commit:
            commit.start_upload_bytes(os.urandom(100_000))
        assert isinstance(caught.value, HubUnavailable) is passing, caught.value


def test_a_file_of_ours_that_cannot_be_read_is_no_fault_of_the_hub(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), hub_errors(HfApi(token=TOKEN), "publish acme/x"):
        (tmp_path / "gone").read_bytes()
    with pytest.raises(PermissionError), hub_errors(HfApi(token=TOKEN), "publish acme/x"):
        raise PermissionError(13, "Permission denied", "/root/file")
