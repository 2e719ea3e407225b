"""Empty stores, and a Hub to watch, for the tests of the service."""

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from pydantic import SecretStr

from bench.clock import Clock
from config.settings import Settings, Watched
from hub.server import running
from hub.tokens import create_token
from service.store import Store, database, open_store, owner

DEMO = Path(__file__).parents[2] / "demo"
RECIPE = """
name: small
variants: {gguf: [Q4_0]}
calibration: {plain: [text.txt]}
evaluation:
  divergence: {plain: [text.txt]}
  mmlu: {data: MMLU}
  generation: {prompts: [Hello]}
gates: [{name: close, measure: kld.mean, at_most: 0.1}]
read_back: none
""".replace("MMLU", str(DEMO / "data" / "tiny_mmlu"))


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """An empty store on each kind of database in turn."""
    opened = open_store(database_url)
    yield opened
    opened.close()


@pytest.fixture
def file_store(tmp_path: Path) -> Iterator[Store]:
    """An empty store on SQLite in a folder that was not there, for tests to which the kind of database is all the same."""
    opened = open_store(f"sqlite:///{tmp_path / 'home' / 'sluice.db'}")
    yield opened
    opened.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The store's clock, which stands still until it is set."""
    made = Clock()
    for module in (database, owner):
        monkeypatch.setattr(module, "datetime", made)
    return made


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """An embedded Hub on which somebody releases models, and the settings of a service that watches them."""

    settings: Settings
    author: HfApi

    def release(self, repo: str = "upstream/model", *, private: bool = False) -> str:
        """Commit something new to a repo, made when it is not there; the commit's sha."""
        if not self.author.repo_exists(repo):
            self.author.create_repo(repo, private=private)
            self.author.upload_folder(repo_id=repo, folder_path=DEMO / "model")
        content = json.dumps(json.loads((DEMO / "model" / "config.json").read_bytes()) | {"seed": secrets.token_hex()}).encode()
        return self.author.upload_file(path_or_fileobj=content, path_in_repo="config.json", repo_id=repo).oid


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    """A Hub with the model `upstream/model`, watched by a service that publishes as `ours`."""
    root = tmp_path / "hub"
    root.mkdir()
    with running(root) as endpoint:
        recipe = tmp_path / "small.yaml"
        recipe.write_text(RECIPE, encoding="utf-8")
        (tmp_path / "text.txt").write_text("Some text.\n", encoding="utf-8")
        settings = Settings(
            home=tmp_path / "home",
            hub_endpoint=endpoint,
            hub_token=SecretStr(create_token(root, user="ours", orgs=("upstream",))),
            webhook_secret=SecretStr("secret-of-the-webhook"),
            watch=(Watched(repo="upstream/model", recipe=str(recipe)),),
            api_port=0,
        )
        made = Upstream(settings=settings, author=HfApi(endpoint=endpoint, token=create_token(root, user="upstream")))
        made.release()
        yield made
