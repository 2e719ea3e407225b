"""Committing: which files go which way, the commit itself, and the check of a README's front matter."""

import base64
import binascii
import fnmatch
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hub import cards, changes, commits, names
from hub.call import Call, parse_json
from hub.changes import Change
from hub.commits import Add, Commit, Delete, Operation, Tree
from hub.errors import BadRequest, Forbidden, TooLarge
from hub.gitignore import matcher
from hub.repos import Repo, full_ref
from hub.routes import REPO, Address
from hub.webhooks import web_address

MAX_REGULAR: Final = 10_000_000  # bytes: larger files are LFS files, as on the Hub
MAX_LINE: Final = 16 << 20  # bytes of a line of a commit: a regular file in base64
MAX_COMMIT: Final = 1 << 30  # bytes of a commit's body


def preupload(call: Call) -> Any:
    """POST A/preupload/{rev}: for each file, whether it is to be an LFS file, is ignored, and what is there already."""
    repo = call.repo_to_contribute_to()
    commit = call.commit(repo)
    ignored = matcher(call.optional("gitIgnore", str) or _text(call, commit, ".gitignore"))
    large = _lfs_rule(_text(call, commit, ".gitattributes"))
    answers = []
    for file in call.field("files", list):
        if not isinstance(file, dict) or type(file.get("size")) is not int or not isinstance(file.get("path"), str):
            raise BadRequest("A file is {path, size, sample}.")
        path = names.path(file["path"])
        mode = "lfs" if file["size"] > MAX_REGULAR or large(path) or _is_binary(file.get("sample")) else "regular"
        entry = commit.tree.get(path)
        answers.append({"path": path, "uploadMode": mode, "shouldIgnore": ignored(path), **({"oid": entry.etag} if entry else {})})
    return {"files": answers}


async def commit(call: Call) -> Response:
    """POST A/commit/{rev}[?create_pr=1]: lines of JSON, read and stored one by one."""
    repo = call.repo_to_contribute_to()
    revision, proposed = call.part("rev"), call.flag("create_pr")
    if not proposed:
        _check_right(call, repo, revision)
    draft = _Draft()
    async for line in _lines(call.request):
        await run_in_threadpool(_take, call, repo, draft, line)
    return await run_in_threadpool(_conclude, call, repo, revision, draft, proposed)


def validate_yaml(call: Call) -> Response:
    """POST /api/validate-yaml: what the Hub objects to in a README's front matter; errors make the answer a 400."""
    card = cards.read(call.field("content", str, ""), call.field("repoType", str, "model"))
    body = {"errors": [{"message": message} for message in card.errors], "warnings": [{"message": message} for message in card.warnings]}
    return JSONResponse(body, status_code=400 if card.errors else 200)


@dataclass
class _Draft:
    """What the lines of a commit have said so far."""

    header: Mapping[str, Any] | None = None
    operations: list[Operation] = field(default_factory=list)


def _take(call: Call, repo: Repo, draft: _Draft, line: bytes) -> None:
    """Take one line of a commit; a file's content is stored at once and forgotten."""
    item = parse_json(line)
    key, value = item.get("key"), item.get("value")
    if not isinstance(value, dict):
        raise BadRequest("A line of a commit is {key, value}.")
    if key == "header":
        draft.header = value
    elif key == "file":
        draft.operations.append(_regular(call, repo, value))
    elif key == "lfsFile":
        draft.operations.append(_large(call, repo, value))
    elif key in ("deletedFile", "deletedFolder"):
        folder = key == "deletedFolder"
        path = _string(value, "path")
        draft.operations.append(Delete(names.path(path.rstrip("/") if folder else path), folder))
    else:
        raise BadRequest(f"A commit has no {str(key)[:50]!r}.")


def _conclude(call: Call, repo: Repo, revision: str, draft: _Draft, proposed: bool) -> Response:
    if draft.header is None:
        raise BadRequest("A commit needs a header.")
    parent = draft.header.get("parentCommit")
    change = Change(
        title=_string(draft.header, "summary").strip() or "Update",
        message=_string({"description": "", **draft.header}, "description"),
        author=call.user().user,
        operations=draft.operations,
        parent=None if parent is None else _string(draft.header, "parentCommit").lower(),
    )
    if proposed:
        made, discussion = changes.propose(call.hub, repo, revision, change, base=call.base)
        request = f"{web_address(call.base, repo)}/discussions/{discussion.num}"
        return JSONResponse(_answer(call, repo, made) | {"pullRequestUrl": request})
    return JSONResponse(_answer(call, repo, changes.commit(call.hub, repo, revision, change, base=call.base)))


