"""What endpoints are given: the store, the settings, and the assurance that the caller holds a token."""

from http import HTTPStatus
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import Field

from config.settings import Settings
from service.api.errors import ApiError
from service.api.hinting import Hinting
from service.api.tokens import check_token
from service.store import Store, TokenRecord


def _store(request: Request) -> Store:
    return cast("Store", request.app.state.store)


def _settings(request: Request) -> Settings:
    return cast("Settings", request.app.state.settings)


def _hinting(request: Request) -> Hinting:
    return cast("Hinting", request.app.state.hinting)


TheStore = Annotated[Store, Depends(_store)]
TheSettings = Annotated[Settings, Depends(_settings)]
TheHinting = Annotated[Hinting, Depends(_hinting)]

Number = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""A number that the database can hold, as those of runs and publications are."""

_bearer = HTTPBearer(auto_error=False, scheme_name="token", description="A token from `sluice token create NAME`.")


def caller(store: TheStore, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> TokenRecord:
    """The working token of the request. Raises the 401 answer when there is none."""
    token = check_token(store, credentials.credentials) if credentials else None
    if token is None:
        message = "This needs a token that works: send `Authorization: Bearer …` with one from `sluice token create NAME`."
        raise ApiError(HTTPStatus.UNAUTHORIZED, "unauthorized", message, {"WWW-Authenticate": "Bearer"})
    return token


Caller = Annotated[TokenRecord, Depends(caller)]
