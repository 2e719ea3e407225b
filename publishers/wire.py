"""Turn what huggingface_hub raises into one paragraph that a person can act on and that never holds a token."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError

from config.errors import HubError, HubUnavailable
from config.passing import CONFLICT, in_turn, passes, wait_asked, xet_passes, xet_status

_TOKEN = re.compile(r"\bhf_[A-Za-z0-9_]{3,}")
_QUERY = re.compile(r"(https?://[^\s?]+)\?\S+")  # a signed upload address is a key to the object it names
_LENGTH = 300  # characters of what the Hub or the client said; the rest would bury the advice

_ADVICE = {
    401: "It does not accept the token. Set SLUICE_HUB_TOKEN to a valid token with write permission.",
    403: "The token may not do this. Use one with write permission for that namespace.",
    404: "It does not exist, or the token may not see it. Check the name, and that the token belongs to a member of the namespace.",
    409: "Something of that name is already there. Look at it, then run it again.",
    413: "That is too large for this Hub. Build fewer variants, or raise its limits.",
    429: "Those were too many requests. Wait a while, then run it again; what is uploaded is not uploaded twice.",
}
_OF_THE_CLIENT = (HfHubHTTPError, httpx2.HTTPError, httpx2.InvalidURL, LocalTokenNotFoundError, OfflineModeIsEnabled, RuntimeError, ValueError)
_LATER = "That is a fault of the Hub. Run it again later; what is uploaded is not uploaded twice."
_BUSY = "It is at another change of the same repo. Run it again in a while; what is uploaded is not uploaded twice."
_NO_JSON = "A page of something between here and the Hub, as of a proxy, is none. Run it again later; if it stays so, check `hub_endpoint`."
_CORRECT = "Correct what it complains about, then run it again."


def redact(text: str, token: str | None = None) -> str:
    """`text` on one line, without tokens and without the queries of signed addresses."""
    if token and token.strip():
        text = text.replace(token.strip(), "[token]")  # a token that ends in a line break is shown escaped by the client
    text = _QUERY.sub(r"\1?…", _TOKEN.sub("[token]", text))
    return " ".join(text.split())


@contextmanager
def hub_errors(api: HfApi, doing: str) -> Iterator[None]:
    """Raise every failure of the client calls in the block as HubError; `doing` is what was tried, e.g. "publish ns/repo".

    What passes by itself, or with a new token, is HubUnavailable.

    Keep other code out of the block: the client reports malformed answers and broken uploads as plain ValueError and RuntimeError.
    """
    try:
        yield
    except HubUnavailable as error:
        raise HubUnavailable(f"Could not {doing}: {error}", wait=error.wait) from error
    except OSError as error:
        if not isinstance(error, _OF_THE_CLIENT) and xet_passes(error) is None:
            raise
        raise _refusal(error, f"Could not {doing}: {_explain(api, error)}") from _without_secrets(api, error)
    except _OF_THE_CLIENT as error:
        raise _refusal(error, f"Could not {doing}: {_explain(api, error)}") from _without_secrets(api, error)


def _refusal(error: BaseException, message: str) -> HubError:
    """The error of that message: one that passes, or one that does not."""
    if type(error) is RuntimeError and error.__cause__ is not None:
        return _refusal(error.__cause__, message)
    if isinstance(error, HubUnavailable):
        return HubUnavailable(message, wait=error.wait)
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        stale = status == 401 and not isinstance(error, RepositoryNotFoundError)  # the token
        passing = passes(status) or stale or _meets_another(error)
        return HubUnavailable(message, wait=wait_asked(error.response.headers)) if passing else HubError(message)
    passing = isinstance(error, httpx2.TransportError | JSONDecodeError)
    if isinstance(error, OSError) and not isinstance(error, OfflineModeIsEnabled):
        passing = bool(xet_passes(error))
    return HubUnavailable(message) if passing else HubError(message)


def _meets_another(error: HfHubHTTPError) -> bool:
    """Whether the Hub is at another change of the repo: as it says, or as no commit can be in conflict with anything else."""
    status = error.response.status_code
    return in_turn(status, error.server_message) or (status == CONFLICT and "/commit/" in error.response.request.url.path)


def _explain(api: HfApi, error: BaseException) -> str:
    """What went wrong and what to do."""
    if type(error) is RuntimeError and error.__cause__ is not None:  # "Error while uploading …", the reason is its cause
        reason = _explain(api, error.__cause__)
        return f"{_redact(api, error)} {reason[0].upper()}{reason[1:]}"
    if isinstance(error, HubUnavailable):
        return str(error)
    where = f"the Hub at {redact(api.endpoint, _token(api))}"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        said = f" and said: {redact(error.server_message, _token(api))[:_LENGTH].rstrip('.')}" if error.server_message else ""
        request = f" (request {error.request_id})" if error.request_id else ""
        # The Hub answers 401 for a missing or invisible repo too; the client tells the two apart.
        if _meets_another(error):
            return f"{where} answered {status}{said}{request}. {_BUSY}"
        advice = _ADVICE.get(404 if isinstance(error, RepositoryNotFoundError) else status, _LATER if status >= 500 else _CORRECT)
        return f"{where} answered {status}{said}{request}. {advice}"
    if isinstance(error, LocalTokenNotFoundError):
        return "there is no token. Set SLUICE_HUB_TOKEN."
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so the Hub is not asked. Unset it."
    if isinstance(error, OSError) and (told := xet_status(error)) is not None:
        return f"{where} answered {told} ({_redact(api, error)}). {_ADVICE.get(told, _LATER if told >= 500 else _CORRECT)}"
    if isinstance(error, (httpx2.HTTPError, httpx2.InvalidURL, OSError)):
        advice = "Check the network and `hub_endpoint`, then run it again; what is uploaded is not uploaded twice."
        return f"{where} cannot be reached ({type(error).__name__}: {_redact(api, error)}). {advice}"
    if isinstance(error, JSONDecodeError):  # the client reads some answers before it looks at their status (2.4.0: that about a card)
        return f"{where} gave an answer that is not JSON ({_redact(api, error)}). {_NO_JSON}"
    return f"{where} refused or gave an answer that cannot be used: {_redact(api, error).rstrip('.')}. {_CORRECT}"


def _token(api: HfApi) -> str | None:
    return api.token if isinstance(api.token, str) else None


def _redact(api: HfApi, error: BaseException) -> str:
    return redact(str(error), _token(api))[:_LENGTH]


def _without_secrets(api: HfApi, error: BaseException) -> BaseException | None:
    """The error as a cause for the traceback, unless its text or that of its own causes would put a secret there."""
    link: BaseException | None = error
    while link is not None:
        text = " ".join(str(link).split())
        if redact(text, _token(api)) != text:
            return None
        link = link.__cause__ or link.__context__
    return error
