"""A commit on a branch beside main, read back from the Hub, and only then the same one on main: what a Hub took otherwise than it was sent never gets there.

The second commit sends no file again that is in LFS. The branch is gone afterwards; one that a kill left is swept by the next publication in that repo. To take
away another process' branch does no harm: what it holds would be promoted only on top of what main was, and that process begins again.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

from config.errors import HubError
from publishers import sending
from publishers.sending import Operation
from publishers.wire import hub_errors

PREFIX = "sluice-staging-"
STALE = 412  # somebody else's commit came first


class Moved(Exception):
    """Main is not what it was any more, or somebody took the branch away."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A commit to be made."""

    operations: Sequence[Operation]
    message: str
    parent: str | None  # what main is taken to be; None: it has no commit yet


@contextmanager
def beside(api: HfApi, repo: str, step: Step) -> Iterator[str]:
    """Upload, and commit beside main; the block gets that commit, which is gone after it. Reports bytes.

    Raises Moved, with main as somebody else left it, HubError.
    """
    with hub_errors(api, f"publish {repo}"):
        sending.upload(api, repo, step.operations)
    branch = PREFIX + secrets.token_hex(6)
    try:
        with hub_errors(api, f"stage the publication in {repo}"), _unmoved():
            api.create_branch(repo, branch=branch, revision=step.parent)
            staged = _committed(api, repo, step, branch)
        yield staged
    finally:
        with suppress(HubError), hub_errors(api, f"remove the branch {branch} of {repo}"):  # whoever publishes next sweeps it
            api.delete_branch(repo, branch=branch)


def promote(api: HfApi, repo: str, step: Step) -> str:
    """Commit on main what is beside it; the new commit. Raises Moved, with main as somebody else left it, HubError."""
    with hub_errors(api, f"publish {repo}"), _unmoved():
        return _committed(api, repo, step, None)


def sweep(api: HfApi, repo: str) -> None:
    """Remove the branches that publications which were killed have left. Raises HubError."""
    with hub_errors(api, f"list the branches of {repo}"):
        left = [ref.name for ref in api.list_repo_refs(repo).branches if ref.name.startswith(PREFIX)]
    for branch in left:
        with hub_errors(api, f"remove the branch {branch} of {repo}"), suppress(RevisionNotFoundError):
            api.delete_branch(repo, branch=branch)


def _committed(api: HfApi, repo: str, step: Step, branch: str | None) -> str:
    for operation in step.operations:
        if isinstance(operation, CommitOperationAdd):
            operation._is_committed = False  # the client wants new ones for each commit, which would have to be read and hashed again
    return str(api.create_commit(repo, step.operations, commit_message=step.message, parent_commit=step.parent, revision=branch).oid)


@contextmanager
def _unmoved() -> Iterator[None]:
    try:
        yield
    except RevisionNotFoundError as error:
        raise Moved from error
    except HfHubHTTPError as error:
        if error.response.status_code != STALE:
            raise
        raise Moved from error
