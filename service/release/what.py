"""What a person means to release: the name of a repo, the address of its page, or a folder of this machine."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from builders import folder
from config.errors import ConfigurationError
from config.settings import PUBLIC_HUB, REPO_ID

SHORT = ("hf.co", "www.huggingface.co")  # lead to the public Hub
_WITHOUT_SCHEME = re.compile(r"(hf\.co|(www\.)?huggingface\.co|127\.0\.0\.1(:\d+)?|localhost(:\d+)?)/", re.IGNORECASE)
_OTHERS = ("datasets", "spaces", "collections", "papers", "docs", "models")  # pages of the Hub that are no repo of a model


@dataclass(frozen=True, kw_only=True)
class Meant:
    """A release to be looked up."""

    repo: str  # "owner/name"; of a folder the name to publish under
    revision: str  # branch, tag or commit; of a folder what stands for its content now
    folder: str | None = None  # absolute path


def meant(what: str, *, endpoint: str, revision: str | None, name: str | None) -> Meant:
    """What `what` names on the Hub at `endpoint`, or on this machine; `name` is what a folder is to be published as.

    Raises ConfigurationError when it is neither, or another Hub's.
    """
    if "://" in what or _WITHOUT_SCHEME.match(what):
        found = _address(what, endpoint)
        if revision is not None and found.revision not in {folder.PRESENT, revision}:
            raise ConfigurationError(f"{what} is the page of revision {found.revision}, and --revision says {revision}. Leave out one of the two.")
        found = found if revision is None else Meant(repo=found.repo, revision=revision)
    elif re.fullmatch(REPO_ID, what):  # as ever, a folder of that name or not: that is ./owner/name
        found = Meant(repo=what, revision=revision or folder.PRESENT)
    else:
        return _folder(what, revision, name)
    if name is not None:
        hint = f"For the folder of that name write ./{what}." if Path(what).is_dir() else "Leave it out."
        raise ConfigurationError(f"--name is for folders: {found.repo} is a repo on the Hub and published under its own name. {hint}")
    return found


def _folder(what: str, revision: str | None, name: str | None) -> Meant:
    path = Path(what).expanduser()
    if not path.is_dir():
        raise ConfigurationError(_neither(what, path))
    if revision is not None:
        raise ConfigurationError(f"{what} is a folder and has no revisions: what it holds now is released. Leave out --revision.")
    there = path.resolve()
    return Meant(repo=folder.checked_name(name) if name is not None else folder.legal_name(there.name), revision=folder.PRESENT, folder=str(there))


def _neither(what: str, path: Path) -> str:
    if path.suffix == ".gguf" and path.is_file():
        return (
            f"{what} is a GGUF file. Give the folder that it lies in: where it is in 16 bits (BF16, F16, F32) and the only model there, it is released; "
            f"`sluice quantize {what}` makes one smaller file of it."
        )
    if path.exists():
        return f"{what} is a file. Give the folder of a model: config.json, tokenizer and safetensors weights."
    if re.fullmatch(REPO_ID, what.strip("/ ")) and not path.is_absolute():
        return f"There is no folder {what}. For a repo on the Hub write {what.strip('/ ')}."
    return f"{what!r} is neither the name of a repo (owner/name), nor the address of its page, nor a folder that is there. Give one of these."


def _address(what: str, endpoint: str) -> Meant:
    """The repo and revision of a page. Raises ConfigurationError when it is not one of a model on this Hub."""
    ours, given = urlsplit(endpoint), urlsplit(what if "://" in what else f"//{what}")
    try:
        if _host(given) != _host(ours):
            raise ConfigurationError(
                f"{what} is on another Hub than the one that Sluice is set to, {endpoint}. "
                f"Set `hub_endpoint` (SLUICE_HUB_ENDPOINT) to {given.scheme or 'https'}://{_host(given)} to release from there."
            )
    except ValueError as error:  # a port that is no number
        raise ConfigurationError(f"{what} is not an address: {error}. Give it as the browser shows it.") from error
    base = ours.path.strip("/")
    path = given.path.strip("/")
    parts = path.removeprefix(base).strip("/").split("/") if path.startswith(base) else []
    repo, rest = "/".join(parts[:2]), parts[2:]
    if parts[:1] == [] or parts[0] in _OTHERS or not re.fullmatch(REPO_ID, repo):
        raise ConfigurationError(f"{what} is not the page of a model. Give {endpoint}/OWNER/NAME, with /tree/REVISION for another revision than the main one.")
    if not rest:
        return Meant(repo=repo, revision=folder.PRESENT)
    if rest[0] not in {"tree", "commit", "blob", "resolve"} or len(rest) < 2:
        raise ConfigurationError(f"{what} is a page about a model, not the model. Give {endpoint}/{repo}, or {endpoint}/{repo}/tree/REVISION.")
    # a branch may have slashes in its name, which the Hub writes as %2F; behind it stands a path inside the repo
    whole = rest[1:4] if rest[1:3] == ["refs", "pr"] else rest[1:2]
    return Meant(repo=repo, revision=unquote("/".join(whole)))


def _host(address: SplitResult) -> str:
    """Host and port, without what is the same for every address of the scheme. Raises ValueError."""
    host, port = (address.hostname or "").lower(), address.port
    if host in SHORT:
        host = urlsplit(PUBLIC_HUB).hostname or host
    return host if port is None or port == {"http": 80, "https": 443}.get(address.scheme or "https") else f"{host}:{port}"
