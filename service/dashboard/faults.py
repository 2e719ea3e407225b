"""What goes wrong, as a page: the same statuses and sentences as the API's."""

from http import HTTPStatus
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from config.errors import SluiceError
from service.api.errors import ApiError, away, status_of
from service.dashboard.rendering import page
from service.dashboard.signing import NotSignedIn
from service.logs import redact


def install(app: FastAPI) -> None:
    """Answer every kind of error with a page."""

    def told(request: Request, status: int, message: str, headers: dict[str, str] | None = None) -> Response:
        answer = page("fault.html.j2", None, status=status, title=HTTPStatus(status).phrase, message=redact(message), request_id=request.state.request_id)
        answer.headers.update(headers or {})
        return answer

    @app.exception_handler(NotSignedIn)
    def sign_in(request: Request, error: NotSignedIn) -> Response:
        path = request.url.path.removeprefix(request.scope["root_path"]) or "/"
        wanted = f"?next={quote(path)}" if request.method == "GET" and path != "/" else ""
        return RedirectResponse(f"{request.scope['root_path']}/sign-in{wanted}", status_code=HTTPStatus.SEE_OTHER)

    @app.exception_handler(ApiError)
    def api_error(request: Request, error: ApiError) -> Response:
        return told(request, error.status, str(error), dict(error.headers or {}))

    @app.exception_handler(SluiceError)
    def expected(request: Request, error: SluiceError) -> Response:
        return told(request, status_of(error)[0], str(error))

    @app.exception_handler(SQLAlchemyError)
    def database(request: Request, error: SQLAlchemyError) -> Response:
        found = away(error)
        return told(request, found.status, str(found), dict(found.headers or {}))

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        return told(request, HTTPStatus.UNPROCESSABLE_ENTITY, "The address holds something that it cannot. Go back to where you came from.")

    @app.exception_handler(HTTPException)
    def plain(request: Request, error: HTTPException) -> Response:
        return told(request, error.status_code, "There is no such page.", dict(error.headers or {}))
