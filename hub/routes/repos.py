"""Repos themselves: create, describe, list, set up, rename, delete; their refs and commits."""

import base64
import dataclasses
import json
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import urlencode

from starlette.responses import JSONResponse, Response

from hub import names, wire
from hub.call import Call
from hub.errors import BadRequest, Conflict, RevisionNotFound
from hub.names import KINDS, RepoType
from hub.repos import MAIN, Repo
from hub.routes import REPO, Address
from hub.webhooks import moved, owner_id, web_address

PAGE: Final = 500  # repos of a page of a listing
COMMITS_PAGE: Final = 50
TYPES: Final[dict[str, RepoType]] = {type: type for type in KINDS.values()}


def create(call: Call) -> Any:
    """POST /api/repos/create"""
    user = call.user(write=True)
    type = _type(call)
    identity = _identity(call, user.user)
    call.owner(identity.partition("/")[0])
    private = _private(call.body) or False
    try:
        repo = call.hub.repos.create(
            type=type,
            identity=identity,
            private=private,
            author=user.user,
            change=lambda repo: call.hub.webhooks.owe(repo, base=call.base, action="create", scope="repo"),
        )
    except Conflict as error:
        taken = f"{call.base}/{'' if type == 'model' else type + 's/'}{identity}"
        raise Conflict(str(error), body={"url": taken}) from None
    call.hub.dispatcher.wake()
    return {"url": web_address(call.base, repo), "name": repo.id, "id": repo.uid}


def delete(call: Call) -> Any:
    """DELETE /api/repos/delete"""
    user = call.user(write=True)
    repo = call.repo_named(_type(call), _identity(call, user.user))
    call.owner(repo.namespace)
    call.hub.repos.delete(repo.uid, lambda repo: call.hub.webhooks.owe(repo, base=call.base, action="delete", scope="repo"))
    call.hub.dispatcher.wake()
    return {}


def move(call: Call) -> Any:
    """POST /api/repos/move"""
    repo = call.repo_named(_type(call), call.field("fromRepo", str))
    namespace, _, name = call.field("toRepo", str).partition("/")
    identity = f"{names.namespace(namespace)}/{names.name(name, 'repo name')}"
    call.owner(repo.namespace)
    call.owner(namespace)
    target = {"name": identity, "owner": {"id": owner_id(namespace)}}
    call.hub.repos.rename(repo.uid, identity, lambda repo: call.hub.webhooks.owe(repo, base=call.base, action="move", scope="repo", movedTo=target))
    call.hub.dispatcher.wake()
    return {}


def settings(call: Call) -> Any:
    """PUT A/settings"""
    repo = call.repo_to_change()
    changes: dict[str, Any] = {}
    if (private := _private(call.body)) is not None:
        changes["private"] = private
    if (gated := call.body.get("gated")) is not None:
        if gated not in ("auto", "manual", False):
            raise BadRequest("'gated' has to be auto, manual or false.")
        changes["gated"] = gated

    def change(repo: Repo) -> Repo:
        after = dataclasses.replace(repo, **changes)
        return repo if after == repo else call.hub.webhooks.owe(after, base=call.base, action="update", scope="repo.config", updatedConfig=changes)

    after = call.hub.repos.update(repo.uid, change)
    call.hub.dispatcher.wake()
    return {"private": after.private, "gated": after.gated}


def info(call: Call) -> Any:
    """GET A and GET A/revision/{rev}"""
    repo = call.repo()
    commit = call.commit(repo) if "rev" in call.request.path_params else call.hub.repos.head(repo, MAIN)
    return wire.repo_info(call.hub, repo, commit, blobs=call.flag("blobs"), expand=_listed(call, "expand"))


def auth_check(call: Call) -> Any:
    """GET A/auth-check[/write]"""
    if call.request.path_params.get("write"):
        call.repo_to_change()
    else:
        call.repo()
    return {}


