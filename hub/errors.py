"""Refusals: what the Hub answers instead of a result, with the status and the error code the client library knows."""

from collections.abc import Mapping
from typing import Any, ClassVar


class RootError(Exception):
    """The root folder cannot be served: another process serves it, or it holds something that is not ours."""


class Refusal(Exception):
    """A request that is refused; its message goes to the caller as `X-Error-Message` and as the JSON `error`."""

    status: ClassVar[int] = 400
    code: ClassVar[str | None] = None

    def __init__(self, message: str, *, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.body = dict(body or {})
        self.headers = dict(headers or {})


class BadRequest(Refusal):
    """The request is malformed or asks for something impossible."""


class Unauthorized(Refusal):
    """A token is needed, or the one given is unknown."""

    status = 401


class Forbidden(Refusal):
    """The token is known but may not do this."""

    status = 403


class NotFound(Refusal):
    """No such thing, other than a repo, revision or file."""

    status = 404


class RepoNotFound(NotFound):
    """The repo does not exist, or the caller may not know that it does."""

    code = "RepoNotFound"


class RepoHidden(RepoNotFound):
    """The same, to a caller without a token: the Hub then answers 401."""

    status = 401


class RevisionNotFound(NotFound):
    """The repo has no such branch, tag, pull request or commit."""

    code = "RevisionNotFound"


class EntryNotFound(NotFound):
    """The revision has no such file or folder."""

    code = "EntryNotFound"


class GatedRepo(Forbidden):
    """The repo's files are for people whom its owner admitted."""

    code = "GatedRepo"


class Conflict(Refusal):
    """The thing to be made exists already, or two changes contradict each other."""

    status = 409


class StaleParent(Refusal):
    """The branch has moved since the caller looked at it (`parentCommit`)."""

    status = 412


class TooLarge(Refusal):
    """The body is longer than announced or allowed."""

    status = 413


class NoSpace(Refusal):
    """The disk is full; unlike a 500, the client does not try this again."""

    status = 507
