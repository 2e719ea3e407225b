"""How requests between Sluice and others are signed, those that come in and those that go out."""

import hashlib
import hmac

TIMESTAMP, SIGNATURE = "X-Sluice-Timestamp", "X-Sluice-Signature"


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """The signature of a request: HMAC-SHA256 over the time in whole seconds since 1970, a dot and the body."""
    return "sha256=" + hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
