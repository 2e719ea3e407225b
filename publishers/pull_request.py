"""Offer changed files to a repo as a pull request, once: what was offered before is found again, and what is older gives way.

Covered: our open, merged and closed requests, files that the repo has taken by other means, two that offer at once. Not covered: requests of other accounts.
"""

import hashlib
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from huggingface_hub import DiscussionComment, HfApi
from huggingface_hub.community import DiscussionWithDetails
from huggingface_hub.errors import HfHubHTTPError

from config.errors import PublishConflict
from publishers.account import owner
from publishers.hub import PublishFile, addition, same_bytes
from publishers.target import read_tree
from publishers.wire import hub_errors

log = logging.getLogger(__name__)

LOOKED_AT = 50  # of our pull requests, the newest
FOLLOWED = "Followed by"  # how the comment begins with which we close a request that another one takes the place of
_MARK = re.compile(r"<!-- sluice-fixes: ([0-9a-f]{64}) -->")

State = Literal["opened", "open", "merged", "closed"]
"""`opened` just now; as it was found; `closed` by a person, who does not want it."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What is to be offered."""

    repo: str  # "owner/name"
    base: str  # the commit of the repo that was changed
    files: tuple[PublishFile, ...]
    title: str
    text: str  # Markdown

    @property
    def digest(self) -> str:
        """sha256 of names and contents: what tells one offer from another, whatever commit it is made on."""
        return hashlib.sha256("".join(f"{file.path} {file.sha256}\n" for file in sorted(self.files, key=lambda file: file.path)).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class PullRequest:
    """One on the Hub that offers exactly the files of a proposal."""

    number: int
    url: str
    state: State


@dataclass(frozen=True, kw_only=True)
class _Ours:
    """A pull request that this account opened for such a purpose."""

    digest: str
    details: DiscussionWithDetails
    followed: bool  # we closed it ourselves

    @property
    def open(self) -> bool:
        return self.details.status in {"open", "draft"}

    @property
    def found(self) -> PullRequest:
        state: State = "open" if self.open else "merged" if self.details.status == "merged" else "closed"
        return PullRequest(number=self.details.num, url=self.details.url, state=state)


def offer(api: HfApi, proposal: Proposal) -> PullRequest | None:
    """The pull request that offers the proposal's files to its repo, opened unless there is one; None when the repo holds them already.

    It is made on `proposal.base`, whatever has happened to the branch since. One that a person closed is not opened again. Open ones of ours with other
    content are closed with a comment that names the new one. Raises PublishConflict when `base` is no commit of the branch, HubError.
    """
    account = owner(api)
    ours = _ours(api, proposal.repo, account)
    found = _standing(ours, proposal.digest)
    if found is None and (opened := _open(api, proposal)) is not None:
        ours = _ours(api, proposal.repo, account)
        found = _first(api, proposal, ours, opened)
    if found is not None and found.state in {"opened", "open"}:
        _follow(api, proposal.repo, (each for each in ours if each.open and each.digest != proposal.digest), found)
    return found


def _ours(api: HfApi, repo: str, account: str) -> list[_Ours]:
    """The account's pull requests with our mark in their first comment, newest first."""
    with hub_errors(api, f"list the pull requests of {repo}"):
        listed = list(islice(api.get_repo_discussions(repo, author=account, discussion_type="pull_request"), LOOKED_AT))
        detailed = [api.get_discussion_details(repo, each.num) for each in listed if each.author == account and each.is_pull_request]
    found = []
    for details in detailed:
        comments = [event.content for event in details.events if isinstance(event, DiscussionComment) and event.author == account]
        if comments and (mark := _MARK.search(comments[0])) is not None:
            found.append(_Ours(digest=mark[1], details=details, followed=any(text.startswith(FOLLOWED) for text in comments[1:])))
    return found


def _standing(ours: Iterable[_Ours], digest: str) -> PullRequest | None:
    """What became of the same offer when it was made before: it is open, was merged or was turned down."""
    same = [each.found for each in ours if each.digest == digest and (each.open or not each.followed)]
    return min(same, key=lambda each: ("open", "merged", "closed").index(each.state), default=None)


def _open(api: HfApi, proposal: Proposal) -> PullRequest | None:
    """Open it; None when the branch holds the same files by now."""
    repo = proposal.repo
    with hub_errors(api, f"read {repo}"):
        head = api.repo_info(repo).sha
    tree = read_tree(api, repo, head)
    if all(file.path in tree and same_bytes(file, tree[file.path]) for file in proposal.files):
        return None
    operations = [addition(file) for file in sorted(proposal.files, key=lambda file: file.path)]
    text = f"{proposal.text}\n\n<!-- sluice-fixes: {proposal.digest} -->"
    with hub_errors(api, f"open a pull request in {repo}"):
        try:
            made = api.create_commit(repo, operations, commit_message=proposal.title, commit_description=text, parent_commit=proposal.base, create_pr=True)
        except HfHubHTTPError as error:
            if error.response.status_code != 412:
                raise
            made = None
    if made is None:
        raise PublishConflict(
            f"No pull request was opened in {repo}: the commit {proposal.base} that was released is not on its main branch. "
            "Release a commit of the main branch, or leave `--fixes-as-pr` out."
        )
    if made.pr_url is None or made.pr_num is None:  # the client found nothing that differs
        return None
    log.info("opened %s with %d files", made.pr_url, len(operations), extra={"action": "pull_request"})
    return PullRequest(number=made.pr_num, url=made.pr_url, state="opened")


def _first(api: HfApi, proposal: Proposal, ours: Iterable[_Ours], opened: PullRequest) -> PullRequest:
    """Of several that offered the same at once, the one of the lowest number, which is the one that all of them see; ours is closed if it is another."""
    first = min((each for each in ours if each.open and each.digest == proposal.digest), key=lambda each: each.details.num, default=None)
    if first is None or first.details.num >= opened.number:
        return opened
    _close(api, proposal.repo, opened.number, first.found)
    return first.found


def _follow(api: HfApi, repo: str, older: Iterable[_Ours], by: PullRequest) -> None:
    for each in older:
        _close(api, repo, each.details.num, by)


def _close(api: HfApi, repo: str, number: int, by: PullRequest) -> None:
    with hub_errors(api, f"close pull request {number} of {repo}"):
        api.change_discussion_status(repo, number, "closed", comment=f"{FOLLOWED} #{by.number}.")
