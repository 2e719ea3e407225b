"""Fetches what a release needs, and nothing else, from the Hub at one commit; checks every name, size, digest and safetensors header."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
    SafetensorsParsingError,
)
from huggingface_hub.hf_api import RepoFile

from builders.names import CONFIGURATION, INDEX, SINGLE, check_names, is_legal, shards
from builders.weights import read_header, unsafe
from config.digests import file_sha256
from config.errors import HubError, UpstreamError
from config.progress import Tally
from config.settings import REPO_ID
from config.words import Release

VERSION = 1  # raise when outputs change

LARGEST_INDEX = 100_000_000  # bytes; the index of a model with 100,000 tensors has about 10 MB
RESERVE = 64_000_000  # bytes that a download leaves free


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """A release and what the Hub and the repo's card say about it. Every string is a stranger's."""

    release: Release
    private: bool
    gated: bool
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    languages: tuple[str, ...] = ()
    pipeline_tag: str | None = None
    tags: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()


def resolve(api: HfApi, repo: str, revision: str) -> Upstream:
    """The commit that `revision` (branch, tag or commit) of `repo` names now.

    Raises UpstreamError when the repo is unknown, private, gated or misnamed or has no such revision, HubError when the Hub cannot be asked.
    """
    if re.fullmatch(REPO_ID, repo) is None:
        raise _misnamed(repo)
    with _in_words(api, repo, revision):
        try:
            info = api.model_info(repo, revision=revision)
        except (TypeError, AttributeError) as error:  # the client trusts the card's types
            raise UpstreamError(f"{repo} cannot be used: what the Hub says about it cannot be read ({error}). Ask its owner to correct its card.") from error
    if info.sha is None:
        raise HubError(f"{api.endpoint} did not say which commit {revision!r} of {repo} is. Try again later.")
    card = vars(info.card_data) if info.card_data is not None else {}
    return Upstream(
        release=Release(repo=info.id if info.id.lower() == repo.lower() else repo, sha=info.sha),  # as the Hub spells it, to which case is all the same
        private=bool(info.private),
        gated=bool(info.gated),
        license=_text(card.get("license")),
        license_name=_text(card.get("license_name")),
        license_link=_text(card.get("license_link")),
        languages=_texts(card.get("language")),
        pipeline_tag=_text(card.get("pipeline_tag")) or info.pipeline_tag,
        tags=_texts(card.get("tags")),
        base_models=_texts(card.get("base_model")),
    )


def sizes(api: HfApi, release: Release) -> dict[str, int]:
    """Bytes of every file that `fetch` would download, by path. Raises as `fetch` does."""
    return {path: file.size for path, file in _wanted(api, release).items()}


def shapes(api: HfApi, release: Release, paths: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of the release, by name, from the headers alone of the weight files among `paths`. Raises as `fetch` does."""
    found: dict[str, tuple[int, ...]] = {}
    for path in paths:
        if path.endswith(".safetensors"):
            with _in_words(api, release.repo, release.sha, path):
                try:
                    tensors = api.parse_safetensors_file_metadata(release.repo, path, revision=release.sha).tensors
                    found |= {name: tuple(tensor.shape) for name, tensor in tensors.items()}
                except (SafetensorsParsingError, AttributeError, TypeError, ValueError, RecursionError) as error:  # the client trusts the header's types
                    raise unsafe(Path(path), f"its header cannot be read ({error})") from error
    return found


def download(api: HfApi, release: Release, path: str, folder: Path) -> Path:
    """One file of the release in `folder`; where it lies there. Raises as `fetch` does."""
    with _in_words(api, release.repo, release.sha, path):
        return Path(api.hf_hub_download(release.repo, path, revision=release.sha, local_dir=folder))


