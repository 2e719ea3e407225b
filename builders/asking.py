"""Asking the Hub: what the client raises, in words, what arrives, as progress, and whether it is what was listed."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from httpx2 import HTTPError
from huggingface_hub import HfApi
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

from config.digests import file_sha256
from config.errors import HubError, UpstreamError
from config.progress import Tally

RESERVE = 64_000_000  # bytes that a download leaves free


def require_room(out: Path, size: int, needs: str) -> None:
    """Raise UpstreamError when the disk of `out` has no room for `size` bytes; `needs` begins the sentence that says so."""
    free = shutil.disk_usage(out).free
    if size + RESERVE > free:
        raise UpstreamError(
            f"{needs}, and {out} has {free / 1e9:.2f} GB free: the disk is too small. "
            "Free some space or set `home` in the settings to a folder on a larger disk; `--dry-run` says what a whole run needs."
        )


def download(out: Path, *, api: HfApi, repo: str, revision: str, sizes: Mapping[str, int], repo_type: str | None = None) -> None:
    """Download these files into `out`, where they lie under their paths; `sizes` are their bytes. Raises UpstreamError, HubError."""
    arriving = bar(Tally(sum(sizes.values()), "bytes"))
    for path in sizes:
        with in_words(api, repo, revision, path):
            api.hf_hub_download(repo, path, revision=revision, repo_type=repo_type, local_dir=out, tqdm_class=arriving)
    shutil.rmtree(out / ".cache", ignore_errors=True)


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


def bar(tally: Tally) -> type[Any]:
    """A class that the client takes for its progress bar's: LFS and Xet tell an object of it what arrives, whether bars are shown or not."""

    class Bar:
        def __init__(self, *, initial: int = 0, **_: object) -> None:
            tally.add(initial)

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
    """Turn what the client raises into UpstreamError (the repo is at fault) or HubError (the Hub, the network or the token is)."""
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
        raise HubError(f"{path or repo} could not be fetched from {api.endpoint}: {_reason(error)}. Check the connection and run again.") from error
    except EntryNotFoundError as error:
        raise UpstreamError(f"{where} no longer holds {path} at {revision}. Run again; its history may have been rewritten.") from error
    except HfHubHTTPError as error:
        raise _refused(error, api) from error
    except (HTTPError, ConnectionError, TimeoutError) as error:
        raise HubError(f"{api.endpoint} cannot be reached: {_reason(error)}. Check the address and the network, and run again when the Hub is up.") from error
    except OSError as error:
        raise HubError(f"{path or repo} could not be fetched from {api.endpoint}: {_reason(error)}. Check disk and network, and run again.") from error


def misnamed(repo: str) -> UpstreamError:
    """What is wrong with a name that no repo can have."""
    return UpstreamError(f"{repo!r} is not the name of a repo. Give it as owner/name, not as a URL or a path.")


def _refused(error: HfHubHTTPError, api: HfApi) -> HubError:
    status = error.response.status_code
    request = f" (request {error.request_id})" if error.request_id else ""
    if status in {401, 403}:
        return HubError(
            f"{api.endpoint} does not accept the token{request}: status {status}. Make a new one on the Hub's settings page and set SLUICE_HUB_TOKEN."
        )
    return HubError(f"{api.endpoint} answered with status {status}{request}: {error.server_message or 'no reason given'}. Run again later.")


def _reason(error: BaseException) -> str:
    """The innermost cause's first line: the client wraps connection errors in general advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
