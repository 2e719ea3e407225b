"""One request, as a route sees it: who asks, about which repo, with which body, and whether that is allowed."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import unquote

from starlette.requests import Request

from hub.commits import Commit
from hub.core import Hub
from hub.errors import BadRequest, Forbidden, RepoHidden, RepoNotFound, TooLarge, Unauthorized
from hub.names import KINDS, RepoType
from hub.repos import Repo
from hub.tokens import Identity

MAX_JSON: Final = 4 << 20  # bytes of a JSON or form body; the client's largest, 256 files' samples, is a tenth of it
UNKNOWN_CALLER: Final = "Invalid credentials in Authorization header"  # the client tells this apart from a hidden repo

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request with its caller identified."""

    hub: Hub
    request: Request
    identity: Identity | None
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """The Hub's own address as the caller knows it, without a slash at its end."""
        return str(self.request.base_url).rstrip("/")

    @property
    def query(self) -> Mapping[str, str]:
        """The query's parameters; the last of several of the same name."""
        return self.request.query_params

    def flag(self, key: str) -> bool:
        """A parameter of the query as a boolean."""
        return self.query.get(key, "").lower() in ("1", "true")

    def number(self, key: str, default: int, *, most: int) -> int:
        """A parameter of the query as an integer between 0 and `most`. Raises BadRequest."""
        value = self.query.get(key, str(default))
        if not (value.isascii() and value.isdigit() and len(value) < 10):
            raise BadRequest(f"{key!r} has to be a number.")
        return min(int(value), most)

    def part(self, key: str) -> str:
        """A variable part of the address, decoded: routes match the address as it was sent, where %2F does not end a part."""
        try:
            return unquote(self.request.path_params[key], errors="strict")
        except UnicodeDecodeError:
            raise BadRequest("The address is not UTF-8.") from None

    def field(self, key: str, kind: type[T], default: T | None = None) -> T:
        """A field of the JSON body. Raises BadRequest when it is missing without a default, or of another type."""
        value = self.body.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise BadRequest(f"{key!r} has to be a {kind.__name__}.")
        return value

    def optional(self, key: str, kind: type[T]) -> T | None:
        """A field of the JSON body that may be missing or null. Raises BadRequest when it is of another type."""
        return None if self.body.get(key) is None else self.field(key, kind)

    def user(self, *, write: bool = False) -> Identity:
        """The caller, who has to have a token (with scope `write`). Raises Unauthorized or Forbidden."""
        if self.identity is None:
            raise Unauthorized("Invalid username or password.")
        if write and self.identity.scope != "write":
            raise Forbidden("This token may only read: use one with scope write.")
        return self.identity

    def owner(self, namespace: str) -> Identity:
        """The caller, who has to be allowed to change what is in `namespace`. Raises Unauthorized or Forbidden."""
        user = self.user(write=True)
        if not user.owns(namespace):
            raise Forbidden(f"You don't have the rights to change anything in the namespace {namespace[:100]!r}.")
        return user

    def can_read(self, repo: Repo) -> bool:
        """Whether the caller may know that the repo exists."""
        return not repo.private or (self.identity is not None and self.identity.owns(repo.namespace))

    def repo(self) -> Repo:
        """The repo that the address names, if the caller may read it. Raises RepoNotFound."""
        identity = f"{self.part('ns')}/{self.part('name')}"
        return self.repo_named(KINDS[self.request.path_params.get("kind", "models")], identity)

    def repo_named(self, type: RepoType, identity: str) -> Repo:
        """A repo, if the caller may read it. Raises RepoNotFound, whether there is none or only none for the caller."""
        _safe(identity)
        repo = self.hub.repos.find(type, identity)
        if repo is None or not self.can_read(repo):
            raise (RepoNotFound if self.identity else RepoHidden)("Repository not found")
        return repo

    def repo_to_change(self) -> Repo:
        """The repo that the address names, if the caller may change it. Raises RepoNotFound, Unauthorized or Forbidden."""
        repo = self.repo()
        self.owner(repo.namespace)
        return repo

    def repo_to_contribute_to(self) -> Repo:
        """The repo that the address names, if the caller may open a pull request in it. Raises RepoNotFound, Unauthorized or Forbidden."""
        repo = self.repo()
        self.user(write=True)
        return repo

    def commit(self, repo: Repo) -> Commit:
        """The commit of the revision that the address names. Raises RevisionNotFound."""
        return self.hub.repos.head(repo, self.part("rev"))


def _safe(identity: str) -> None:
    for part in identity.split("/"):
        # A name that nobody can have is not found; one that tries to leave the folder is a bad request, and says so.
        if part in ("", ".", "..") or any(ord(char) < 32 or char in "\\\x7f" for char in part):
            raise BadRequest(f"{identity[:100]!r} is not a repo id.")


def identify(hub: Hub, request: Request) -> Identity | None:
    """Whom the request's token stands for; None without one. Raises Unauthorized for an unknown token."""
    header = request.headers.get("authorization")
    if not header:
        return None
    scheme, _, token = header.partition(" ")
    identity = hub.tokens.find(token.strip()) if scheme.lower() == "bearer" else None
    if identity is None:
        raise Unauthorized(UNKNOWN_CALLER)
    return identity


async def read_body(request: Request, limit: int = MAX_JSON) -> bytes:
    """The request's body. Raises TooLarge beyond `limit` bytes, before reading on."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise TooLarge(f"The body is longer than {limit} bytes.")
    return bytes(body)


def parse_json(data: bytes) -> Mapping[str, Any]:
    """A JSON object; an empty body is an empty one. Raises BadRequest."""
    try:
        value = json.loads(data, parse_constant=_refuse_constant, parse_float=_finite) if data.strip() else {}
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()  # fails on half of a surrogate pair, which no answer could hold
    except (ValueError, RecursionError):
        raise BadRequest("The body is not valid JSON.") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest("The body has to be a JSON object.")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
