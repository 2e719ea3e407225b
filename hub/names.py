"""Names from outside: repo ids, refs, file paths and digests are accepted by rule or refused with `BadRequest`."""

import re
from typing import Final, Literal

from hub.errors import BadRequest

RepoType = Literal["model", "dataset", "space"]

KINDS: Final[dict[str, RepoType]] = {"models": "model", "datasets": "dataset", "spaces": "space"}
RESERVED: Final = frozenset({"api", "collections", "datasets", "join", "lfs", "login", "models", "new", "organizations", "settings", "spaces", "v2"})
MAX_PATH: Final = 1024  # bytes of UTF-8, of a whole path in a repo
MAX_SEGMENT: Final = 255  # bytes of UTF-8, of one folder's or file's name: what file systems take

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REF = re.compile(r"[A-Za-z0-9_@+](?:[A-Za-z0-9._@+/-]{0,248}[A-Za-z0-9_@+-])?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def name(value: str, what: str = "name") -> str:
    """Return `value` if it can name a user, an organization or a repo (the client library's own rule)."""
    if not _NAME.fullmatch(value) or ".." in value or "--" in value or value.endswith(".git"):
        raise BadRequest(
            f"{value[:100]!r} is not a valid {what}: 1-96 letters, digits, '-', '_', '.'; no '--' or '..'; not starting or ending in '-' or '.'; nor in '.git'."
        )
    return value


def namespace(value: str) -> str:
    """Return `value` if it can name a user or an organization; words that begin the Hub's own addresses cannot."""
    if value.lower() in RESERVED:
        raise BadRequest(f"{value!r} is reserved and cannot be a user or an organization.")
    return name(value, "user or organization name")


def ref(value: str, what: str) -> str:
    """Return `value` if it can name a branch or a tag (a subset of git's rule)."""
    bad = ("..", "//", "@{", "/.", "./")
    if not _REF.fullmatch(value) or any(part in value for part in bad) or value.endswith(".lock") or value.startswith("refs/") or is_commit(value):
        raise BadRequest(f"{value[:100]!r} is not a valid {what} name.")
    return value


def path(value: str) -> str:
    """Return `value` if it is a plain relative path of a file or folder: no empty, '.', '..' or '.git' part, no control character or backslash."""
    parts = value.split("/")
    bad = (
        not value
        or any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)
        or any(ord(char) < 32 or ord(char) == 127 or char == "\\" or 0xD800 <= ord(char) <= 0xDFFF for char in value)
    )
    if bad or len(value.encode()) > MAX_PATH or any(len(part.encode()) > MAX_SEGMENT for part in parts):
        raise BadRequest(f"{value[:100]!r} is not a valid path in a repo.")
    return value


def is_commit(value: str) -> bool:
    """Whether `value` is a full commit id (40 hexadecimal digits)."""
    return _COMMIT.fullmatch(value) is not None


def sha256(value: str) -> str:
    """Return `value` if it is a sha256 in hexadecimal."""
    if not _SHA256.fullmatch(value):
        raise BadRequest(f"{value[:100]!r} is not a sha256 in hexadecimal.")
    return value
