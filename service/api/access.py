"""What endpoints are given: the store, the settings, and the assurance that the caller's token works and may do what is asked."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

from config.settings import Settings
from config.wire import LARGEST
from service.api.attempts import Attempts
from service.api.errors import ApiError
from service.api.hinting import Hinting
from service.api.tokens import find_token
from service.runs.steering import Actor
from service.store import PublicationRecord, RunRecord, Scope, Store, TokenRecord, UnknownPublication, UnknownRun

_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]")


def _store(request: Request) -> Store:
    return cast("Store", request.app.state.store)


def _settings(request: Request) -> Settings:
    return cast("Settings", request.app.state.settings)


def _written_out(value: object) -> object:
    """A number is no time, though it could be taken for seconds since 1970: OpenAPI says that times are written out."""
    if isinstance(value, str) and not _TIME.match(value):
        raise ValueError("write it as 2026-11-28T12:00:00Z")
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("no such day") from error


def _hinting(request: Request) -> Hinting:
    return cast("Hinting", request.app.state.hinting)


TheStore = Annotated[Store, Depends(_store)]
TheSettings = Annotated[Settings, Depends(_settings)]
TheHinting = Annotated[Hinting, Depends(_hinting)]

Number = Annotated[int, Field(ge=0, le=LARGEST)]
"""A number that the tables can hold, as those of runs and publications are."""
Moment = Annotated[AwareDatetime, BeforeValidator(_written_out), AfterValidator(_in_utc)]
"""A time with its zone."""
Words = Annotated[str, Field(min_length=1, max_length=250, pattern=r"^[^\x00]*$")]
"""What is looked for."""
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*[^\s\x00][^\x00]*$")]
"""A person's name, or another that is not blank."""
Reason = Annotated[str, Field(min_length=1, max_length=2000, pattern=r"^[^\x00]*[^\s\x00][^\x00]*$")]
"""Why, in a person's words."""

_bearer = HTTPBearer(auto_error=False, scheme_name="token", description="A token from `sluice token create NAME`.")


def caller(request: Request, store: TheStore, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> TokenRecord:
    """The working token of the request. Raises the 401 answer when there is none, the 429 answer when there were too many wrong ones."""
    token = find_token(store, credentials.credentials) if credentials else None
    if token is None or not token.works(datetime.now(UTC)):
        if credentials is not None:
            refuse_flood(request, store)
        raise ApiError(HTTPStatus.UNAUTHORIZED, "unauthorized", _needed(token), {"WWW-Authenticate": "Bearer"})
    store.token_used(token)
    request.state.token = token
    return token


def _needed(token: TokenRecord | None) -> str:
    """What to do for a token that works; who sends one that did may know why it does no more."""
    if token is None:
        return "This needs a token that works: send `Authorization: Bearer …` with one from `sluice token create NAME`."
    end = "was revoked" if token.revoked or token.expires is None else f"expired on {token.expires:%Y-%m-%d %H:%M} UTC"
    return f"The token {token.name} {end}. Make another with `sluice token create NAME`."


def refuse_flood(request: Request, store: Store) -> None:
    """Count a wrong token, secret or signature, and raise the 429 answer when there were too many. Writes to the database."""
    attempts = cast("Attempts", request.app.state.attempts)
    if (wait := attempts.failed(store, request.client.host if request.client else "unknown", request.url.path)) is not None:
        message = f"Too many wrong tokens, secrets or signatures came from this address. Look which client sends them; the next one is answered in {wait} s."
        raise ApiError(HTTPStatus.TOO_MANY_REQUESTS, "too_many_failures", message, {"Retry-After": str(wait)})


Caller = Annotated[TokenRecord, Depends(caller)]


def needing(scope: Scope) -> Callable[[TokenRecord], TokenRecord]:
    """A dependency: the caller's token, which has that scope."""

    def check(token: Caller) -> TokenRecord:
        refuse_lacking(token, scope)
        return token

    return check


def refuse_lacking(token: TokenRecord, scope: Scope) -> None:
    """Raise the 403 answer when the token may not do what needs that scope."""
    if not token.may(scope):
        message = f"The token {token.name} has the scopes {', '.join(token.scopes)}, and this needs `{scope}`. Use another, or make one with --scope {scope}."
        raise ApiError(HTTPStatus.FORBIDDEN, "forbidden", message)
    if not reaches(token, scope):
        raise _of_everything(token)


def everybodys(token: Caller) -> TokenRecord:
    """The caller's token, which may see all namespaces. Raises the 403 answer: what is of no namespace tells of all of them."""
    if token.namespaces is not None:
        raise _of_everything(token)
    return token


def _of_everything(token: TokenRecord) -> ApiError:
    only = ", ".join(token.namespaces or ())
    message = f"The token {token.name} is for {only} alone, and this is of the whole service. Use another, or make one without --namespace."
    return ApiError(HTTPStatus.FORBIDDEN, "forbidden", message)


def reaches(token: TokenRecord, scope: Scope) -> bool:
    """Whether the token's namespaces let it use that scope.

    What needs `admin` is of the whole service. The watch list decides what it does for everybody. The audit trail is not cut down to some namespaces either:
    it tells of tokens and sign-ins as well, and of a run that was forgotten since nobody can say any more whose it was.
    """
    return scope != "admin" or token.namespaces is None


Operator = Annotated[TokenRecord, Depends(needing("operate"))]
Publisher = Annotated[TokenRecord, Depends(needing("publish"))]
Administrator = Annotated[TokenRecord, Depends(needing("admin"))]


def visible_run(id: Number, store: TheStore, token: Caller) -> RunRecord:
    """The run of that number, as far as the token may see it. Raises UnknownRun, of others' runs too."""
    run = store.run(id)
    if not token.sees(run.namespace):
        raise UnknownRun(f"There is no run {id}. `sluice status` lists the runs there are.")
    return run


def visible_publication(id: Number, store: TheStore, token: Caller) -> PublicationRecord:
    """The publication of that number, as far as the token may see it. Raises UnknownPublication."""
    publication = store.publication(id)
    if not token.sees(store.run(publication.run).namespace):
        raise UnknownPublication(f"There is no publication {id}. A run's summary lists its publications.")
    return publication


TheRun = Annotated[RunRecord, Depends(visible_run)]
ThePublication = Annotated[PublicationRecord, Depends(visible_publication)]


def actor(token: TokenRecord) -> Actor:
    """Who asks by the API, for the audit trail."""
    return Actor(source="api", details={"token": token.name})
