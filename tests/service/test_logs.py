import io
import json
import logging
from pathlib import Path

import pytest
import structlog

from config.settings import Settings
from service.daemon.worker import Worker
from service.execution.kept import StageStore
from service.execution.workbench import Workbench
from service.logs import configure_logs, redact
from service.store import RunRecord, Store
from tests.service import stage_functions
from tests.service.helpers import queue_run

HUB = "hf_" + "aB3" * 12
OURS = "sluice_" + "x-_9" * 11


@pytest.fixture
def lines() -> io.StringIO:
    stream = io.StringIO()
    configure_logs(stream=stream, secrets=["webhook-secret", None, ""])
    return stream


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"token {HUB} refused", "token hf_[hidden] refused"),
        (f"token={OURS}", "token=sluice_[hidden]"),
        ("Authorization: Bearer abcdefghijkl", "Authorization: Bearer [hidden]"),
        ("postgresql+psycopg://sluice:pass-word@db/sluice", "postgresql+psycopg://sluice:[hidden]@db/sluice"),
        ("http://127.0.0.1:8080/a@b", "http://127.0.0.1:8080/a@b"),
        ("printed \0 and ended", "printed \N{REPLACEMENT CHARACTER} and ended"),
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


def test_what_is_logged_for_a_run_says_of_which_run_and_stage_it_is(lines: io.StringIO, file_store: Store, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    bench = Workbench(settings=settings, stages=StageStore(settings.folder))

    def execute(store: Store, run: RunRecord) -> None:
        bench.here("say it", stage_functions.say, {})
        logging.getLogger("library").warning("bye")
        store.finish(run.id, state="done")
        worker.stop()

    run, worker = queue_run(file_store).id, Worker(file_store, execute)
    worker.work()
    told = {line["event"]: line for line in map(json.loads, lines.getvalue().splitlines())}
    assert (told["hello"]["run"], told["hello"]["stage"], told["hello"]["stage_id"]) == (run, "say it", 0)
    assert told["bye"]["run"] == run
    assert "stage" not in told["bye"]
