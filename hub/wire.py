"""The Hub's JSON: repos, files, commits and discussions in the form that the client library reads."""

import functools
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hub import cards, commits
from hub.commits import Commit, Entry
from hub.core import Hub
from hub.disk import now
from hub.repos import MAIN, Discussion, Repo

MAX_CARD: Final = 1 << 20  # bytes of a README that are read for its front matter
MAX_CONFIG: Final = 1 << 20  # bytes of a config.json that is shown

# Always shown of a repo, whatever a caller asks for with `expand`.
ALWAYS: Final = ("_id", "id", "modelId", "private")


def repo_info(hub: Hub, repo: Repo, commit: Commit, *, blobs: bool = False, expand: Sequence[str] = ()) -> dict[str, Any]:
    """All that is known of a repo at a commit; with `expand`, only those properties."""
    card = card_data(hub, commit)
    config = _config(hub, commit) if not expand or "config" in expand else {}  # read anew each time
    formats = [name for name in ("safetensors", "gguf") if any(path.endswith(f".{name}") for path in commit.tree)]
    tags = [*cards.tags(card), *formats, "region:us"]
    info = {
        "_id": repo.uid,
        "id": repo.id,
        "author": repo.namespace,
        "sha": commit.id,
        "lastModified": modified(hub, repo),
        "createdAt": repo.created_at,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": 0,
        "downloadsAllTime": 0,
        "likes": 0,
        "trendingScore": 0,
        "tags": list(dict.fromkeys(tags)),
        "cardData": card or None,
        "siblings": [sibling(path, entry, blobs=blobs) for path, entry in commit.tree.items()],
        "usedStorage": sum({entry.sha256: entry.size for entry in commit.tree.values()}.values()),
    }
    if repo.type == "model":
        info |= {
            "modelId": repo.id,
            "pipeline_tag": card.get("pipeline_tag"),
            "library_name": card.get("library_name"),
            "config": {key: config[key] for key in ("architectures", "model_type") if key in config} if config else None,
            "baseModels": _base_models(card),
            "spaces": [],
        }
    if expand:
        return {key: value for key, value in info.items() if key in (*ALWAYS, *expand)}
    return {key: value for key, value in info.items() if value is not None and key not in ("downloadsAllTime", "trendingScore", "baseModels")}


def modified(hub: Hub, repo: Repo) -> str:
    """When the repo's main branch was last committed to."""
    return hub.repos.commit(repo, repo.refs[MAIN]).date


def sibling(path: str, entry: Entry, *, blobs: bool) -> dict[str, Any]:
    """A file among a repo's `siblings`."""
    if not blobs:
        return {"rfilename": path}
    lfs = {"lfs": {"sha256": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}} if entry.lfs else {}
    return {"rfilename": path, "size": entry.size, "blobId": entry.oid, **lfs}


def file_item(path: str, entry: Entry) -> dict[str, Any]:
    """A file of a tree listing."""
    lfs = {"lfs": {"oid": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}} if entry.lfs else {}
    return {"type": "file", "path": path, "oid": entry.oid, "size": entry.size, **lfs}


def items(hub: Hub, repo: Repo, commit: Commit, paths: Iterable[str], *, expand: bool) -> list[dict[str, Any]]:
    """Tree items of those of `paths` that are a file or a folder; with `expand`, with the last commit of each."""
    wanted = list(paths)
    trees = commits.git_trees(commit.tree)
    found = []
    for path in wanted:
        if entry := commit.tree.get(path):
            found.append(file_item(path, entry))
        elif path and path in trees:
            found.append({"type": "directory", "path": path, "oid": trees[path], "size": 0})
    if expand:
        last = commits.last_commits(hub.repos.commit_folder(repo.uid), commit.id, [item["path"] for item in found])
        found = [item | {"lastCommit": {"id": last[item["path"]].id, "title": last[item["path"]].title, "date": last[item["path"]].date}} for item in found]
    return found


def commit_item(commit: Commit, *, formatted: bool) -> dict[str, Any]:
    """A commit of a list of commits."""
    item: dict[str, Any] = {
        "id": commit.id,
        "title": commit.title,
        "message": commit.message,
        "date": commit.date,
        "authors": [{"user": commit.author, "avatar": ""}],
    }
    if formatted:
        item["formatted"] = {"title": html.escape(commit.title), "message": html.escape(commit.message)}
    return item


def refs(repo: Repo, *, pull_requests: bool) -> dict[str, Any]:
    """The refs of a repo by kind."""

    def under(prefix: str, cut: str) -> list[dict[str, str]]:
        named = sorted((ref, target) for ref, target in repo.refs.items() if ref.startswith(prefix))
        return [{"name": ref.removeprefix(cut), "ref": ref, "targetCommit": target} for ref, target in named]

    found: dict[str, Any] = {"branches": under("refs/heads/", "refs/heads/"), "converts": [], "tags": under("refs/tags/", "refs/tags/")}
    return found | ({"pullRequests": under("refs/pr/", "")} if pull_requests else {})


def discussion(repo: Repo, each: Discussion) -> dict[str, Any]:
    """A discussion of a list of discussions."""
    return {
        "num": each.num,
        "title": each.title,
        "author": {"name": each.author},
        "repo": {"name": repo.id, "type": repo.type},
        "createdAt": each.created_at,
        "status": each.status,
        "isPullRequest": each.pull_request,
    }


def event(type: str, author: str, identity: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """An event of a discussion, happening now."""
    return {"id": identity, "type": type, "createdAt": now(), "author": {"name": author}, "data": data}


def comment(text: str, author: str) -> dict[str, Any]:
    """The data of a comment's event."""
    latest = {"raw": text, "html": f"<p>{html.escape(text)}</p>", "updatedAt": now(), "author": {"name": author}}
    return {"edited": False, "hidden": False, "latest": latest, "numEdits": 0, "history": []}


def card_data(hub: Hub, commit: Commit) -> Mapping[str, Any]:
    """The front matter of the commit's README; empty when there is none, or a broken one."""
    entry = commit.tree.get("README.md")
    return _card(hub.objects.path(entry.sha256)) if entry else {}


@functools.lru_cache(maxsize=1024)
def _card(path: Path) -> Mapping[str, Any]:
    # By the object's path, which contains its sha256: the same file is parsed once. A round trip leaves only what JSON can say.
    with path.open("rb") as file:
        data = cards.read(file.read(MAX_CARD).decode(errors="replace")).data
    try:
        loaded = json.loads(json.dumps(data, default=str, allow_nan=False))
    except (ValueError, TypeError, RecursionError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _config(hub: Hub, commit: Commit) -> Mapping[str, Any]:
    entry = commit.tree.get("config.json")
    if entry is None or entry.size > MAX_CONFIG:
        return {}
    try:
        config = json.loads(hub.objects.path(entry.sha256).read_bytes(), parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _base_models(card: Mapping[str, Any]) -> dict[str, Any] | None:
    base = card.get("base_model")
    if not base:
        return None
    return {"relation": card.get("base_model_relation"), "models": [{"id": name} for name in (base if isinstance(base, list) else [base])]}