def _answer(call: Call, repo: Repo, commit: Commit) -> dict[str, Any]:
    return {"success": True, "commitOid": commit.id, "commitUrl": f"{web_address(call.base, repo)}/commit/{commit.id}", "hookOutput": ""}


def _regular(call: Call, repo: Repo, value: Mapping[str, Any]) -> Add:
    path = names.path(_string(value, "path"))
    content = _string(value, "content")
    try:
        data = base64.b64decode(content, validate=True) if value.get("encoding") == "base64" else content.encode()
    except (binascii.Error, ValueError):
        raise BadRequest(f"The content of {path} is not base64.") from None
    if path == "README.md":
        card = cards.read(data.decode(errors="replace"), repo.type)
        if card.errors:
            raise BadRequest(f"Invalid metadata in README.md. {' '.join(card.errors)}")
    sha256 = call.hub.objects.add(data)
    call.hub.repos.hold(repo.uid, sha256)
    return Add(path, commits.regular_entry(data, sha256))


def _large(call: Call, repo: Repo, value: Mapping[str, Any]) -> Add:
    path, sha256 = names.path(_string(value, "path")), names.sha256(_string(value, "oid"))
    size = call.hub.objects.size(sha256)
    if size is None or not call.hub.repos.holds(repo.uid, sha256):
        raise BadRequest(f"The LFS file {path} ({sha256}) has not been uploaded to this repo.")
    if value.get("size") not in (None, size):
        raise BadRequest(f"The LFS file {path} has {size} bytes, not {value['size']!r}.")
    return Add(path, commits.lfs_entry(sha256, size))


def _check_right(call: Call, repo: Repo, revision: str) -> None:
    """Who opened a pull request may commit to it; all else is for the owner."""
    ref = full_ref(repo, revision)
    if ref.startswith("refs/pr/") and any(each.ref == ref and each.author == call.user().user for each in repo.discussions):
        return
    if not call.user().owns(repo.namespace):
        raise Forbidden(f"You may not commit to {repo.id}. Open a pull request instead (create_pr).")


async def _lines(request: Request) -> AsyncIterator[bytes]:
    """The lines of a body as they come. Raises TooLarge for a line or a body beyond the limits."""
    rest, total = bytearray(), 0
    async for chunk in request.stream():
        total += len(chunk)
        *lines, last = chunk.split(b"\n")
        for line in lines:
            rest += line
            if rest.strip():
                yield bytes(rest)
            rest.clear()
        rest += last
        if len(rest) > MAX_LINE or total > MAX_COMMIT:
            raise TooLarge(f"A commit's lines have at most {MAX_LINE} bytes, {MAX_COMMIT} together: upload large files as LFS files.")
    if rest.strip():
        yield bytes(rest)


def _text(call: Call, commit: Commit, path: str) -> str:
    tree: Tree = commit.tree
    entry = tree.get(path)
    if entry is None or entry.lfs:
        return ""
    return call.hub.objects.path(entry.sha256).read_text("utf-8", errors="replace")


def _lfs_rule(attributes: str) -> Callable[[str], bool]:
    """A function that says of a path whether a `.gitattributes` file with this text makes it an LFS file."""
    patterns = [line.split()[0] for line in attributes.splitlines() if "filter=lfs" in line.split()[1:]]
    return lambda path: any(fnmatch.fnmatchcase(path if "/" in pattern else path.rpartition("/")[2], pattern) for pattern in patterns)


def _is_binary(sample: object) -> bool:
    """Whether the first bytes of a file, in base64, are no text; a character cut at the end does not count."""
    if not isinstance(sample, str):
        return False
    try:
        data = base64.b64decode(sample)
    except (binascii.Error, ValueError):
        raise BadRequest("A file's sample is its first bytes in base64.") from None
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start < len(data) - 3
    return b"\0" in data


def _string(value: Mapping[str, Any], key: str) -> str:
    if not isinstance(value.get(key), str):
        raise BadRequest(f"{key!r} has to be a string.")
    return str(value[key])


ROUTES: Final = (
    Address("POST", REPO + "/preupload/{rev}", preupload),
    Address("POST", REPO + "/commit/{rev}", commit),
    Address("POST", "/api/validate-yaml", validate_yaml),
)
