"""What all tests share: a quiet, offline environment, set before any library reads it, and databases of their own."""

import fcntl
import logging
import os
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ |= {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",  # the embedded Hub speaks LFS
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "OMP_NUM_THREADS": "1",
    "SLUICE_THREADS": "1",  # workers are as many as cores: threads that spin where another worker computes only wait for one another
    "TOKENIZERS_PARALLELISM": "false",
    "NO_COLOR": "1",
}
for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "SLUICE_HUB_TOKEN", "SLUICE_CONFIG", "SLUICE_HOME", "SLUICE_DATABASE_URL", "COLUMNS", "LINES"):
    os.environ.pop(name, None)  # the tests are nobody's account, installation or terminal

# in the background and under nohup these are ignored, and so they would be by everything that the tests start
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import sqlalchemy

if TYPE_CHECKING:
    from engines.environments import Environment

BEGAN = time.monotonic()
MINUTES = float(os.environ.get("TEST_MINUTES", "inf"))
POSTGRES = os.environ.get("SLUICE_TEST_POSTGRES", "postgresql+psycopg://127.0.0.1:5432/postgres")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, those with most of them before others: workers take whole files, and so end together."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where time is bounded, what is slow and has not begun by then is skipped, and said to be."""
    if time.monotonic() - BEGAN > 60 * MINUTES and item.get_closest_marker("slow"):
        pytest.skip(f"the tests have taken {MINUTES:g} minutes by now (TEST_MINUTES), and this one is slow")


@pytest.fixture(autouse=True)
def _turn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where several workers run tests, one that is marked `alone` waits until the others have ended theirs, and they wait for it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    shared = tmp_path_factory.getbasetemp().parent
    with (shared / "turn").open("w") as turn, (shared / "machine").open("w") as machine:
        fcntl.flock(turn, fcntl.LOCK_EX)  # whoever waits for the machine is the next to have it
        fcntl.flock(machine, fcntl.LOCK_EX if request.node.get_closest_marker("alone") else fcntl.LOCK_SH)
        fcntl.flock(turn, fcntl.LOCK_UN)
        yield


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """What a test made of the logs ends with it: a service that began in this process would go on writing to a screen that is closed."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    if (structlog := sys.modules.get("structlog")) is not None:
        structlog.reset_defaults()


@pytest.fixture(scope="session")
def fetched() -> Callable[["Environment"], None]:
    """Fetches libraries that are not there yet from their registry; skips when that cannot be asked for them."""
    from config.errors import ToolError
    from engines import environments

    def fetch(environment: "Environment") -> None:
        try:
            environments.install(environment)
        except ToolError as error:
            pytest.skip(str(error))

    return fetch


@pytest.fixture(scope="session")
def go(fetched: Callable[["Environment"], None]) -> str:
    """The version of Go, fetched where the machine has none."""
    from engines import environments, go_template

    if go_template.version() is None:
        fetched(environments.GO)
        go_template.version.cache_clear()
    version = go_template.version()
    assert version is not None
    return version


@pytest.fixture
def killed_converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp's converter, as it is where the kernel kills it."""
    from engines import toolchain

    (script := tmp_path / "killed" / "convert_hf_to_gguf.py").parent.mkdir()
    script.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", encoding="utf-8")
    monkeypatch.setattr(toolchain, "converter", lambda: script)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[sqlalchemy.Engine]:
    """An account on a PostgreSQL server that may create databases; skips when there is none."""
    engine = sqlalchemy.create_engine(POSTGRES, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3})
    shown = engine.url.render_as_string(hide_password=True)
    try:
        engine.connect().close()
    except sqlalchemy.exc.OperationalError as error:
        pytest.skip(f"no PostgreSQL at {shown} ({str(error.orig).strip()}); set SLUICE_TEST_POSTGRES to the URL of one")
    yield engine
    engine.dispose()


@pytest.fixture
def postgres_url(postgres_server: sqlalchemy.Engine) -> Iterator[str]:
    """SQLAlchemy URL of an empty PostgreSQL database, dropped after the test."""
    name = f"sluice_test_{secrets.token_hex(6)}"
    with postgres_server.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    yield postgres_server.url.set(database=name).render_as_string(hide_password=False)
    with postgres_server.connect() as connection:
        connection.execute(sqlalchemy.text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """SQLAlchemy URL of an empty database; a test that takes it runs on SQLite and on PostgreSQL."""
    return f"sqlite:///{tmp_path / 'test.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


def pytest_unconfigure() -> None:
    """Close what llama-cpp-python opens when it is imported and never closes: Python would warn of it at its end."""
    if (utils := sys.modules.get("llama_cpp._utils")) is not None:
        utils.outnull_file.close()
        utils.errnull_file.close()
