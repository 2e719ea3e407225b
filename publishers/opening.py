"""New repos are made private and opened once they hold a publication, so that nobody ever sees an empty one; what a kill leaves between is found and completed.

Whether a repo is private because it is not finished, or because its owner wants it so, nothing on the Hub tells: a memory of ours does.
"""

from typing import Protocol

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from config.errors import HubError, HubUnavailable
from config.passing import CONFLICT, in_turn
from publishers import target
from publishers.unpublishing import is_private, make_private
from publishers.wire import hub_errors


class Openings(Protocol):
    """Remembers which repos were made to be public and are not yet."""

    def begin_opening(self, repo: str) -> None:
        """The repo is about to be made, private for now."""

    def opening(self, repo: str) -> bool:
        """Whether the repo was made so, was not opened since, and nobody took back what is published in it."""

    def end_opening(self, repo: str) -> None:
        """The repo is public by now."""

    def found_instead(self, repo: str) -> None:
        """The repo was not made as was said the last time, since it was there by then; whatever was said of it before that counts."""

    def not_made(self, repo: str) -> None:
        """The repo was not made at all, and whoever makes one of that name decides what it is."""


class Forgetful:
    """Remembers nothing beyond one publication: a repo that a kill leaves private stays so until its owner opens it."""

    def __init__(self) -> None:
        self._repos: dict[str, int] = {}  # creations that may have been ours

    def begin_opening(self, repo: str) -> None:
        """See `Openings`."""
        self._repos[repo] = self._repos.get(repo, 0) + 1

    def opening(self, repo: str) -> bool:
        """See `Openings`."""
        return self._repos.get(repo, 0) > 0

    def end_opening(self, repo: str) -> None:
        """See `Openings`."""
        self._repos.pop(repo, None)

    def found_instead(self, repo: str) -> None:
        """See `Openings`."""
        self._repos[repo] = self._repos.get(repo, 0) - 1

    def not_made(self, repo: str) -> None:
        """See `Openings`."""
        self._repos.pop(repo, None)


def ensure(api: HfApi, repo: str, openings: Openings, *, private: bool) -> None:
    """Create the repo, private, unless it is there: an existing one keeps its visibility, which is its owner's decision. `private` says whether it stays so."""
    if target.exists(api, repo):  # missing, or invisible to this token: then creating it says so
        return
    if not private:
        openings.begin_opening(repo)  # before it is there, so that no kill can come between
    try:
        made = _made(api, repo)
    except HubUnavailable:  # which may have made it
        if not target.exists(api, repo):
            raise
        return
    except HubError:
        if not private:
            openings.not_made(repo)
        raise
    if not made and not private:
        openings.found_instead(repo)


def _made(api: HfApi, repo: str) -> bool:
    """Make the repo, private; False where one of that name is there, which is not by this request: the client sends none again that may have been carried out.

    Raises HubError.
    """
    with hub_errors(api, f"create {repo}"):
        try:
            api.create_repo(repo, private=True)
        except HfHubHTTPError as error:
            if error.response.status_code != CONFLICT or in_turn(CONFLICT, error.server_message):
                raise
            return False
    return True


def complete(api: HfApi, repo: str, openings: Openings, *, private: bool) -> None:
    """Make a repo public that we made to be so and that holds its publication by now, unless a person takes it back. Raises HubError when the Hub does not.

    Nothing on the Hub lets this and an `unpublish` exclude one another. So each notes what it does before it looks at what the other did: here the repo is made
    public and then the memory is asked once more, there the memory is told and then the repo is looked at once more. Whichever is last makes it private.
    """
    if private or not openings.opening(repo):
        return
    try:
        if is_private(api, repo) and openings.opening(repo):  # the look may have waited for minutes
            with hub_errors(api, f"make {repo} public"):
                api.update_repo_settings(repo, private=False)
    except HubError:  # its answer may be lost
        if _left_private(api, repo, openings):
            return
        raise
    if _left_private(api, repo, openings):
        return
    if is_private(api, repo):
        raise HubError(f"{repo} holds its publication, but {api.endpoint} keeps it private. Make it public on the Hub, or run it again.")
    openings.end_opening(repo)


def _left_private(api: HfApi, repo: str, openings: Openings) -> bool:
    """Whether a person took the repo back meanwhile, as which it is private again. Raises HubError."""
    if openings.opening(repo):
        return False
    make_private(api, repo)
    return True
