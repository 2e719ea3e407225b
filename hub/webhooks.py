"""Webhooks: who wants to hear of what, what is sent, and what a repo still owes to whom."""

import dataclasses
import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from hub import names
from hub.disk import Root
from hub.errors import BadRequest, NotFound
from hub.repos import MAIN, Discussion, Repo
from hub.tokens import Identity

DOMAINS: Final = ("repo", "discussion")
WATCHED: Final = ("user", "org", "model", "dataset", "space")


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """An address that is told of events in the repos it watches."""

    id: str
    owner: str
    orgs: tuple[str, ...]  # of the owner: whose private repos may be told about
    url: str
    watched: tuple[Mapping[str, str], ...]  # {"type": …, "name": …}
    domains: tuple[str, ...]
    secret: str | None
    disabled: bool = False

    def wire(self) -> dict[str, Any]:
        """As the Hub shows it to its owner."""
        shown = ("id", "url", "watched", "domains", "secret", "disabled")
        return {key: value for key, value in asdict(self).items() if key in shown} | {"job": None}

    def wants(self, repo: Repo, scope: str) -> bool:
        """Whether an event of that scope in that repo is to be sent, and may be."""
        if self.disabled or scope.partition(".")[0] not in self.domains:
            return False
        if repo.private and repo.namespace not in (self.owner, *self.orgs):
            return False
        return any(
            item["name"] == (repo.namespace if item["type"] in ("user", "org") else repo.id) and item["type"] in ("user", "org", repo.type)
            for item in self.watched
        )


class Webhooks:
    """The webhooks of a root, in `webhooks.json`. Their secrets have to be sent, so they are stored as they are, readable by the Hub's user only."""

    def __init__(self, root: Root) -> None:
        self._root, self._path = root, root.path / "webhooks.json"
        self._lock = threading.Lock()
        self._known: dict[str, Webhook] = {}
        for entry in json.loads(self._path.read_bytes()) if self._path.exists() else ():
            fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
            webhook = Webhook(**fields)
            self._known[webhook.id] = webhook

    def get(self, webhook_id: str) -> Webhook | None:
        """The webhook of that id, or None."""
        return self._known.get(webhook_id)

    def owned(self, identity: Identity, webhook_id: str) -> Webhook:
        """The webhook of that id, if it is the caller's. Raises NotFound."""
        webhook = self._known.get(webhook_id)
        if webhook is None or webhook.owner != identity.user:
            raise NotFound("Webhook not found")
        return webhook

    def of(self, owner: str) -> list[Webhook]:
        """The webhooks of a user."""
        return [webhook for webhook in self._known.values() if webhook.owner == owner]

    def create(self, identity: Identity, fields: Mapping[str, Any]) -> Webhook:
        """Make a webhook from the client's fields. Raises BadRequest."""
        webhook = Webhook(id=secrets.token_hex(12), owner=identity.user, orgs=identity.orgs, url="", watched=(), domains=DOMAINS, secret=None)
        return self.replace(_with_fields(webhook, fields))

    def update(self, webhook: Webhook, fields: Mapping[str, Any]) -> Webhook:
        """Change those fields of a webhook that are given; an empty list of watched items changes nothing. Raises BadRequest."""
        return self.replace(_with_fields(webhook, fields))

    def replace(self, webhook: Webhook) -> Webhook:
        """Store a webhook, new or changed."""
        with self._lock:
            self._save({**self._known, webhook.id: webhook})
        return webhook

    def delete(self, webhook: Webhook) -> None:
        """Remove a webhook; what is owed to it is not sent any more."""
        with self._lock:
            self._save({key: value for key, value in self._known.items() if key != webhook.id})

    def owe(self, repo: Repo, *, base: str, action: str, scope: str, **details: Any) -> Repo:
        """The same repo, owing a delivery of this event to each webhook that wants it.

        To be written together with the change itself: then neither can be lost without the other.
        """
        wanting = [webhook for webhook in self._known.values() if webhook.wants(repo, scope)]
        if not wanting:
            return repo
        payload = {"event": {"action": action, "scope": scope}, "repo": _repo(repo, base), **details}
        owed = {secrets.token_hex(12): {"webhook": webhook.id, "payload": {**payload, "webhook": {"id": webhook.id, "version": 3}}} for webhook in wanting}
        return dataclasses.replace(repo, outbox={**repo.outbox, **owed})

    def _save(self, known: dict[str, Webhook]) -> None:
        self._root.write(self._path, json.dumps([asdict(webhook) for webhook in known.values()], indent=1).encode(), mode=0o600)
        self._known = known


