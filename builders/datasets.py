"""Fetches what a recipe names in a data set on the Hub, at one commit; checks names, sizes and digests, and says under which licence the data set is."""

import json
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile, RepoFolder

from builders.asking import download, in_words, require_room, verified
from builders.names import check_names
from config.data import Reference
from config.errors import HubError, UpstreamError

VERSION = 1  # raise when outputs change

LARGEST = 2_000_000_000  # bytes of what one reference names; texts and questions for measuring have a few MB
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .+-]{0,63}")
BENCHMARK = "eval.yaml"  # by which a data set says that it is a benchmark of the Hub, and which of its questions are which task
BENCHMARK_BYTES = 2**18  # a larger one was written for something else
_TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9%._/-]{0,99}")
_QUESTIONS = re.compile(r"(?:.*/)?(?:(?:dev|test)/[^/]+_(?:dev|test)\.csv|(?:dev|test)-[^/]+\.parquet)")  # what a folder of questions needs


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set at one commit, and the licences that its card names."""

    repo: str
    commit: str
    license: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One file of a data set."""

    path: str  # inside the repo
    bytes: int
    sha256: str | None  # None where only the listing was read, and it does not say


def resolve(api: HfApi, reference: Reference) -> Dataset:
    """The commit that a reference's revision is now. Raises UpstreamError when there is none, HubError when the Hub cannot be asked."""
    with in_words(api, reference.repo, reference.revision):
        try:
            info = api.dataset_info(reference.repo, revision=reference.revision)
        except (TypeError, AttributeError) as error:  # the client trusts the card's types
            raise UpstreamError(f"The data set {reference.repo} cannot be used: what the Hub says about it cannot be read ({error}).") from error
    if info.sha is None or re.fullmatch(r"[0-9a-f]{40}", info.sha) is None:
        raise HubError(f"{api.endpoint} did not say which commit {reference.revision!r} of the data set {reference.repo} is. Try again later.")
    stated = vars(info.card_data).get("license") if info.card_data is not None else None
    licences = stated if isinstance(stated, list) else [stated]
    return Dataset(
        repo=reference.repo, commit=info.sha, license=tuple(item for item in licences if isinstance(item, str) and _LICENCE.fullmatch(item) is not None)
    )


def listed(api: HfApi, dataset: Dataset, reference: Reference) -> tuple[DataFile, ...]:
    """The files that a reference names, with their sizes: one, or those of a folder that questions are read from. Raises UpstreamError, HubError."""
    with in_words(api, dataset.repo, dataset.commit, reference.path):
        there = api.get_paths_info(dataset.repo, [reference.path], revision=dataset.commit, repo_type="dataset")
        folder = bool(there) and isinstance(there[0], RepoFolder)
        if folder and reference.form == "questions":
            there = list(api.list_repo_tree(dataset.repo, reference.path, recursive=True, revision=dataset.commit, repo_type="dataset"))
            there = [item for item in there if _QUESTIONS.fullmatch(item.path)]
    if folder != (reference.form == "questions") and there:
        wanted = "questions are read from a folder" if reference.form == "questions" else "text is read from a file"
        raise UpstreamError(f"{reference} is a {'folder' if folder else 'file'}, and {wanted}. Correct the path in the recipe.")
    files = [item for item in there if isinstance(item, RepoFile)]
    if not files:
        held = "no questions (dev-*.parquet and test-*.parquet, or CSV files in dev and test)" if folder else "nothing"
        raise UpstreamError(f"The data set {dataset.repo} at {dataset.commit[:12]} holds {held} at {reference.path}. Look at its page, and correct the recipe.")
    check_names([file.path for file in files], dataset.repo)
    if (size := sum(file.size for file in files)) > LARGEST:
        raise UpstreamError(f"{reference} has {size / 1e9:.1f} GB; at most {LARGEST / 1e9:.0f} GB are fetched as data of a recipe. Name a smaller part of it.")
    return tuple(DataFile(path=file.path, bytes=file.size, sha256=file.lfs.sha256 if file.lfs is not None else None) for file in files)


def fetch(out: Path, *, api: HfApi, dataset: Dataset, files: Iterable[DataFile]) -> tuple[DataFile, ...]:
    """Download these files into `out`, where they lie under their paths. Raises UpstreamError, HubError when what arrives is not what the Hub lists."""
    files = tuple(files)
    sizes = {file.path: file.bytes for file in files}
    total = sum(sizes.values())
    require_room(out, total, f"The data set {dataset.repo} needs {total / 1e6:.0f} MB")
    download(out, api=api, repo=dataset.repo, revision=dataset.commit, sizes=sizes, repo_type="dataset")
    return tuple(
        replace(file, sha256=verified(out / file.path, f"{file.path} of the data set {dataset.repo}", size=file.bytes, sha256=file.sha256)) for file in files
    )


def task(api: HfApi, dataset: Dataset, reference: Reference) -> str | None:
    """The task of a benchmark that the test questions of a folder are, by the data set's own `eval.yaml`; None where that names none.

    The folder is the configuration, as in cais/mmlu. Raises UpstreamError, HubError.
    """
    with in_words(api, dataset.repo, dataset.commit, BENCHMARK):
        there = api.get_paths_info(dataset.repo, [BENCHMARK], revision=dataset.commit, repo_type="dataset")
    sizes = {item.path: item.size for item in there if isinstance(item, RepoFile) and item.size <= BENCHMARK_BYTES}
    if not sizes:
        return None
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        download(Path(folder), api=api, repo=dataset.repo, revision=dataset.commit, sizes=sizes, repo_type="dataset")
        try:
            said = yaml.safe_load((Path(folder) / BENCHMARK).read_bytes())
        except (yaml.YAMLError, ValueError, RecursionError):
            return None  # a stranger's, which the Hub cannot read either
    return _task_of(said, reference.path.rpartition("/")[2])


def _task_of(said: Any, configuration: str) -> str | None:
    tasks = said.get("tasks") if isinstance(said, dict) else None
    for item in tasks if isinstance(tasks, list) else ():
        if isinstance(item, dict) and item.get("config") == configuration and item.get("split", "test") == "test":
            name = item.get("id")
            return name if isinstance(name, str) and _TASK.fullmatch(name) else None
    return None


def record(out: Path, *, sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Write data.json, which says of each text and of the questions what they are: use, name, sha256, and of what is from the Hub commit, path and licence."""
    (out / "data.json").write_text(json.dumps(list(sources), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return {"file": "data.json", "sources": list(sources)}
