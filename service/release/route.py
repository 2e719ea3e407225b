"""Where a release comes from and where what passes goes: the Hub or a folder of this machine, either end."""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi

from builders.adapters import bases
from builders.snapshot import Upstream
from builders.sources import FolderSource, HubSource, Source
from config.settings import Settings
from config.words import Release
from publishers import naming
from publishers.account import publishing_namespace
from service.runs.own_account import is_own, wants_pull_request


@dataclass(frozen=True, kw_only=True)
class Route:
    """The two ends of a release's way."""

    api: HfApi
    folder: str | None = None  # that the release is taken from; None: the Hub
    target: str | None = None  # the folder that repos are left in; None: the Hub

    @property
    def source(self) -> Source:
        """What the release is taken from."""
        return HubSource(api=self.api) if self.folder is None else FolderSource(folder=Path(self.folder))

    @property
    def hub(self) -> Source:
        """Where the base models of adapters are."""
        return HubSource(api=self.api)

    def resolve(self, repo: str, revision: str) -> Upstream:
        """The release that `revision` of `repo` names now; of an adapter with its base model. Raises UpstreamError, HubError."""
        return bases.resolve(self.source, self.hub, repo, revision)

    def namespace(self, wanted: str | None) -> str:
        """The namespace to publish under; for a folder nobody is asked. Raises HubError when the token may not write there."""
        return publishing_namespace(self.api, wanted) if self.target is None else wanted or naming.NOBODY

    def own(self, namespace: str, release: Release) -> bool:
        """Whether the upstream itself is the repo that the 16-bit model would be published in."""
        return self.target is None and is_own(namespace, release)

    def offers(self, settings: Settings, namespace: str, upstream: Upstream) -> bool:
        """Whether the fixes are offered to the upstream as a pull request: from the Hub to the Hub, where the settings ask for it.

        Never to an adapter or a model in GGUF alone, whose repos do not hold what is fixed.
        """
        return (
            self.folder is None
            and self.target is None
            and not (upstream.adapter or upstream.gguf)
            and wants_pull_request(settings, namespace, upstream.release)
        )

    def place(self, repo: str) -> str:
        """Where a repo will be: its name, or a folder's path."""
        return naming.place(repo, self.target)
