"""Data that a recipe names: a data set on the Hub, or a file of the operator that may have to be brought into the form that stages read."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, unquote

from pydantic import BeforeValidator, ValidationInfo

from config.settings import REPO_ID

SCHEME = "hub://"
WRITTEN = "hub://datasets/OWNER/NAME@REVISION/PATH"

Form = Literal["chat", "plain", "questions"]
"""What the data are: conversations, plain text, multiple-choice questions."""

_REFERENCE = re.compile(r"hub://datasets/(?P<repo>[^@]+)@(?P<revision>[^/]+)/(?P<path>.+)")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,254}")  # of a branch, a tag or a commit
DEEPEST = 10  # path components


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A file, or a folder of questions, in a data set on the Hub."""

    repo: str  # "owner/name"
    revision: str  # branch, tag or commit
    path: str  # inside the repo
    form: Form

    @classmethod
    def parse(cls, written: str, form: Form) -> Self:
        """The reference that `hub://datasets/OWNER/NAME@REVISION/PATH` is; slashes in a revision are written %2F. Raises ValueError."""
        found = _REFERENCE.fullmatch(written)
        if found is None:
            raise ValueError(f"{written!r} is not of the form {WRITTEN}, with a branch, a tag or a commit as REVISION")
        repo, revision, path = found["repo"], unquote(found["revision"]), found["path"].rstrip("/")
        if re.fullmatch(REPO_ID, repo) is None:
            raise ValueError(f"{written!r} names the data set {repo!r}, which is not OWNER/NAME")
        if _REVISION.fullmatch(revision) is None or ".." in revision or "//" in revision:
            raise ValueError(f"{written!r} names the revision {revision!r}, which is not a branch, a tag or a commit")
        parts = path.split("/")
        if len(parts) > DEEPEST or any(part in {"", ".", ".."} for part in parts) or "\\" in path or not path.isprintable():
            raise ValueError(f"{written!r} names the path {path!r}, which is not a plain path inside a repo")
        return cls(repo=repo, revision=revision, path=path, form=form)

    def at(self, revision: str) -> str:
        """How the same file is written at another revision."""
        return f"hub://datasets/{self.repo}@{quote(revision, safe='')}/{self.path}"

    def __str__(self) -> str:
        return self.at(self.revision)


@dataclass(frozen=True, kw_only=True)
class Local:
    """A file or folder of the operator."""

    path: Path
    form: Form


Locate = Callable[[Reference | Local], Path]
"""Where data lie in the form that stages read. Raises ValueError in the words of a recipe's error."""


def as_written(data: Reference | Local) -> Path:
    """The simplest `Locate`, for what needs no data but a file's name: of a data set on the Hub a path at which nothing lies."""
    return data.path if isinstance(data, Local) else Path(str(data))


def on_hub(path: Path) -> bool:
    """Whether this is such a path at which nothing lies."""
    return path.parts[:1] == (SCHEME.rstrip("/"),)


def reference_at(path: Path) -> str:
    """How a recipe writes the reference that such a path stands for."""
    return f"{SCHEME}{Path(*path.parts[1:])}"


def referring(value: Any) -> Any:
    """The same JSON value, with data on the Hub written as a recipe refers to them."""
    if isinstance(value, dict):
        return {key: referring(item) for key, item in value.items()}
    if isinstance(value, list):
        return [referring(item) for item in value]
    return reference_at(Path(value)) if isinstance(value, str) and on_hub(Path(value)) else value


def local_only(data: Reference | Local) -> Path:
    """The `Locate` of whoever asks no Hub: what a recipe names there is an error."""
    if isinstance(data, Local):
        return data.path
    raise ValueError(f"{data} is on the Hub, and nothing is fetched here. Fetch it with `sluice data fetch`, or name a local path")


def _located(value: Any, info: ValidationInfo) -> Any:
    """The path at which a recipe's data lie; those on the Hub, and those of the operator that are in another form, where `locate` has put them."""
    context = info.context or {}
    locate: Locate = context.get("locate", local_only)
    form = FORMS[info.field_name or ""]
    if isinstance(value, str) and value.startswith(SCHEME):
        return locate(Reference.parse(value, form))
    if not isinstance(value, str | Path) or on_hub(Path(value)):
        return value
    resolved: Path = (context.get("folder", Path.cwd()) / Path(value).expanduser()).resolve()
    if context.get("data", True) and not resolved.exists():
        raise ValueError(f"{resolved} does not exist; the recipe names it, so put the data there or change the path")
    return locate(Local(path=resolved, form=form))


FORMS: Mapping[str, Form] = {"chat": "chat", "plain": "plain", "data": "questions"}  # by the fields that hold paths

DataPath = Annotated[Path, BeforeValidator(_located)]
"""A path in a recipe, of a field named in `FORMS`; validated with the context `folder`, `data` and `locate`, see `config.written.load_recipe`."""
