"""Access tokens: who may read and write where. Only their sha256 is stored."""

import hashlib
import json
import secrets
import string
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from hub import names
from hub.disk import Root, now
from hub.errors import BadRequest

Scope = Literal["read", "write"]

FILE: Final = "tokens.json"
# The Hub's own form, `hf_` and 34 letters or digits: llama.cpp refuses to send anything else.
PREFIX: Final = "hf_"
LENGTH: Final = 34


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Whom a token stands for: a user, what the token may do, and the organizations the user belongs to."""

    user: str
    scope: Scope
    orgs: tuple[str, ...]
    created_at: str

    def owns(self, namespace: str) -> bool:
        """Whether repos of `namespace` are this user's to see and to change."""
        return namespace == self.user or namespace in self.orgs


def create_token(root: Path, *, user: str, scope: Scope = "write", orgs: Sequence[str] = ()) -> str:
    """Make a token for `user`, valid at once, also on a Hub that is running on `root`; return it, as it cannot be read again.

    It sees the private repos of `user` and of `orgs`, and with scope `write` it may change them.
    Raises hub.errors.BadRequest for a name that no user or organization can have, or an unknown scope.
    """
    for each in (user, *orgs):
        names.namespace(each)
    if scope not in ("read", "write"):
        raise BadRequest(f"{scope!r} is not a scope: use 'read' or 'write'.")
    folder = Root(root)
    folder.prepare()
    token = PREFIX + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(LENGTH))
    identity = Identity(user=user, scope=scope, orgs=tuple(orgs), created_at=now())
    with folder.locked("tokens.lock", wait=10.0):
        known = json.loads((root / FILE).read_bytes()) if (root / FILE).exists() else {}
        known[_digest(token)] = asdict(identity)
        folder.write(root / FILE, json.dumps(known, indent=1).encode(), mode=0o600)
    return token


class Tokens:
    """The tokens of a root, read again whenever the file has changed."""

    def __init__(self, root: Path) -> None:
        self._path = root / FILE
        self._seen: tuple[int, int] | None = None
        self._known: dict[str, Identity] = {}
        self._lock = threading.Lock()

    def find(self, token: str) -> Identity | None:
        """Whom `token` stands for, or None if it is unknown."""
        with self._lock:
            try:
                status = self._path.stat()
            except FileNotFoundError:
                return None
            if self._seen != (status.st_mtime_ns, status.st_ino):
                loaded = json.loads(self._path.read_bytes())
                self._known = {digest: Identity(**{**entry, "orgs": tuple(entry["orgs"])}) for digest, entry in loaded.items()}
                self._seen = (status.st_mtime_ns, status.st_ino)
            return self._known.get(_digest(token))


def _digest(token: str) -> str:
    # A token has 200 random bits: a plain hash cannot be guessed back, and its look-up leaks no usable timing.
    return hashlib.sha256(token.encode()).hexdigest()
