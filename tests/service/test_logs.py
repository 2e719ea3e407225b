import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from service.logs import configure_logs, redact

HUB = "hf_" + "aB3" * 12
OURS = "sluice_" + "x-_9" * 11


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logs(stream=stream, secrets=["webhook-secret", None, ""])
    yield stream
    root.handlers[:], root.level = before[0], before[1]
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"token {HUB} refused", "token hf_[hidden] refused"),
        (f"token={OURS}", "token=sluice_[hidden]"),
        ("Authorization: Bearer abcdefghijkl", "Authorization: Bearer [hidden]"),
        ("postgresql+psycopg://sluice:pass-word@db/sluice", "postgresql+psycopg://sluice:[hidden]@db/sluice"),
        ("http://127.0.0.1:8080/a@b", "http://127.0.0.1:8080/a@b"),
        ("sluice_token, hf_hub, the bearer of news", "sluice_token, hf_hub, the bearer of news"),
    ],
)
def test_secrets_are_taken_out_and_nothing_else(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_no_secret_reaches_the_log_by_message_field_context_or_traceback(lines: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id=HUB):
        structlog.get_logger("ours").warning(f"message {HUB}", field=OURS, nested={"secret": ["webhook-secret"]})
    logging.getLogger("library").error("asked with %s and %s", HUB, "webhook-secret", extra={"field": OURS})
    try:
        int(HUB)
    except ValueError:
        logging.getLogger("library").exception("failed")
    written = lines.getvalue()
    assert len(written.splitlines()) == 3
    for secret in (HUB, OURS, "webhook-secret"):
        assert secret not in written


def test_lines_are_json_with_time_level_and_context(lines: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="abc"):
        structlog.get_logger("ours").info("run queued", run=7)
        logging.getLogger("library").info("hello %s", "there", extra={"action": "greet"})
        logging.getLogger("library").debug("unheard")
    ours, theirs = (json.loads(line) for line in lines.getvalue().splitlines())
    assert ours.pop("timestamp").endswith("Z")
    assert ours == {"event": "run queued", "run": 7, "request_id": "abc", "level": "info", "logger": "ours"}
    assert (theirs["event"], theirs["action"], theirs["request_id"], theirs["logger"]) == ("hello there", "greet", "abc", "library")
