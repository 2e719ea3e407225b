"""A service on the short way: a real upstream, hold, publication, database and Hub, and between them nothing that takes time."""

from dataclasses import dataclass
from typing import Any

from huggingface_hub import HfApi

from config.settings import Settings
from publishers import manifest as manifests
from publishers.manifest import Manifest
from publishers.naming import MANIFEST
from publishers.target import download
from service.execution.workbench import Listener
from service.hubclient import connect
from service.release import lifecycle
from service.release.intake import ReleaseRequest, queue_release
from service.runs.summary import summary
from service.store import RunRecord, Store
from tests.service.conftest import Upstream

REPO = "ours/model-GGUF"


@dataclass(kw_only=True)
class ShortWay:
    """A service that publishes a file with the commit's sha in it instead of a model."""

    upstream: Upstream
    store: Store

    @property
    def settings(self) -> Settings:
        return self.upstream.settings

    @property
    def api(self) -> HfApi:
        return connect(self.settings)

    def queued(self, revision: str = "main", **changes: Any) -> RunRecord:
        """The run of what a revision of the upstream names now."""
        recipe = self.settings.watch[0].recipe
        wanted = ReleaseRequest(repo="upstream/model", revision=revision, recipe=recipe, trigger="command")
        return queue_release(self.store, self.settings, self.api, wanted, **changes)[0]

    def carried_out(self, run: int, listener: Listener = lambda event: None, *, store: Store | None = None) -> dict[str, Any]:
        """The summary of a queued run after it was carried out."""
        store = store or self.store
        leased = store.lease("tests", seconds=60, run=run)
        assert leased is not None
        lifecycle.execute(store, leased, self.settings, listener)
        return summary(store, run)

    def released(self, revision: str = "main") -> dict[str, Any]:
        """Both."""
        return self.carried_out(self.queued(revision).id)

    def manifest(self) -> Manifest:
        """What the repo says of itself."""
        head = self.api.repo_info(REPO).sha
        assert head is not None
        found = manifests.read(download(self.api, REPO, head, MANIFEST), where=REPO)
        assert isinstance(found, Manifest)
        return found

    def commits(self) -> list[str]:
        return [commit.commit_id for commit in self.api.list_repo_commits(REPO)]
