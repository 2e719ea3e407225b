"""A service elsewhere, and what is asked of it by command: over HTTP, or of its database."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import Result
from structlog.testing import capture_logs
from typer.testing import CliRunner

from bench.short_way import short
from config.settings import Settings
from config.words import Hold
from service.api import create_app
from service.api.listening import listening
from service.api.tokens import create_token
from service.cli.main import app
from service.runs import gates, holds, steering
from service.store import KeptRecipe, Store, open_store
from service.store.access import Grant
from tests.service.conftest import Upstream
from tests.service.helpers import judged_run, queue_run
from tests.service.release.short_way import ShortWay

SMALL = {"name": "small", "variants": {"gguf": ["IQ1_S"]}}  # a recipe


@dataclass(frozen=True, kw_only=True)
class There:
    """A service with a few runs, and commands that ask it from another machine, or from its own."""

    store: Store
    settings: Settings
    url: str
    token: str
    folder: Path  # of the other machine

    def local(self, *words: str | int) -> Result:
        """A command on the service's machine."""
        hub = {} if self.settings.hub_token is None else {"SLUICE_HUB_TOKEN": self.settings.hub_token.get_secret_value()}
        return self._called({"SLUICE_HOME": str(self.settings.home), "SLUICE_NAMESPACE": "ours", **hub}, words)

    def remote(self, *words: str | int, **environment: str) -> Result:
        """The same on another machine."""
        home = {"SLUICE_HOME": str(self.folder), "SLUICE_SERVER": self.url, "SLUICE_SERVER_TOKEN": self.token}
        return self._called(home | environment, words)

    def _called(self, environment: dict[str, str], words: tuple[str | int, ...]) -> Result:
        where = {"SLUICE_HUB_ENDPOINT": self.settings.hub_endpoint, "COLUMNS": "120", "SLUICE_SERVER": "", "SLUICE_SERVER_TOKEN": ""}
        return CliRunner().invoke(app, [*map(str, words)], env=where | environment)


def judged(store: Store, repo: str) -> int:
    """A run that was blocked by one gate, and published one repo, with a recipe that no other has."""
    return judged_run(store, repo, recipe_digest=f"{repo:_<64}")


def kept(store: Store, repo: str) -> int:
    """The same, whose recipe is kept with it."""
    run = judged(store, repo)
    store.keep_recipe(KeptRecipe(digest=store.run(run).recipe_digest, content=SMALL, sources=()))
    return run


def waived(store: Store, repo: str) -> int:
    """The same, with its gate set aside."""
    run = judged(store, repo)
    gates.waive(store, run, gates.Decision(gate="divergence", tag="IQ1_S", by="Ada", comment="fine"), unmeasured=False)
    return run


def paused(store: Store, repo: str) -> int:
    """A run that is put aside."""
    run = queue_run(store, repo).id
    steering.pause(store, run, steering.Actor())
    return run


def held(store: Store, repo: str) -> int:
    """A run that waits for a person."""
    run = queue_run(store, repo).id
    store.lease("worker", seconds=60, run=run)
    store.record_holds(run, [Hold(subject="licence", reason="The licence is not stated.")])
    store.finish(run, state="held")
    return run


def approved(store: Store, repo: str) -> int:
    """The same, and a person let it go on."""
    run = held(store, repo)
    holds.approve(store, run, holds.Decision(by="Ada", comment="fine"))
    return run


@contextmanager
def serving(store: Store, settings: Settings, folder: Path) -> Iterator[There]:
    """The service on that store, asked from a machine that has that folder."""
    token = create_token(store, "desk")
    with capture_logs(), listening(create_app(store, settings), "127.0.0.1", 0, per_client=64) as url:  # a service's log is not on our standard output
        yield There(store=store, settings=settings, url=url, token=token, folder=folder)


@pytest.fixture
def there(tmp_path: Path) -> Iterator[There]:
    """A service that has judged a run, holds one, and has one in its queue."""
    settings = Settings(home=tmp_path / "home", hub_endpoint="http://127.0.0.1:1", namespace="ours")
    store = open_store(settings.database)
    run = kept(store, "upstream/first")
    log = settings.folder / "logs" / f"run-{run}" / "quantize-IQ1_S.log"
    log.parent.mkdir(parents=True)
    log.write_text("one line\n[and another]\n")
    held(store, "upstream/second")
    queue_run(store, "upstream/third")
    store.put_hints({"upstream/fourth": "poll"})
    store.defer_hint(store.hints()[0], error="Gate x is on kld.meen.", seconds=60)
    with serving(store, settings, tmp_path / "elsewhere") as made:
        yield made
    store.close()


@dataclass(frozen=True, kw_only=True)
class ThereAtAHub:
    """A service beside a Hub on which it has published two commits of a model, the older one by run 1."""

    there: There
    way: ShortWay


@pytest.fixture
def at_a_hub(upstream: Upstream, file_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThereAtAHub]:
    """The same."""
    short(monkeypatch, tmp_path / "built")
    way = ShortWay(upstream=upstream, store=file_store)
    way.released()
    upstream.release()
    way.released()
    with serving(file_store, upstream.settings, tmp_path / "elsewhere") as there:
        yield ThereAtAHub(there=there, way=way)


@pytest.fixture
def token_for(there: There) -> Callable[..., str]:
    """A new token of the service."""

    def make(grant: Grant) -> str:
        return create_token(there.store, f"token-{len(there.store.tokens())}", grant)

    return make
