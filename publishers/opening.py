"""New repos are made private and opened once they hold a publication, so that nobody ever sees an empty one; what a kill leaves between is found and completed.

Whether a repo is private because it is not finished, or because its owner wants it so, nothing on the Hub tells: a memory of ours does.
"""

from typing import Protocol

from huggingface_hub import HfApi

from config.errors import HubError, HubUnavailable
from publishers import target
from publishers.wire import hub_errors


class Openings(Protocol):
    """Remembers which repos were made to be public and are not yet."""

    def begin_opening(self, repo: str) -> None:
        """The repo is about to be made, private for now."""

    def opening(self, repo: str) -> bool:
        """Whether the repo was made so and was not opened since."""

    def end_opening(self, repo: str) -> None:
        """The repo is public by now."""


class Forgetful:
    """Remembers nothing beyond one publication: a repo that a kill leaves private stays so until its owner opens it."""

    def __init__(self) -> None:
        self._repos: set[str] = set()

    def begin_opening(self, repo: str) -> None:
        """See `Openings`."""
        self._repos.add(repo)

    def opening(self, repo: str) -> bool:
        """See `Openings`."""
        return repo in self._repos

    def end_opening(self, repo: str) -> None:
        """See `Openings`."""
        self._repos.discard(repo)


def ensure(api: HfApi, repo: str, openings: Openings, *, private: bool) -> None:
    """Create the repo, private, unless it is there: an existing one keeps its visibility, which is its owner's decision. `private` says whether it stays so."""
    if target.exists(api, repo):  # missing, or invisible to this token: then creating it says so
        return
    if not private:
        openings.begin_opening(repo)  # before it is there, so that no kill can come between
    try:
        with hub_errors(api, f"create {repo}"):
            api.create_repo(repo, private=True, exist_ok=True)
    except HubUnavailable:  # which may have made it
        if not target.exists(api, repo):
            raise


def complete(api: HfApi, repo: str, openings: Openings, *, private: bool) -> None:
    """Make a repo public that we made to be so and that holds its publication by now. Raises HubError when the Hub does not."""
    if private or not openings.opening(repo):
        return
    with hub_errors(api, f"make {repo} public"):
        if api.repo_info(repo).private:
            api.update_repo_settings(repo, private=False)
        hidden = bool(api.repo_info(repo).private)
    if hidden:
        raise HubError(f"{repo} holds its publication, but {api.endpoint} keeps it private. Make it public on the Hub, or run it again.")
    openings.end_opening(repo)
