"""Bearer tokens of the API: 256 random bits, shown once, kept as a hash."""

import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime

from config.errors import ConfigurationError
from service.store import Store, TokenRecord
from service.store.access import EVERYTHING, Grant

PREFIX = "sluice_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def create_token(store: Store, name: str, grant: Grant = EVERYTHING) -> str:
    """A new token that works until it is revoked or expires; this is the only time it can be read.

    Raises ConfigurationError for a name that is not plain, StoreError for one that was used before.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is not a token name. Use up to 100 letters, digits, dots, dashes and underscores, beginning with a letter or digit."
        )
    token = PREFIX + secrets.token_urlsafe(32)
    store.add_token(name, digest_of(token), grant)
    return token


def revoke_token(store: Store, name: str) -> None:
    """Make a token stop working at once. Raises StoreError when no working token has that name."""
    store.revoke_token(name)


def check_token(store: Store, token: str) -> TokenRecord | None:
    """The working token that `token` is, or None."""
    found = find_token(store, token)
    return found if found is not None and found.works(datetime.now(UTC)) else None


def find_token(store: Store, token: str) -> TokenRecord | None:
    """The token that `token` is, whether it works any more or not, or None. Takes as long for a near miss as for a wide one.

    A plain hash is enough: 256 random bits cannot be guessed, so there is nothing for a slow hash to slow down.
    """
    digest, found = digest_of(token), None
    for record in store.tokens():
        if hmac.compare_digest(record.digest, digest):
            found = record
    return found


def digest_of(secret: str) -> str:
    """What is kept of a token, or of a session."""
    return hashlib.sha256(secret.encode()).hexdigest()
