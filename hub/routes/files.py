"""Files of a revision: list them, describe them, download them."""

from typing import Any, Final
from urllib.parse import quote

from starlette.responses import FileResponse, JSONResponse, Response

from hub import commits, names, wire
from hub.call import Call
from hub.errors import BadRequest, EntryNotFound, GatedRepo, Unauthorized
from hub.objects import BLOCK
from hub.repos import Repo
from hub.routes import REPO, Address
from hub.routes.repos import page

PAGE: Final = 1000  # entries of a page of a tree; llama.cpp reads the first page only
EXPANDED_PAGE: Final = 50
FREELY_READ: Final = ("README.md", ".gitattributes")  # also of a gated repo


class Stream(FileResponse):
    """A file sent block by block, or the range of it that was asked for."""

    chunk_size = BLOCK


def tree(call: Call) -> Response:
    """GET A/tree/{rev}[/{path}]"""
    repo = call.repo()
    commit = call.commit(repo)
    folder = call.part("path").rstrip("/") if "path" in call.request.path_params else ""
    prefix = f"{names.path(folder)}/" if folder else ""
    paths = {*commit.tree, *commits.folders(commit.tree)}
    if folder and folder not in paths:
        raise EntryNotFound(f"{folder} does not exist on {call.part('rev')!r}", headers={"X-Repo-Commit": commit.id})
    inside = (path for path in paths if path.startswith(prefix) and (call.flag("recursive") or "/" not in path[len(prefix) :]))
    listed = sorted(path for path in inside if path > call.query.get("cursor", ""))
    size = EXPANDED_PAGE if call.flag("expand") else PAGE
    size = max(1, call.number("limit", size, most=size))
    shown = wire.items(call.hub, repo, commit, listed[:size], expand=call.flag("expand"))
    return page(call, shown, cursor=listed[size - 1]) if len(listed) > size else JSONResponse(shown)


def paths_info(call: Call) -> Any:
    """POST A/paths-info/{rev}, with a form or JSON as its body; paths that do not exist are left out."""
    repo = call.repo()
    paths, expand = call.body.get("paths", []), call.body.get("expand")
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise BadRequest("'paths' has to be a list of paths.")
    expanded = expand is True or (isinstance(expand, list) and str(expand[-1]).lower() in ("1", "true"))
    return wire.items(call.hub, repo, call.commit(repo), (path.rstrip("/") for path in paths), expand=expanded)


def resolve(call: Call) -> Response:
    """GET and HEAD /[datasets/]{id}/resolve/{rev}/{path}: the file itself, never a redirect, as the client reads the headers of the last answer."""
    repo = call.repo()
    path = names.path(call.part("path"))
    commit = call.commit(repo)
    known = {"X-Repo-Commit": commit.id}
    check_gate(call, repo, path)
    entry = commit.tree.get(path)
    if entry is None:
        raise EntryNotFound(f"Entry not found: {path}", headers=known)
    if entry.lfs:
        known |= {"X-Linked-Etag": f'"{entry.etag}"', "X-Linked-Size": str(entry.size)}
    headers = {
        **known,
        "ETag": f'"{entry.etag}"',
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(path.rpartition('/')[2])}",
        # Files come from anyone: no browser may run them as if they were ours.
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "no-cache",
    }
    return Stream(call.hub.objects.path(entry.sha256), headers=headers, media_type="application/octet-stream" if entry.lfs else "text/plain; charset=utf-8")


def check_gate(call: Call, repo: Repo, path: str) -> None:
    """Raise GatedRepo or its like for strangers when the caller may not read a file of a gated repo."""
    if not repo.gated or path in FREELY_READ or (call.identity and call.identity.owns(repo.namespace)):
        return
    if call.identity is None:
        raise _GatedForStrangers(f"Access to {repo.type} {repo.id} is restricted. You must have access to it and be authenticated to access it. Please log in.")
    raise GatedRepo(f"Access to {repo.type} {repo.id} is restricted and you are not in the authorized list.")


class _GatedForStrangers(Unauthorized):
    """A gated repo, to a caller without a token."""

    code = "GatedRepo"


ROUTES: Final = (
    Address("GET", REPO + "/tree/{rev}", tree),
    Address("GET", REPO + "/tree/{rev}/{path:path}", tree),
    Address("POST", REPO + "/paths-info/{rev}", paths_info),
    Address("GET", "/{ns}/{name}/resolve/{rev}/{path:path}", resolve),
    Address("GET", "/{kind:kind}/{ns}/{name}/resolve/{rev}/{path:path}", resolve),
    Address("GET", REPO + "/resolve/{rev}/{path:path}", resolve),
)
