"""Where a recipe's data lie on this machine: data sets of the Hub, fetched once and kept by commit, and files of the operator in the form that stages read.

Kept under `home/data`: OWNER--NAME/COMMIT/… with what was fetched and `source.json`, which says what it is, and OWNER--NAME/revisions.json, which says
what branches and tags were when they were fetched. A run asks no Hub for what is there. The folder can be carried to a machine without a network.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from builders import datasets, tables
from builders.datasets import DataFile, Dataset
from config.data import Local, Reference
from config.digests import content_digest
from config.errors import ConfigurationError, HubError, HubUnavailable
from config.recipe import Recipe
from config.settings import Settings
from config.written import Written, read_recipe
from service.execution.workbench import Listener, told

log = logging.getLogger(__name__)

RECORD = "source.json"
REVISIONS = "revisions.json"
STALE = 2 * 86_400  # seconds after which a working folder is nobody's
_COMMIT_LENGTH = 40


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a reference names, as it lies on this machine."""

    repo: str
    commit: str
    path: str  # inside the repo
    license: tuple[str, ...]  # as the data set's card says; none when it says nothing
    files: tuple[DataFile, ...]
    located: Path  # the file or folder that stages read
    task: str | None = None  # of a benchmark of the Hub, that questions are

    @property
    def bytes(self) -> int:
        """Of the files as they were published."""
        return sum(file.bytes for file in self.files)


def recipe_for(settings: Settings, name_or_path: str, api: HfApi, listener: Listener = lambda event: None) -> Recipe:
    """The recipe of that name or path, ready for a run: what it names on the Hub is fetched unless it is there, which `listener` is told.

    Raises ConfigurationError when recipe or data are not usable, UpstreamError when there is no such data set, HubError when it is neither here nor
    to be had.
    """
    return ready(settings, read_recipe(name_or_path), api, listener)


def ready(settings: Settings, written: Written, api: HfApi, listener: Listener = lambda event: None) -> Recipe:
    """The recipe with its data in place. Raises as `recipe_for` does."""
    places = {data: place(settings, api, data, listener) for data in written.named_data(there=True)}  # what else is wrong is told before
    return written.parsed(locate=places.__getitem__)


def pinned(settings: Settings, data: Reference | Local) -> Reference | Local:
    """The data with the commit that a branch or tag was when they were fetched."""
    kept = find(settings, data) if isinstance(data, Reference) else None
    return data if kept is None or isinstance(data, Local) else replace(data, revision=kept.commit)


def place(settings: Settings, api: HfApi, data: Reference | Local, listener: Listener = lambda event: None) -> Path:
    """Where data lie in the form that stages read; put there when they do not. Raises as `recipe_for` does."""
    if isinstance(data, Local):
        return _readable(settings, data)
    if (kept := find(settings, data)) is not None:
        return kept.located
    try:
        return fetch(settings, api, data, listener).located
    except HubError as error:
        message = (
            f"{data} is not on this machine, and it cannot be fetched: {error} `sluice data fetch` prepares a machine that is without a network later, and "
            "its folder `data` under the settings' `home` can be copied; or use a recipe that names no data on the Hub, such as `default`."
        )
        raise (HubUnavailable(message, wait=error.wait) if isinstance(error, HubUnavailable) else HubError(message)) from error


def find(settings: Settings, reference: Reference) -> Kept | None:
    """What is kept of a reference, a branch or tag being what it was when it was fetched; None where it is not kept, or not whole."""
    commit = reference.revision if _is_commit(reference.revision) else _revisions(settings, reference).get(reference.revision)
    return None if commit is None else _read(_folder(settings, reference, commit))


def fetch(settings: Settings, api: HfApi, reference: Reference, listener: Listener = lambda event: None) -> Kept:
    """Ask the Hub what a branch or tag is now, and fetch what a reference names unless that is kept, which `listener` is told.

    Raises UpstreamError, HubError, and ConfigurationError when what was fetched cannot be read.
    """
    if _is_commit(reference.revision) and (there := find(settings, reference)) is not None:
        return there
    log.info("fetch %s", reference, extra={"action": "fetch"})
    with told(listener, f"fetch {reference}"):
        dataset = datasets.resolve(api, reference)
        kept = _read(_folder(settings, reference, dataset.commit)) or _fetched(settings, api, reference, dataset)
    if not _is_commit(reference.revision):
        _remember(settings, reference, dataset.commit)
    return kept


def source_of(settings: Settings, path: Path) -> Kept | None:
    """What a path that stages read was fetched from; None of the operator's own files."""
    root = _root(settings)
    if not path.is_relative_to(root):
        return None
    return next((kept for folder in (path, *path.parents) if folder.is_relative_to(root) and (kept := _read(folder)) is not None), None)


def sources(settings: Settings, recipe: Recipe, digest: Callable[[Path], str]) -> list[dict[str, Any]]:
    """What each text and the questions of a recipe are, as JSON: use, name, sha256, and of what is from the Hub commit, path and licence."""
    return [_described(settings, use, path, digest(path)) for use, path in used(recipe)]


def used(recipe: Recipe) -> list[tuple[str, Path]]:
    """Each text and the questions of a recipe, with what they are used for, in the order of `sources`."""
    evaluation = recipe.evaluation
    named = {
        "calibration.chat": recipe.calibration.chat,
        "calibration.plain": recipe.calibration.plain,
        "evaluation.chat": evaluation.divergence.chat,
        "evaluation.plain": evaluation.divergence.plain,
        "evaluation.mmlu": () if evaluation.mmlu is None else (evaluation.mmlu.data,),
    }
    return [(use, path) for use, paths in named.items() for path in paths]


