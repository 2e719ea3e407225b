"""Signing in with a token, and who looks at a page: the browser keeps a secret in a cookie, the database its hash.

A form carries a second secret that is derived from the first, so that no other site can have a browser send one.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, cast
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from service.api.access import TheStore, reaches, refuse_flood, refuse_lacking
from service.api.behind import prefix
from service.api.errors import ApiError
from service.api.tokens import check_token, digest_of
from service.store import Scope, Store, TokenRecord

COOKIE = "sluice_session"
SECONDS = 12 * 3600.0  # after which a person signs in again
LONGEST = 2000  # characters of a field of a form

router = APIRouter()


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Who looks at the dashboard."""

    token: TokenRecord
    csrf: str  # what forms of this session carry

    def may(self, scope: Scope) -> bool:
        """Whether the token has that scope, and it reaches as far."""
        return self.token.may(scope) and reaches(self.token, scope)


class NotSignedIn(Exception):
    """Nobody is signed in who could see the page."""


def _visitor(request: Request) -> Visitor:
    secret, store = request.cookies.get(COOKIE), cast("Store", request.app.state.store)
    token = store.session_token(digest_of(secret)) if secret else None
    if secret is None or token is None:
        raise NotSignedIn
    store.token_used(token)
    return Visitor(token=token, csrf=_csrf(secret))


def signed_in(request: Request) -> Callable[[], bool]:
    """Asks again whether the session of a request that was let in still stands."""
    store, digest = cast("Store", request.app.state.store), digest_of(request.cookies[COOKIE])
    return lambda: store.session_token(digest) is not None


TheVisitor = Annotated[Visitor, Depends(_visitor)]


async def _form(request: Request) -> dict[str, str]:
    """The fields of the request's form. Raises the 403 answer when it comes from another site, the 400 answer when it is none."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
        raise ApiError(HTTPStatus.FORBIDDEN, "forbidden", "This form was sent by another site. Nothing was done.")
    try:
        pairs = parse_qsl((await request.body()).decode("utf-8"), keep_blank_values=True, strict_parsing=True, max_num_fields=20)
    except ValueError as error:
        raise ApiError(HTTPStatus.BAD_REQUEST, "invalid", "The form cannot be read.") from error
    return {name: value.replace("\0", "")[:LONGEST].strip() for name, value in pairs}


Form = Annotated[dict[str, str], Depends(_form)]


def doing(visitor: Visitor, form: dict[str, str], scope: Scope) -> None:
    """Raise the 403 answer when the form is not of this visitor's pages, or the token lacks the scope."""
    if not hmac.compare_digest(form.get("csrf", "").encode(), visitor.csrf.encode()):
        raise ApiError(HTTPStatus.FORBIDDEN, "forbidden", "This form is of another session. Go back, load the page again, and repeat what you did.")
    refuse_lacking(visitor.token, scope)


@router.get("/sign-in")
def ask(request: Request) -> HTMLResponse:
    """The page that asks for a token."""
    from service.dashboard.rendering import page

    return page("sign-in.html.j2", None, next=_inside(request.query_params.get("next", "")), wrong=False)


@router.post("/sign-in")
def sign_in(request: Request, form: Form, store: TheStore) -> Response:
    """Begin a session with the token, or ask again."""
    from service.dashboard.rendering import page

    token = check_token(store, form.get("token", ""))
    if token is None:
        refuse_flood(request, store)
        return page("sign-in.html.j2", None, status=HTTPStatus.UNAUTHORIZED, next=_inside(form.get("next", "")), wrong=True)
    secret = secrets.token_urlsafe(32)
    store.add_session(digest_of(secret), token, seconds=SECONDS, client=request.client.host if request.client else "unknown")
    answer = RedirectResponse(request.scope["root_path"] + _inside(form.get("next", "")), status_code=HTTPStatus.SEE_OTHER)
    answer.set_cookie(COOKIE, secret, max_age=int(SECONDS), path=f"{prefix()}/", httponly=True, samesite="lax", secure=request.url.scheme == "https")
    return answer


@router.post("/sign-out")
def sign_out(request: Request, form: Form, visitor: TheVisitor, store: TheStore) -> Response:
    """End the session."""
    doing(visitor, form, "read")
    store.end_session(digest_of(request.cookies[COOKIE]))
    answer = RedirectResponse(request.scope["root_path"] + "/sign-in", status_code=HTTPStatus.SEE_OTHER)
    answer.delete_cookie(COOKIE, path=f"{prefix()}/")
    return answer


def _inside(path: str) -> str:
    """The path of a page of ours; the first page where it is none."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() else "/"


def _csrf(secret: str) -> str:
    return hmac.new(secret.encode(), b"form", hashlib.sha256).hexdigest()
