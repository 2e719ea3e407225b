"""What changes a repo's files: commits, pull requests and merges, each as one replacement of the repo's state."""

import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from hub import commits, wire
from hub.commits import Commit, Entry, Operation, Tree
from hub.core import Hub
from hub.disk import now
from hub.errors import BadRequest, Conflict, NotFound, StaleParent
from hub.repos import Discussion, Repo, full_ref
from hub.webhooks import describe, moved

MIN_PREFIX: Final = 7  # digits of an abbreviated parent commit
MAX_DIFF: Final = 1 << 20  # bytes of a text file that is still compared line by line


@dataclass(frozen=True, kw_only=True)
class Change:
    """A commit to be made."""

    title: str
    message: str
    author: str
    operations: Sequence[Operation]
    parent: str | None  # what the caller takes the head to be; None: whatever it is


def commit(hub: Hub, repo: Repo, revision: str, change: Change, *, base: str) -> Commit:
    """Commit to a branch or to a pull request's ref. A change that changes nothing returns the head.

    Raises RevisionNotFound, StaleParent when the head is not `change.parent`, BadRequest for a tag, EntryNotFound for a file to delete that is not there.
    """
    made: list[Commit] = []

    def move(repo: Repo) -> Repo:
        ref = _writable(repo, revision)
        head = hub.repos.commit(repo, repo.refs[ref])
        _check_parent(head, change.parent)
        tree = commits.apply(head.tree, change.operations)
        if tree == head.tree:
            made.append(head)
            return repo
        new = hub.repos.save_commit(repo, parent=head.id, title=change.title, message=change.message, author=change.author, tree=tree)
        made.append(new)
        after = repo.with_ref(ref, new.id)
        if discussion := next((each for each in repo.discussions if each.pull_request and each.ref == ref), None):
            after = after.with_discussion(with_event(discussion, "commit", change.author, {"subject": new.title, "oid": new.id}))
        return hub.webhooks.owe(after, base=base, action="update", scope="repo.content", updatedRefs=moved(ref, head.id, new.id))

    hub.repos.update(repo.uid, move)
    hub.dispatcher.wake()
    return made[0]


def propose(hub: Hub, repo: Repo, revision: str, change: Change, *, base: str) -> tuple[Commit, Discussion]:
    """Commit to a new pull request against a branch. Raises as `commit` does."""
    made: list[tuple[Commit, Discussion]] = []

    def open_request(repo: Repo) -> Repo:
        target = _writable(repo, revision)
        # A pull request may fork from any commit of its branch.
        known = change.parent is not None and change.parent in _ids(hub, repo, target)
        head = hub.repos.commit(repo, change.parent if change.parent and known else repo.refs[target])
        _check_parent(head, change.parent)
        tree = commits.apply(head.tree, change.operations)
        new = hub.repos.save_commit(repo, parent=head.id, title=change.title, message=change.message, author=change.author, tree=tree)
        discussion = _discussion(repo, title=change.title, author=change.author, text=change.message, pull_request=True, status="open", target=target)
        discussion = with_event(discussion, "commit", change.author, {"subject": new.title, "oid": new.id})
        made.append((new, discussion))
        after = hub.webhooks.owe(
            repo.with_ref(discussion.ref, new.id).with_discussion(discussion),
            base=base,
            action="create",
            scope="discussion",
            discussion=describe(repo, discussion, base),
        )
        return hub.webhooks.owe(after, base=base, action="update", scope="repo.content", updatedRefs=moved(discussion.ref, None, new.id))

    hub.repos.update(repo.uid, open_request)
    hub.dispatcher.wake()
    return made[0]


def discuss(hub: Hub, repo: Repo, *, title: str, author: str, text: str, pull_request: bool, base: str) -> Discussion:
    """Open a discussion, or a pull request without changes yet, which starts as a draft."""
    made: list[Discussion] = []

    def open_discussion(repo: Repo) -> Repo:
        target = full_ref(repo, "main")
        new = _discussion(repo, title=title, author=author, text=text, pull_request=pull_request, status="draft" if pull_request else "open", target=target)
        made.append(new)
        after = repo.with_discussion(new)
        if pull_request:
            after = after.with_ref(new.ref, repo.refs[target])
        return hub.webhooks.owe(after, base=base, action="create", scope="discussion", discussion=describe(repo, new, base))

    hub.repos.update(repo.uid, open_discussion)
    hub.dispatcher.wake()
    return made[0]