def index(call: Call) -> Response:
    """GET /api/models, /api/datasets, /api/spaces: paged by a cursor, so that a page stays right while repos come and go."""
    type = KINDS[call.request.path_params["kind"]]
    by = {"createdAt": lambda repo: repo.created_at}.get(call.query.get("sort", ""), lambda repo: wire.modified(call.hub, repo))
    expand, filters = _listed(call, "expand"), [*_listed(call, "filter"), *_listed(call, "pipeline_tag")]
    repos = sorted(_named(call, type), key=_order(by), reverse=True)
    if cursor := call.query.get("cursor"):
        after = _decode(cursor)
        repos = [repo for repo in repos if _order(by)(repo) < after]

    size = max(1, call.number("limit", PAGE, most=PAGE))
    shown: list[dict[str, Any]] = []
    last = ("", "")
    for repo in repos:
        head = call.hub.repos.head(repo, MAIN)
        if filters and not _tagged(wire.repo_info(call.hub, repo, head, expand=("tags", "pipeline_tag", "library_name")), filters):
            continue
        if len(shown) == size:
            return page(call, shown, cursor=_encode(last))
        item = wire.repo_info(call.hub, repo, head, expand=expand)
        hidden = () if expand else [key for key, asked in (("siblings", "full"), ("cardData", "cardData"), ("config", "config")) if not call.flag(asked)]
        shown.append({key: value for key, value in item.items() if key not in hidden})
        last = _order(by)(repo)
    return JSONResponse(shown)


def _named(call: Call, type: RepoType) -> list[Repo]:
    """The repos that the caller may see and whose owner, name and gate are as the query asks: all that is known without reading a file."""
    author, search = call.query.get("author"), call.query.get("search", "").lower()
    gated = call.flag("gated") if call.query.get("gated") else None
    return [
        repo
        for repo in call.hub.repos.all()
        if repo.type == type
        and (author is None or repo.namespace.lower() == author.lower())
        and search in repo.id.lower()
        and (gated is None or bool(repo.gated) is gated)
        and call.can_read(repo)
    ]


def own(call: Call) -> Any:
    """GET /api/settings/repositories and /api/organizations/{org}/settings/repositories"""
    user = call.user()
    namespaces = (call.part("org"),) if "org" in call.request.path_params else (user.user, *user.orgs)
    return [
        {
            "_id": repo.uid,
            "id": repo.id,
            "type": repo.type,
            "visibility": "private" if repo.private else "public",
            "updatedAt": wire.modified(call.hub, repo),
            "storage": wire.repo_info(call.hub, repo, call.hub.repos.head(repo, MAIN))["usedStorage"],
            "storagePercent": 0,
        }
        for repo in call.hub.repos.all()
        if repo.namespace in namespaces and call.can_read(repo)
    ]


def refs(call: Call) -> Any:
    """GET A/refs"""
    return wire.refs(call.repo(), pull_requests=call.flag("include_prs"))


def commits(call: Call) -> Response:
    """GET A/commits/{rev}"""
    repo = call.repo()
    history = list(call.hub.repos.history(repo, call.commit(repo).id))
    size = max(1, call.number("limit", COMMITS_PAGE, most=1000))
    number = call.number("p", 0, most=10**9)
    shown = [wire.commit_item(commit, formatted="expand[]" in call.query) for commit in history[number * size : (number + 1) * size]]
    return page(call, shown, p=number + 1) if len(history) > (number + 1) * size else JSONResponse(shown)


def create_branch(call: Call) -> Any:
    """POST A/branch/{branch}"""
    branch = f"refs/heads/{names.ref(call.part('branch'), 'branch')}"
    return _create_ref(call, branch, call.optional("startingPoint", str) or "main")


def create_tag(call: Call) -> Any:
    """POST A/tag/{rev}; a tag here is a name without a message."""
    return _create_ref(call, f"refs/tags/{names.ref(call.field('tag', str), 'tag')}", call.part("rev"))


def delete_branch(call: Call) -> Any:
    """DELETE A/branch/{branch}"""
    if call.part("branch") == "main":
        raise BadRequest("The branch main cannot be deleted.")
    return _delete_ref(call, f"refs/heads/{call.part('branch')}")


def delete_tag(call: Call) -> Any:
    """DELETE A/tag/{tag}"""
    return _delete_ref(call, f"refs/tags/{call.part('tag')}")


