"""Asking the Hub: what the client raises, in words, what arrives, as progress, and whether it is what was listed."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from httpx2 import URL, HTTPError, TransportError
from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import get_session, hf_raise_for_status

from config.digests import file_sha256
from config.errors import HubError, HubUnavailable, UpstreamError
from config.passing import passes, pause, wait_asked, xet_passes
from config.progress import Tally

RESERVE = 64_000_000  # bytes that a download leaves free
PARTS = ".cache"  # in a folder that files are downloaded into: where those lie that are not whole yet
_ADVICE = "Check the address and the network, and run again when the Hub is up."
BREATH = 1.0  # seconds before a download that broke off is gone on with, at most; doubled with each try that brought nothing
FRUITLESS = 5  # such tries in a row
SECONDS = 60.0  # that an answer may take which holds a part of a file
PARTIAL = 206  # status of an answer that holds no more than was asked for


def require_room(out: Path, size: int, needs: str) -> None:
    """Raise UpstreamError when the disk of `out` has no room for `size` bytes; `needs` begins the sentence that says so."""
    free = shutil.disk_usage(out).free
    if size + RESERVE > free:
        raise UpstreamError(
            f"{needs}, and {out} has {free / 1e9:.2f} GB free: the disk is too small. "
            "Free some space or set `home` in the settings to a folder on a larger disk; `--dry-run` says what a whole run needs."
        )


def part(api: HfApi, repo: str, revision: str, path: str, begin: int, count: int) -> bytes:
    """So many bytes of a file from `begin` on, or as many as there are. Raises UpstreamError, HubError."""
    with in_words(api, repo, revision, path):
        url = hf_hub_url(repo, path, revision=revision, endpoint=api.endpoint)
        headers = build_hf_headers(token=api.token, library_name="sluice")
        answer = get_session().get(url, headers={**headers, "range": f"bytes={begin}-{begin + count - 1}"}, timeout=SECONDS)
        hf_raise_for_status(answer)
        return bytes(answer.content[:count]) if answer.status_code == PARTIAL or not begin else bytes(answer.content[begin : begin + count])


def download(
    out: Path,
    *,
    api: HfApi,
    repo: str,
    revision: str,
    sizes: Mapping[str, int],
    repo_type: str | None = None,
    arrived: Callable[[str], None] = lambda path: None,
) -> None:
    """Download these files into `out`, where they lie under their paths; `sizes` are their bytes. Raises UpstreamError, HubError.

    Whatever an earlier download of the same files left in `out` is gone on with, but over Xet, whose client keeps no part of a file. Each file is told by
    `arrived` as soon as it is there; nobody has looked into it yet.
    """
    tally = Tally(sum(sizes.values()), "bytes")
    for path, size in sizes.items():
        with in_words(api, repo, revision, path):
            if constants.HF_HUB_DISABLE_XET:
                url = hf_hub_url(repo, path, revision=revision, repo_type=repo_type, endpoint=api.endpoint)
                _download(api, url, out / path, out / PARTS / path, size=size, tally=tally)
            else:
                api.hf_hub_download(repo, path, revision=revision, repo_type=repo_type, local_dir=out, tqdm_class=bar(tally))
        arrived(path)
    shutil.rmtree(out / PARTS, ignore_errors=True)


def _download(api: HfApi, url: str, file: Path, part: Path, *, size: int, tally: Tally) -> None:
    """Download one file, going on where the `part` of it ends, until several tries in a row bring nothing. Raises what the client raises."""
    if file.is_file() and file.stat().st_size == size:
        tally.add(size)
        return
    for folder in (file.parent, part.parent):
        folder.mkdir(parents=True, exist_ok=True)
    headers = build_hf_headers(token=api.token, library_name="sluice")
    place = api.get_hf_file_metadata(url=url, token=api.token).location
    if (URL(place).scheme, URL(place).netloc) != (URL(url).scheme, URL(url).netloc):
        headers.pop("authorization", None)  # a signed address, which is not to be told our token
    with part.open("ab") as stream:
        if stream.tell() > size:
            stream.truncate(0)
        tally.add(stream.tell())
        fruitless = 0
        while True:
            there = stream.tell()
            try:
                http_get(place, stream, resume_size=there, headers=headers, expected_size=size, tqdm_class=bar(tally, already=there))
                break
            except TransportError:
                fruitless = 0 if stream.tell() > there else fruitless + 1
                if fruitless == FRUITLESS:
                    raise
                time.sleep(pause(fruitless, first=BREATH))
    part.replace(file)


def verified(file: Path, name: str, *, size: int, sha256: str | None) -> str:
    """The digest of a file that arrived. Raises HubError, which calls it `name`, when it is not what the Hub lists; `sha256` is None where it does not say."""
    if file.is_symlink() or not file.is_file():
        raise HubError(f"{name} did not arrive as a file. Run again; if it happens again, the Hub's copy is damaged.")
    found, digest = file.stat().st_size, file_sha256(file)
    if found != size:
        raise HubError(f"{name} arrived with {found} bytes and the Hub lists {size}. Run again; if it happens again, the Hub's copy is damaged.")
    if sha256 not in {None, digest}:
        raise HubError(f"{name} arrived with sha256 {digest} and the Hub lists {sha256}. Run again; if it happens again, do not use this repo.")
    return digest


def bar(tally: Tally, already: int = 0) -> type[Any]:
    """A class that the client takes for its progress bar's: LFS and Xet tell an object of it what arrives, whether bars are shown or not.

    Of what it begins with, so many bytes are in the tally `already`.
    """

    class Bar:
        def __init__(self, *, initial: int = 0, **_: object) -> None:
            tally.add(initial - already)

        def update(self, count: int) -> None:
            tally.add(count)

        def update_transfer(self, count: int) -> None:  # Xet tells it what comes over the network by this, and by `update` what is written
            pass

        def set_postfix_str(self, *_: object, **__: object) -> None:
            pass

        set_transfer_postfix_str = set_postfix_str

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    return Bar


@contextmanager
def in_words(api: HfApi, repo: str, revision: str, path: str | None = None) -> Iterator[None]:
    """Turn what the client raises into UpstreamError (the repo is at fault) or HubError (Hub, network or token are), of what passes HubUnavailable."""
    where = f"{repo} on {api.endpoint}"
    try:
        yield
    except GatedRepoError as error:
        raise UpstreamError(f"{where} is gated. Open its page, accept its terms, and give a token of that account (SLUICE_HUB_TOKEN).") from error
    except RepositoryNotFoundError as error:
        raise UpstreamError(
            f"{where} does not exist, or is private and the token may not see it. Check the name; "
            "for a private repo give a token that can read it (SLUICE_HUB_TOKEN)."
        ) from error
    except RevisionNotFoundError as error:
        raise UpstreamError(f"{where} has no revision {revision!r}. Name a branch, a tag or a commit that is listed on its page.") from error
    except DisabledRepoError as error:
        raise UpstreamError(f"{where} was disabled by the Hub and cannot be read. Choose another repo.") from error
    except HFValidationError as error:
        raise misnamed(repo) from error
    except LocalEntryNotFoundError as error:
        message = f"{path or repo} could not be fetched from {api.endpoint}: {_reason(error)}. Check the connection and run again."
        if isinstance(error.__cause__, HfHubHTTPError):
            raise _refused(error.__cause__, api) from error
        raise (HubUnavailable if isinstance(error.__cause__, HTTPError) else HubError)(message) from error
    except EntryNotFoundError as error:
        raise UpstreamError(f"{where} no longer holds {path} at {revision}. Run again; its history may have been rewritten.") from error
    except HfHubHTTPError as error:
        raise _refused(error, api) from error
    except HTTPError as error:
        raise HubUnavailable(f"{api.endpoint} cannot be reached: {_reason(error)}. {_ADVICE}") from error
    except OSError as error:
        raise _broken(error, api, path or repo) from error


def _broken(error: OSError, api: HfApi, what: str) -> HubError:
    """The error about a connection of Xet's client that broke, or about a file of this machine."""
    if (passing := xet_passes(error)) is not None:
        return (HubUnavailable if passing else HubError)(f"{api.endpoint} cannot be reached: {_reason(error)}. {_ADVICE}")
    return HubError(f"{what} could not be fetched from {api.endpoint}: {_reason(error)}. Check disk and network, and run again.")


def misnamed(repo: str) -> UpstreamError:
    """What is wrong with a name that no repo can have."""
    return UpstreamError(f"{repo!r} is not the name of a repo. Give it as owner/name, not as a URL or a path.")


def _refused(error: HfHubHTTPError, api: HfApi) -> HubError:
    status = error.response.status_code
    request = f" (request {error.request_id})" if error.request_id else ""
    if status in {401, 403}:
        kind = HubUnavailable if status == 401 else HubError  # a new token cures the one; the other is what the token's owner may do
        return kind(f"{api.endpoint} does not accept the token{request}: status {status}. Make a new one on the Hub's settings page and set SLUICE_HUB_TOKEN.")
    message = f"{api.endpoint} answered with status {status}{request}: {error.server_message or 'no reason given'}. Run again later."
    return HubUnavailable(message, wait=wait_asked(error.response.headers)) if passes(status) else HubError(message)


def _reason(error: BaseException) -> str:
    """The innermost cause's first line: the client wraps connection errors in general advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
