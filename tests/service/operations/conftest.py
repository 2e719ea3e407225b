"""A service elsewhere, and what is asked of it by command: over HTTP, or of its database."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import Result
from structlog.testing import capture_logs
from typer.testing import CliRunner

from config.settings import Settings
from config.words import Hold
from service.api import create_app
from service.api.listening import listening
from service.api.tokens import create_token
from service.cli.main import app
from service.store import KeptRecipe, Store, open_store
from service.store.access import Grant
from tests.service.helpers import judged_run, queue_run


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
        return self._called({"SLUICE_HOME": str(self.settings.home), "SLUICE_NAMESPACE": "ours"}, words)

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


def held(store: Store, repo: str) -> int:
    """A run that waits for a person."""
    run = queue_run(store, repo).id
    store.lease("worker", seconds=60, run=run)
    store.record_holds(run, [Hold(subject="licence", reason="The licence is not stated.")])
    store.finish(run, state="held")
    return run


@pytest.fixture
def there(tmp_path: Path) -> Iterator[There]:
    """A service that has judged a run, holds one, and has one in its queue."""
    settings = Settings(home=tmp_path / "home", hub_endpoint="http://127.0.0.1:1", namespace="ours")
    store = open_store(settings.database)
    run = judged(store, "upstream/first")
    digest = store.run(run).recipe_digest
    store.keep_recipe(KeptRecipe(digest=digest, content={"name": "small", "variants": {"gguf": ["IQ1_S"]}}, sources=()))
    log = settings.folder / "logs" / f"run-{run}" / "quantize-IQ1_S.log"
    log.parent.mkdir(parents=True)
    log.write_text("one line\n[and another]\n")
    held(store, "upstream/second")
    queue_run(store, "upstream/third")
    store.put_hints({"upstream/fourth": "poll"})
    store.defer_hint(store.hints()[0], error="Gate x is on kld.meen.", seconds=60)
    token = create_token(store, "desk")
    with capture_logs(), listening(create_app(store, settings), "127.0.0.1", 0, per_client=64) as url:  # a service's log is not on our standard output
        yield There(store=store, settings=settings, url=url, token=token, folder=tmp_path / "elsewhere")
    store.close()


@pytest.fixture
def token_for(there: There) -> Callable[..., str]:
    """A new token of the service."""

    def make(grant: Grant) -> str:
        return create_token(there.store, f"token-{len(there.store.tokens())}", grant)

    return make