def fetch(out: Path, *, api: HfApi, release: Release) -> dict[str, Any]:
    """Download the release into `out`: configuration, tokenizer, template, terms, README and safetensors, all from the top of the repo.

    Returns `files`, a list of `{path, bytes, sha256}`, and `total` in bytes. Raises UpstreamError when the repo or a file cannot be used or the disk is too
    small, HubError when the Hub cannot be reached or what arrives is not what it lists.
    """
    wanted = _wanted(api, release)
    total = sum(file.size for file in wanted.values())
    free = shutil.disk_usage(out).free
    if total + RESERVE > free:
        raise UpstreamError(
            f"{release.repo} needs {total / 1e9:.2f} GB to download and {out} has {free / 1e9:.2f} GB free: the disk is too small. "
            "Free some space or set `home` in the settings to a folder on a larger disk; `--dry-run` says what a whole run needs."
        )
    bar = _bar(Tally(total, "bytes"))
    for path in sorted(wanted):
        with _in_words(api, release.repo, release.sha, path):
            api.hf_hub_download(release.repo, path, revision=release.sha, local_dir=out, tqdm_class=bar)
    shutil.rmtree(out / ".cache", ignore_errors=True)
    files, read = [], Tally(total, "bytes")
    for path, file in sorted(wanted.items()):
        files.append(_verified(out / path, file))
        read.add(file.size)
    for path in sorted(wanted):
        if path.endswith(".safetensors"):
            read_header(out / path)
    return {"files": files, "total": total}


def _bar(tally: Tally) -> type[Any]:
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


def _wanted(api: HfApi, release: Release) -> dict[str, RepoFile]:
    """The files to download, by path, after every name of the repo was checked."""
    with _in_words(api, release.repo, release.sha):
        listed = {item.path: item for item in api.list_repo_tree(release.repo, revision=release.sha, recursive=True) if isinstance(item, RepoFile)}
    check_names(listed, release.repo)
    if "config.json" not in listed:
        raise UpstreamError(f"{release.repo} has no config.json, so its architecture is not known. Name a repo that holds a transformers model.")
    weights = _weights(api, release, listed)
    chosen = [path for path in listed if path in CONFIGURATION or path == "README.md" or is_legal(path)]
    return {path: listed[path] for path in (*chosen, *weights)}


def _weights(api: HfApi, release: Release, listed: Mapping[str, RepoFile]) -> tuple[str, ...]:
    """The weight files, and the index when there are several; as transformers does, a single file goes before an index."""
    if SINGLE in listed:
        return (SINGLE,)
    if INDEX in listed:
        return (INDEX, *shards(_weight_map(api, release, listed[INDEX]), listed, release.repo))
    pickled = sorted(path for path in listed if path.endswith((".bin", ".pt", ".pth", ".ckpt")))
    held = f"; it holds {pickled[0]}, which can run code when it is opened and is never used" if pickled else ""
    raise UpstreamError(
        f"{release.repo} has no safetensors weights (neither {SINGLE} nor {INDEX}){held}. Ask its owner for safetensors, or convert and upload them yourself."
    )


def _weight_map(api: HfApi, release: Release, index: RepoFile) -> object:
    if index.size > LARGEST_INDEX:
        raise UpstreamError(f"{INDEX} of {release.repo} has {index.size} bytes, more than any model needs. Do not use this repo.")
    with tempfile.TemporaryDirectory(prefix="sluice-index-") as folder, _in_words(api, release.repo, release.sha, INDEX):
        path = Path(api.hf_hub_download(release.repo, INDEX, revision=release.sha, local_dir=folder))
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise UpstreamError(f"{INDEX} of {release.repo} is not JSON. The upload may be damaged; ask its owner.") from error
    return content.get("weight_map") if isinstance(content, dict) else None


def _verified(path: Path, listed: RepoFile) -> dict[str, Any]:
    """The record of a downloaded file. Raises HubError when it is not what the Hub lists."""
    if path.is_symlink() or not path.is_file():
        raise HubError(f"{path.name} did not arrive as a file. Run again; if it happens again, the Hub's copy is damaged.")
    size, digest = path.stat().st_size, file_sha256(path)
    if size != listed.size:
        raise HubError(f"{path.name} arrived with {size} bytes and the Hub lists {listed.size}. Run again; if it happens again, the Hub's copy is damaged.")
    if listed.lfs is not None and digest != listed.lfs.sha256:
        raise HubError(f"{path.name} arrived with sha256 {digest} and the Hub lists {listed.lfs.sha256}. Run again; if it happens again, do not use this repo.")
    return {"path": path.name, "bytes": size, "sha256": digest}


@contextmanager
def _in_words(api: HfApi, repo: str, revision: str, path: str | None = None) -> Iterator[None]:
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
        raise _misnamed(repo) from error
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


def _misnamed(repo: str) -> UpstreamError:
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


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: object) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    return tuple(item for item in items if isinstance(item, str) and item)
