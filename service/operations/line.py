"""The line to a service elsewhere: requests to its API, and whatever goes wrong with them in a sentence."""

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import httpx

from config.errors import ConfigurationError, HubError, SluiceError
from config.settings import Settings
from config.wire import API, KINDS, LEVEL, LEVEL_HEADER

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 90.0  # some answers wait for a Hub, which the service allows 60
SILENCE_SECONDS = 60.0  # of a stream, whose service speaks every 15
VARIABLE = "SLUICE_SERVER_TOKEN"

_CONFIGURATION = {"invalid", "unusable_recipe", "forbidden"}  # codes of problems that are the caller's to correct, as wrong settings are
_OF_THE_HUB = {"hub_failed", "publish_conflict", "superseded"}


class Unreachable(SluiceError):
    """The service elsewhere cannot be reached, or the line to it broke."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Where the service is, and who asks."""

    server: str
    client: httpx.Client

    @classmethod
    def to(cls, settings: Settings) -> "Line":
        """The line to the service that the settings name. Raises ConfigurationError where they hold no token for it."""
        server = str(settings.server).rstrip("/")
        if settings.server_token is None:
            raise ConfigurationError(
                f"SLUICE_SERVER names {server}, and no token for it is given. Set {VARIABLE} to one from `sluice token create NAME` there."
            )
        headers = {"Authorization": f"Bearer {settings.server_token.get_secret_value()}", "User-Agent": "sluice", "Accept": "application/json"}
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        return cls(server=server, client=httpx.Client(base_url=f"{server}{API}", headers=headers, timeout=timeout))

    def get(self, path: str, **wanted: Any) -> Any:
        """The JSON of an answer; what is wanted goes into the query, unless it is None."""
        return self._document(self._asked("GET", path, params=_query(wanted)))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON of the answer to a request that changes something."""
        return self._document(self._asked("POST", path, json=body))

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON of the answer to a request that replaces something."""
        return self._document(self._asked("PUT", path, json=body))

    def delete(self, path: str) -> None:
        """Let something there be no more."""
        self._asked("DELETE", path)

    def text(self, path: str, **wanted: Any) -> str:
        """An answer that is text."""
        return self._asked("GET", path, params=_query(wanted)).text

    def content(self, path: str) -> bytes:
        """An answer's bytes."""
        return self._asked("GET", path).content

    def events(self, path: str, **wanted: Any) -> Iterator[tuple[str, str]]:
        """Name and data of each server-sent event until the stream ends."""
        timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
        headers = {"Accept": "text/event-stream"}
        with self._in_words(), self.client.stream("GET", path, params=_query(wanted), headers=headers, timeout=timeout) as answer:
            if answer.status_code != httpx.codes.OK:
                answer.read()
            self._refuse(answer)
            yield from _events(_lines(answer.iter_bytes()))

    def _document(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError as error:
            raise Unreachable(f"The answer of the service at {self.server} is no JSON: something between changed it. Try again.") from error

    def _asked(self, method: str, path: str, **named: Any) -> httpx.Response:
        with self._in_words():
            answer = self.client.request(method, path, **named)
        self._refuse(answer)
        return answer

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            if (refused := _of_tls(error)) is not None:
                raise Unreachable(_tls_in_words(self.server, refused)) from error
            raise Unreachable(f"The service at {self.server} cannot be reached: {error}. Is it running, and is SLUICE_SERVER its address?") from error
        except httpx.TimeoutException as error:
            raise Unreachable(f"The service at {self.server} did not answer in time. Try again in a while, or look at it there.") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(f"The line to the service at {self.server} broke: {str(error) or type(error).__name__}. Try again.") from error

    def _refuse(self, answer: httpx.Response) -> None:
        """Raise what the answer tells of, unless it is as it should be."""
        if answer.is_redirect:
            raise ConfigurationError(f"{self.server} sends on to {answer.headers.get('Location')}. Set SLUICE_SERVER to the address of the service itself.")
        problem = _problem(answer)
        if problem is None and answer.status_code in {502, 503, 504}:
            raise Unreachable(f"What is in front of the service at {self.server} answers {answer.status_code}: the service itself may be down.")
        level = answer.headers.get(LEVEL_HEADER, "")
        if problem is None and not level.isdigit():
            told = f"answered {answer.status_code} as no such service does"
            raise ConfigurationError(f"{self.server} {told}: either SLUICE_SERVER is not the address of one, or it is older than this command. Look at both.")
        if problem is not None and problem["code"] in {"busy", "database_away", "too_large", "too_slow"}:
            raise Unreachable(f"The service at {self.server} cannot answer now: {problem['detail']}")
        if not level.isdigit() or int(level) < LEVEL:
            raise ConfigurationError(
                f"The service at {self.server} is of an older version, which this command cannot work with. Update it, or use its `sluice`."
            )
        if problem is not None:
            _raise(self.server, answer.status_code, problem)


def _raise(server: str, status: int, problem: Mapping[str, Any]) -> NoReturn:
    """Raise the problem as this machine's own error would be."""
    code, detail = problem["code"], str(problem["detail"])
    if status == httpx.codes.UNAUTHORIZED:
        raise ConfigurationError(f"The service at {server} does not take the token in {VARIABLE}. {detail}")
    if code in _CONFIGURATION:
        raise ConfigurationError(detail)
    if code in _OF_THE_HUB:
        raise HubError(detail)
    if status == httpx.codes.INTERNAL_SERVER_ERROR:
        raise SluiceError(f"{detail} It is {problem['request_id']}, at {server}.")
    raise SluiceError(detail)


def _problem(answer: httpx.Response) -> dict[str, Any] | None:
    """The problem document of an answer; None where there is none."""
    if answer.is_success:
        return None
    try:
        found = answer.json()
    except (ValueError, httpx.ResponseNotRead):
        return None
    mine = isinstance(found, dict) and str(found.get("type", "")).startswith(KINDS) and {"code", "detail", "request_id"} <= found.keys()
    return found if mine else None


def _of_tls(error: BaseException | None) -> ssl.SSLError | None:
    """The fault of TLS that an error came of."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error


def _tls_in_words(server: str, error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"The certificate of {server} is not trusted: {error.verify_message}. If its authority is your own, name the file with that one's certificate in "
            "SSL_CERT_FILE; otherwise look whether this is the right address."
        )
    return f"{server} does not speak TLS as https asks for: {error.reason or error}. Is it served there by http:// alone, or on another port?"


def _query(wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if value is not None}


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """Lines that end with a line feed, and with nothing else that may stand in a log."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", errors="replace")


def _events(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Server-sent events: lines `event:` and `data:` up to an empty one; comments begin with a colon."""
    name, data = "message", list[str]()
    for line in lines:
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "event":
            name = value
        elif key == "data":
            data.append(value)
        elif not line:
            if data:
                yield name, "\n".join(data)
            name, data = "message", []


def parsed(data: str) -> Any:
    """The JSON of an event."""
    return json.loads(data)