def _described(settings: Settings, use: str, path: Path, sha256: str) -> dict[str, Any]:
    own = {"use": use, "name": path.name, "sha256": sha256}
    if (kept := source_of(settings, path)) is None:
        return own
    files = [{"path": file.path, "sha256": file.sha256} for file in kept.files]
    there = {"repo": kept.repo, "commit": kept.commit, "path": kept.path, "license": list(kept.license), "files": files}
    benchmark = {} if kept.task is None else {"task": kept.task}  # left out where there is none, so that what was recorded before stays as it is
    return {**own, "name": f"{kept.repo}/{kept.path}", **there, **benchmark}


# ---- the folder -------------------------------------------------------------------------------------------------------------------------------


def _root(settings: Settings) -> Path:
    return settings.folder / "data"


def _home(settings: Settings, reference: Reference) -> Path:
    return _root(settings) / reference.repo.replace("/", "--")


def _folder(settings: Settings, reference: Reference, commit: str) -> Path:
    """One for each path and form: the same file may be read as text here and as conversations there."""
    return _home(settings, reference) / commit / f"{reference.form}-{hashlib.sha256(reference.path.encode()).hexdigest()[:16]}"


def _is_commit(revision: str) -> bool:
    return len(revision) == _COMMIT_LENGTH and set(revision) <= set("0123456789abcdef")


def _revisions(settings: Settings, reference: Reference) -> dict[str, str]:
    try:
        found = json.loads((_home(settings, reference) / REVISIONS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    items = found.items() if isinstance(found, dict) else ()
    return {str(name): commit for name, commit in items if isinstance(commit, str) and _is_commit(commit)}


def _remember(settings: Settings, reference: Reference, commit: str) -> None:
    """Write down what a branch or tag is now; whoever writes at the same time of another one takes nothing away."""
    home = _home(settings, reference)
    with (home / f"{REVISIONS}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _write(home / REVISIONS, json.dumps(_revisions(settings, reference) | {reference.revision: commit}, indent=2, sort_keys=True))


def _read(folder: Path) -> Kept | None:
    """What a folder says that it holds; None when files are missing or have another size, as after half a copy."""
    try:
        found: Mapping[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        files = tuple(DataFile(**file) for file in found["files"])
        damaged = any((folder / "files" / file.path).stat().st_size != file.bytes for file in files)
        if damaged or not (folder / found["located"]).exists():
            return None
        whole = {name: found[name] for name in ("repo", "commit", "path")}
        return Kept(**whole, license=tuple(found["license"]), files=files, located=folder / found["located"], task=found.get("task"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fetched(settings: Settings, api: HfApi, reference: Reference, dataset: Dataset) -> Kept:
    """Fetch and convert into a folder of its own, which is renamed into place when it is whole."""
    listed = datasets.listed(api, dataset, reference)
    with _making(_root(settings)) as working:
        (working / "files").mkdir()
        files = datasets.fetch(working / "files", api=api, dataset=dataset, files=listed)
        task = datasets.task(api, dataset, reference) if reference.form == "questions" else None
        located = _located(working, reference)
        about = {"repo": dataset.repo, "commit": dataset.commit, "path": reference.path, "form": reference.form, "license": list(dataset.license)}
        record = {**about, "task": task, "files": [asdict(file) for file in files], "located": located.relative_to(working).as_posix()}
        _write(working / RECORD, json.dumps(record, indent=2))
        folder = _folder(settings, reference, dataset.commit)
        if folder.exists() and _read(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)  # damaged, or copied by half
        _settle(working, folder)
    if (kept := _read(folder)) is None:
        raise ConfigurationError(f"{folder} does not hold what was just fetched into it. Remove that folder and fetch {reference} again.")
    return kept


def _located(working: Path, reference: Reference) -> Path:
    """The file or folder that stages read, converted where they cannot read what was published."""
    file = working / "files" / reference.path
    if reference.form == "questions":
        # in `all` or in a subject's folder the files lie themselves; what is read is the folder around it
        return file.parent if any(file.glob("test-*.parquet")) else file
    return file if tables.fitting(file, reference.form) else tables.convert(file, reference.form, working)


def _readable(settings: Settings, local: Local) -> Path:
    """The operator's file itself, or a converted copy of one that stages cannot read as it is. Raises ConfigurationError."""
    if not local.path.exists() or tables.fitting(local.path, local.form):
        return local.path
    folder = _root(settings) / "converted" / f"{local.form}-{content_digest(local.path)}"
    if not folder.exists():
        with _making(_root(settings)) as working:
            tables.convert(local.path, local.form, working)
            _settle(working, folder)
    return next(folder.iterdir())


@contextmanager
def _making(root: Path) -> Iterator[Path]:
    """A folder to work in; what is left of it at the end is removed, and what killed processes left behind days ago."""
    working = root / "working" / uuid.uuid4().hex
    working.mkdir(parents=True)
    for other in working.parent.iterdir():
        with suppress(FileNotFoundError):
            if time.time() - other.stat().st_mtime > STALE:
                shutil.rmtree(other, ignore_errors=True)
    try:
        yield working
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _settle(working: Path, folder: Path) -> None:
    """Rename a folder into place; another process may have been first, whose folder is as good."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        working.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def _write(path: Path, text: str) -> None:
    """Replace a small file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with new.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