def merge(hub: Hub, repo: Repo, num: int, *, author: str, text: str | None, base: str) -> Commit:
    """Squash a pull request into its branch. Raises NotFound, BadRequest when it is not open, Conflict when both sides changed a file."""
    made: list[Commit] = []

    def squash(repo: Repo) -> Repo:
        discussion = find(repo, num)
        if not discussion.pull_request or discussion.status != "open":
            raise BadRequest(f"Only an open pull request can be merged; #{num} is {discussion.status}.")
        if discussion.base not in repo.refs:
            raise BadRequest(f"{discussion.base}, which #{num} was for, is gone.")
        ours = hub.repos.commit(repo, repo.refs[discussion.base])
        tree, conflicts = _merged(hub, repo, discussion)
        if conflicts:
            raise Conflict(f"The pull request conflicts with its branch in: {', '.join(conflicts[:20])}")
        new = hub.repos.save_commit(repo, parent=ours.id, title=f"{discussion.title} (#{num})", message=text or "", author=author, tree=tree)
        made.append(new)
        if text:
            discussion = with_event(discussion, "comment", author, wire.comment(text, author))
        discussion = with_event(dataclasses.replace(discussion, status="merged", merge_commit=new.id), "status-change", author, {"status": "merged"})
        after = repo.with_ref(discussion.base, new.id).with_discussion(discussion)
        after = hub.webhooks.owe(after, base=base, action="update", scope="repo.content", updatedRefs=moved(discussion.base, ours.id, new.id))
        return hub.webhooks.owe(after, base=base, action="update", scope="discussion", discussion=describe(repo, discussion, base))

    hub.repos.update(repo.uid, squash)
    hub.dispatcher.wake()
    return made[0]


def find(repo: Repo, num: int) -> Discussion:
    """A discussion by its number. Raises NotFound."""
    for discussion in repo.discussions:
        if discussion.num == num:
            return discussion
    raise NotFound(f"Discussion #{num} not found")


def conflicts(hub: Hub, repo: Repo, discussion: Discussion) -> list[str]:
    """The files that a pull request and its branch both changed; none once it is merged."""
    return [] if discussion.status == "merged" or discussion.base not in repo.refs else _merged(hub, repo, discussion)[1]


def diff(hub: Hub, repo: Repo, discussion: Discussion) -> str:
    """What a pull request changes, as a unified diff; LFS and binary files as their pointers."""
    theirs = hub.repos.commit(repo, repo.refs[discussion.ref]).tree
    before = _fork(hub, repo, discussion)
    parts: list[str] = []
    for path in sorted({*before, *theirs}):
        old, new = before.get(path), theirs.get(path)
        if old != new:
            names = ("a/" + path if old else "/dev/null", "b/" + path if new else "/dev/null")
            parts += [f"diff --git a/{path} b/{path}\n", *difflib.unified_diff(_lines(hub, old), _lines(hub, new), *names)]
    return "".join(part if part.endswith("\n") else part + "\n" for part in parts)


def with_event(discussion: Discussion, type: str, author: str, data: dict[str, object]) -> Discussion:
    """The same discussion with one more event."""
    identity = f"{discussion.num:012x}{len(discussion.events):012x}"
    return dataclasses.replace(discussion, events=(*discussion.events, wire.event(type, author, identity, data)))


def _discussion(repo: Repo, *, title: str, author: str, text: str, pull_request: bool, status: str, target: str) -> Discussion:
    num = max((each.num for each in repo.discussions), default=0) + 1
    blank = Discussion(num=num, title=title, author=author, status=status, pull_request=pull_request, created_at=now(), base=target)
    return with_event(blank, "comment", author, wire.comment(text, author))


def _writable(repo: Repo, revision: str) -> str:
    ref = full_ref(repo, revision)
    if ref.startswith("refs/tags/"):
        raise BadRequest(f"{revision!r} is a tag: commits go to branches.")
    return ref


def _check_parent(head: Commit, parent: str | None) -> None:
    if parent is not None and (len(parent) < MIN_PREFIX or not head.id.startswith(parent)):
        raise StaleParent(f"A commit has happened since. Please refresh and try again. The head is {head.id}, not {parent[:40]}.")


def _ids(hub: Hub, repo: Repo, ref: str) -> Iterator[str]:
    return (commit.id for commit in hub.repos.history(repo, repo.refs[ref]))


def _fork(hub: Hub, repo: Repo, discussion: Discussion) -> Tree:
    """The tree that a pull request's branch and the branch it is for last had in common."""
    target = set(_ids(hub, repo, discussion.base)) if discussion.base in repo.refs else set()
    return next((commit.tree for commit in hub.repos.history(repo, repo.refs[discussion.ref]) if commit.id in target), {})


def _merged(hub: Hub, repo: Repo, discussion: Discussion) -> tuple[dict[str, Entry], list[str]]:
    ours = hub.repos.commit(repo, repo.refs[discussion.base]).tree
    theirs = hub.repos.commit(repo, repo.refs[discussion.ref]).tree
    return commits.merge(_fork(hub, repo, discussion), ours, theirs)


def _lines(hub: Hub, entry: Entry | None) -> list[str]:
    if entry is None:
        return []
    pointer = commits.POINTER.format(sha256=entry.sha256, size=entry.size)
    if entry.lfs or entry.size > MAX_DIFF:
        return pointer.splitlines(keepends=True)
    try:
        return hub.objects.path(entry.sha256).read_text("utf-8").splitlines(keepends=True)
    except UnicodeDecodeError:
        return pointer.splitlines(keepends=True)
