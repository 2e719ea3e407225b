from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from huggingface_hub import HfApi

from config.errors import HubError
from publishers.wire import hub_errors, redact

TOKEN = "hf_" + "A1b2" * 8


@pytest.fixture
def broken_hub(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that answers everything with the status of the test's parameter and repeats the token it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(request.param)
            self.send_header("X-Error-Message", f"Not now, {self.headers['Authorization']}")
            self.send_header("X-Request-Id", "abc123")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


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
