"""A database server that does not answer is waited for, but not for ever."""

import socket
import time

import pytest

from config.errors import ConfigurationError
from service.store import database, open_store
from service.store.database import Database


@pytest.fixture
def silent():
    """The port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(("usual", "asked"), [(2, ""), (3600, "?connect_timeout=2")], ids=["as usual", "what the URL says goes before"])
def test_a_server_that_says_nothing_is_given_up(silent: int, monkeypatch: pytest.MonkeyPatch, usual: int, asked: str) -> None:
    monkeypatch.setitem(database.PATIENCE, "connect_timeout", usual)
    began = time.monotonic()
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        open_store(f"postgresql+psycopg://sluice@127.0.0.1:{silent}/sluice{asked}")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("name", ["tcp_user_timeout", "keepalives_idle"])
def test_a_connection_that_breaks_without_a_word_is_noticed(database_url: str, name: str) -> None:
    if not database_url.startswith("postgresql"):
        pytest.skip("SQLite has no connection that could break")
    engine = database.connect(database_url)
    with engine.connect() as connection:
        told = {item.keyword.decode(): item.val for item in connection.connection.driver_connection.pgconn.info}  # type: ignore[union-attr]
    assert told[name] == str(database.PATIENCE[name]).encode()
    Database(engine).close()