def _create_ref(call: Call, ref: str, start: str) -> Any:
    def change(repo: Repo) -> Repo:
        if ref in repo.refs:
            raise Conflict(f"Reference already exists: {ref}")
        target = call.hub.repos.head(repo, start).id
        return call.hub.webhooks.owe(repo.with_ref(ref, target), base=call.base, action="update", scope="repo.content", updatedRefs=moved(ref, None, target))

    call.hub.repos.update(call.repo_to_change().uid, change)
    call.hub.dispatcher.wake()
    return {}


def _delete_ref(call: Call, ref: str) -> Any:
    def change(repo: Repo) -> Repo:
        if ref not in repo.refs:
            raise RevisionNotFound(f"Invalid rev id: {ref[:100]}")
        return call.hub.webhooks.owe(
            repo.with_ref(ref, None), base=call.base, action="update", scope="repo.content", updatedRefs=moved(ref, repo.refs[ref], None)
        )

    call.hub.repos.update(call.repo_to_change().uid, change)
    call.hub.dispatcher.wake()
    return {}


def _type(call: Call) -> RepoType:
    wanted = call.field("type", str, "model")
    if wanted not in TYPES:
        raise BadRequest(f"This Hub keeps repos of type {', '.join(TYPES)}, not {wanted[:50]!r}.")
    return TYPES[wanted]


def _identity(call: Call, user: str) -> str:
    return f"{names.namespace(call.field('organization', str, user))}/{names.name(call.field('name', str), 'repo name')}"


def _private(body: Any) -> bool | None:
    """What a body says of privacy: the client sends `visibility`, older ones `private`."""
    visibility = body.get("visibility")
    if visibility is None:
        visibility = {None: None, True: "private", False: "public"}.get(body.get("private"), "?")
    if visibility not in (None, "public", "private"):
        raise BadRequest("'visibility' has to be public or private.")
    return None if visibility is None else visibility == "private"


def _listed(call: Call, key: str) -> list[str]:
    return call.request.query_params.getlist(key)


def _tagged(info: dict[str, Any], wanted: Iterable[str]) -> bool:
    return all(tag in info["tags"] or tag == info.get("pipeline_tag") or tag == info.get("library_name") for tag in wanted)


def _order(by: Callable[[Repo], str]) -> Callable[[Repo], tuple[str, str]]:
    return lambda repo: (by(repo), repo.id)


def _encode(last: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(last).encode()).decode()


def _decode(cursor: str) -> tuple[str, str]:
    try:
        by, identity = json.loads(base64.urlsafe_b64decode(cursor))
    except (ValueError, TypeError):
        raise BadRequest("This cursor is not one of ours.") from None
    return str(by), str(identity)


def page(call: Call, items: list[dict[str, Any]], **position: Any) -> Response:
    """A page of a listing, with the address of the next one in its `Link` header."""
    kept = [(key, value) for key, value in call.request.query_params.multi_items() if key not in position]
    query = urlencode([*kept, *position.items()])
    return JSONResponse(items, headers={"Link": f'<{call.base}{call.request.scope["path"]}?{query}>; rel="next"'})


ROUTES: Final = (
    Address("POST", "/api/repos/create", create),
    Address("DELETE", "/api/repos/delete", delete),
    Address("POST", "/api/repos/move", move),
    Address("GET", "/api/settings/repositories", own),
    Address("GET", "/api/organizations/{org}/settings/repositories", own),
    Address("GET", "/api/{kind:kind}", index),
    Address("GET", REPO, info),
    Address("GET", REPO + "/revision/{rev}", info),
    Address("PUT", REPO + "/settings", settings),
    Address("GET", REPO + "/auth-check", auth_check),
    Address("GET", REPO + "/auth-check/{write}", auth_check),
    Address("GET", REPO + "/refs", refs),
    Address("GET", REPO + "/commits/{rev}", commits),
    Address("POST", REPO + "/branch/{branch}", create_branch),
    Address("DELETE", REPO + "/branch/{branch}", delete_branch),
    Address("POST", REPO + "/tag/{rev}", create_tag),
    Address("DELETE", REPO + "/tag/{tag}", delete_tag),
)
