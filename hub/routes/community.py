"""Discussions and pull requests."""

import dataclasses
from typing import Any, Final

from hub import changes, wire
from hub.call import Call
from hub.errors import BadRequest, Forbidden
from hub.repos import Discussion, Repo
from hub.routes import REPO, Address
from hub.webhooks import describe, owner_id

PAGE: Final = 50
TITLE_LENGTH: Final = (3, 200)  # characters
DISCUSSION: Final = REPO + "/discussions/{num:int}"


def index(call: Call) -> Any:
    """GET A/discussions, newest first."""
    repo, query = call.repo(), call.query
    found = [each for each in reversed(repo.discussions) if query.get("author") in (None, each.author)]
    if query.get("type", "all") != "all":
        found = [each for each in found if each.pull_request is (query["type"] == "pull_request")]
    if query.get("status", "all") != "all":
        opened = ("open", "draft")
        found = [each for each in found if (each.status in opened) is (query["status"] == "open")]
    start = call.number("p", 0, most=10**6) * PAGE
    return {
        "discussions": [wire.discussion(repo, each) for each in found[start : start + PAGE]],
        "count": len(found),
        "start": start,
        "numClosedDiscussions": 0,
    }


def create(call: Call) -> Any:
    """POST A/discussions"""
    repo, user = call.repo_to_contribute_to(), call.user()
    made = changes.discuss(
        call.hub,
        repo,
        title=_title(call),
        author=user.user,
        text=call.field("description", str, ""),
        pull_request=call.field("pullRequest", bool, False),
        base=call.base,
    )
    return {"num": made.num, "url": f"{call.base}/{repo.id}/discussions/{made.num}", "pullRequest": made.pull_request}


def show(call: Call) -> Any:
    """GET A/discussions/{num}[?diff=1]"""
    repo = call.repo()
    each = changes.find(repo, _number(call))
    details = wire.discussion(repo, each) | {"events": list(each.events)}
    if each.pull_request:
        details |= {
            "changes": {"base": each.base, "mergeCommitId": each.merge_commit},
            "filesWithConflicts": changes.conflicts(call.hub, repo, each),
            "diff": changes.diff(call.hub, repo, each) if call.flag("diff") else None,
        }
    return details


def comment(call: Call) -> Any:
    """POST A/discussions/{num}/comment"""
    text = call.field("comment", str)
    return {"newMessage": _add(call, "comment", wire.comment(text, call.user().user), scope="discussion.comment")}


def rename(call: Call) -> Any:
    """POST A/discussions/{num}/title"""
    title = _title(call)
    old = changes.find(call.repo(), _number(call))
    _check_right(call, call.repo(), old)
    return {"newTitle": _add(call, "title-change", {"from": old.title, "to": title}, title=title)}


def status(call: Call) -> Any:
    """POST A/discussions/{num}/status, with an optional comment"""
    wanted = call.field("status", str)
    each = changes.find(call.repo(), _number(call))
    _check_right(call, call.repo(), each)
    if wanted not in ("open", "closed") or each.status == "merged":
        raise BadRequest(f"A discussion that is {each.status} cannot become {wanted[:50]!r}.")
    if text := call.optional("comment", str):
        _add(call, "comment", wire.comment(text, call.user().user), scope="discussion.comment")
    return {"newStatus": _add(call, "status-change", {"status": wanted}, status=wanted)}


def merge(call: Call) -> Any:
    """POST A/discussions/{num}/merge, with an optional comment"""
    repo = call.repo_to_change()
    commit = changes.merge(call.hub, repo, _number(call), author=call.user().user, text=call.optional("comment", str), base=call.base)
    return {"mergeCommitId": commit.id}


def _add(call: Call, type: str, data: dict[str, Any], *, scope: str = "discussion", **fields: Any) -> Any:
    """Add an event to a discussion, changing some of its fields with it; return the event."""
    repo, user, num = call.repo_to_contribute_to(), call.user(), _number(call)

    def change(repo: Repo) -> Repo:
        each = changes.with_event(dataclasses.replace(changes.find(repo, num), **fields), type, user.user, data)
        details: dict[str, Any] = {"discussion": describe(repo, each, call.base)}
        if type == "comment":
            identity = each.events[-1]["id"]
            address = f"{details['discussion']['url']['web']}#{identity}"
            details["comment"] = {
                "id": identity,
                "author": {"id": owner_id(user.user)},
                "hidden": False,
                "content": data["latest"]["raw"],
                "url": {"web": address},
            }
        return call.hub.webhooks.owe(repo.with_discussion(each), base=call.base, action="create" if type == "comment" else "update", scope=scope, **details)

    after = call.hub.repos.update(repo.uid, change)
    call.hub.dispatcher.wake()
    return [event for event in changes.find(after, num).events if event["type"] == type][-1]


def _number(call: Call) -> int:
    return int(call.request.path_params["num"])


def _title(call: Call) -> str:
    title = call.field("title", str).strip()
    if not TITLE_LENGTH[0] <= len(title) <= TITLE_LENGTH[1]:
        raise BadRequest(f"A title has {TITLE_LENGTH[0]} to {TITLE_LENGTH[1]} characters.")
    return title


def _check_right(call: Call, repo: Repo, discussion: Discussion) -> None:
    user = call.user(write=True)
    if not user.owns(repo.namespace) and discussion.author != user.user:
        raise Forbidden("Only its author and the repo's owner may change a discussion.")


ROUTES: Final = (
    Address("GET", REPO + "/discussions", index),
    Address("POST", REPO + "/discussions", create),
    Address("GET", DISCUSSION, show),
    Address("POST", DISCUSSION + "/comment", comment),
    Address("POST", DISCUSSION + "/title", rename),
    Address("POST", DISCUSSION + "/status", status),
    Address("POST", DISCUSSION + "/merge", merge),
)