def web_address(base: str, repo: Repo) -> str:
    """The address of a repo's page; `base` is the Hub's own, without a slash at its end."""
    return f"{base}/{'' if repo.type == 'model' else repo.type + 's/'}{repo.id}"


def owner_id(namespace: str) -> str:
    """A stable id of a user or organization, of the Hub's form (24 hexadecimal digits)."""
    return hashlib.sha256(namespace.encode()).hexdigest()[:24]


def describe(repo: Repo, discussion: Discussion, base: str) -> dict[str, Any]:
    """The `discussion` of a payload."""
    return {
        "id": f"{repo.uid}{discussion.num}",
        "num": discussion.num,
        "title": discussion.title,
        "author": {"id": owner_id(discussion.author)},
        "url": {"web": f"{web_address(base, repo)}/discussions/{discussion.num}", "api": f"{base}/api/{repo.type}s/{repo.id}/discussions/{discussion.num}"},
        "isPullRequest": discussion.pull_request,
        "status": discussion.status,
        "changes": {"base": discussion.base, "mergeCommitId": discussion.merge_commit} if discussion.pull_request else None,
    }


def moved(ref: str, old: str | None, new: str | None) -> list[dict[str, str | None]]:
    """The `updatedRefs` of a payload for one ref."""
    return [{"ref": ref, "oldSha": old, "newSha": new}]


def _repo(repo: Repo, base: str) -> dict[str, Any]:
    return {
        "type": repo.type,
        "name": repo.id,
        "id": repo.uid,
        "private": repo.private,
        "url": {"web": web_address(base, repo), "api": f"{base}/api/{repo.type}s/{repo.id}"},
        "headSha": repo.refs.get(MAIN),
        "tags": [],
        "owner": {"id": owner_id(repo.namespace)},
    }


def _with_fields(webhook: Webhook, fields: Mapping[str, Any]) -> Webhook:
    checks: dict[str, Callable[[Any], Any]] = {"url": _url, "watched": _watched, "domains": _domains, "secret": _secret}
    changes = {key: check(fields[key]) for key, check in checks.items() if fields.get(key)}
    webhook = dataclasses.replace(webhook, **changes)
    if not webhook.url:
        raise BadRequest("A webhook needs a `url`: this Hub runs no jobs.")
    if not webhook.watched:
        raise BadRequest("A webhook needs something to watch.")
    return webhook


def _url(value: Any) -> str:
    try:
        parts = urlsplit(value) if isinstance(value, str) and value.isascii() and value.isprintable() else None
        good = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise BadRequest(f"{str(value)[:200]!r} is not an http or https address.")
    return str(value)


def _watched(value: Any) -> tuple[Mapping[str, str], ...]:
    items = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    watched = []
    for item in items:
        if not isinstance(item, Mapping) or item.get("type") not in WATCHED or not isinstance(item.get("name"), str):
            raise BadRequest(f"A watched item is {{type: one of {', '.join(WATCHED)}, name}}.")
        for part in item["name"].split("/", 1):
            names.name(part)
        watched.append({"type": str(item["type"]), "name": str(item["name"])})
    return tuple(watched)


def _domains(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or any(domain not in DOMAINS for domain in value):
        raise BadRequest(f"The domains of a webhook are {' and '.join(DOMAINS)}.")
    return tuple(value)


def _secret(value: Any) -> str:
    # It is sent as a header.
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise BadRequest("The secret of a webhook is printable ASCII text.")
    return value
