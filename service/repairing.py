"""Repairs a model alone, a folder or a repo of the Hub, without building anything of it: what `sluice fix` does.

Rules look at configuration, tokenizer and chat template, and of the weights at the headers, and at output matrix and embeddings where a model that has
but one of them stores both, so that nothing else is read or fetched before it is to be written.
"""

import difflib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import SafetensorsParsingError

from builders import folder as folders
from builders import hollow, snapshot, ties
from builders.adapters import merge
from builders.asking import in_words, part, require_room
from builders.fixes import BINARY, read_files
from builders.fixes.edits import dict_at
from builders.names import ADAPTER, CONFIGURATION, INDEX, is_adapter, is_named_template
from builders.rebuilt import rebuild
from builders.rebuilt.choice import is_rebuilt
from builders.snapshot import Upstream
from builders.weights import read_header, unsafe, weight_files
from builders.writing import write_without
from config.errors import ConfigurationError, UnsupportedModel
from config.progress import Tally
from config.rules import SystemPrompt
from config.settings import Settings
from config.words import Release
from service.execution.kept import StageStore
from service.execution.workbench import Listener, Workbench, told
from service.hubclient import connect
from service.release import ruled, taking
from service.release.route import Route
from service.release.what import meant

WEIGHTS = ".safetensors"
SUFFIX = "-fixed"  # of the folder that a repaired model is written to when nobody names another
SHOWN = 2_000_000  # bytes of a file up to which a difference is shown line by line
_LEFT_OUT = frozenset({".git", ".cache"})  # what tools keep beside a model


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model to be repaired."""

    name: str  # as people call it
    repo: str  # "owner/name", by which a family may know it
    folder: Path | None = None  # on this machine
    api: HfApi | None = None  # of the Hub where it lies, with
    release: Release | None = None  # which commit
    upstream: Upstream | None = None  # of what is repaired as the model that is made of it: an adapter, with its base; GGUF alone


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """What the rules made of a model's files."""

    source: Source
    family: str | None
    patches: list[dict[str, Any]]  # each a Patch
    unrepaired: list[str]  # sentences
    before: Path  # folder with the files that rules read
    after: Path  # the same, repaired

    @property
    def lighter(self) -> dict[str, list[str]]:
        """Names of the tensors that are left out, by their weight file."""
        found: dict[str, list[str]] = {}
        for patch in self.patches:
            if patch["file"].endswith(WEIGHTS):
                found.setdefault(patch["file"], []).append(patch["key"])
        return found

    @property
    def removed(self) -> list[str]:
        """Names of the files that are left out."""
        return [patch["file"] for patch in self.patches if not patch["key"] and patch["after"] is None]

    @property
    def changed(self) -> list[str]:
        """Names of the files beside the weights that are other than before, or new."""
        names = sorted(path.name for path in self.after.iterdir() if path.suffix != WEIGHTS)
        return [name for name in names if not (self.before / name).is_file() or (self.before / name).read_bytes() != (self.after / name).read_bytes()]


def source_of(settings: Settings, model: str, revision: str | None) -> Source:
    """What a person means: a folder that is there, or a repo. Raises ConfigurationError, UpstreamError, HubError."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ConfigurationError(f"{model} is a folder and has no revisions. Leave out --revision.")
        there = folder.resolve()
        listed = folders.listing(there)
        if not is_adapter(listed) and not is_rebuilt(listed):
            return Source(name=model, repo=f"local/{there.name}", folder=there)
        upstream = Route(api=connect(settings), folder=str(there)).resolve(folders.legal_name(there.name), folders.PRESENT)
        return Source(name=model, repo=f"local/{there.name}", folder=there, upstream=upstream)
    named, api = meant(model, endpoint=settings.hub_endpoint, revision=revision, name=None), connect(settings)
    upstream = Route(api=api).resolve(named.repo, named.revision)
    release = upstream.release
    return Source(name=release.repo, repo=release.repo, api=api, release=release, upstream=upstream if upstream.adapter or upstream.gguf else None)


@contextmanager
def repaired(settings: Settings, source: Source, listener: Listener, system_prompt: SystemPrompt = "keep") -> Iterator[Repaired]:
    """The model's files as the rules leave them, in folders that are gone after the block. Raises UpstreamError, HubError, ConfigurationError, StageError."""
    with ruled.places() as (before, work):
        if source.upstream is not None:
            with told(listener, f"fetch what rules read of {source.name}{' and its base model' if source.upstream.adapter else ''}"):
                (_rebuilt if source.upstream.gguf else _together)(settings, source.upstream, source.folder, before)
        elif source.folder is not None:
            ruled.taken(source.folder, before)
        else:
            with told(listener, f"fetch what rules read of {source.name}"):
                _fetched(*_remote(source), before)
                _filled(*_remote(source), before)
        choices = ruled.Choices(system_prompt=system_prompt, matrices=source.upstream is None)
        result = ruled.repaired(settings, before, work, source.repo, choices)
        with suppress(UnsupportedModel):  # llama.cpp may run it
            ruled.require_all(settings, before, work / "files")
        yield Repaired(
            source=source,
            family=result["family"],
            patches=result["patches"],
            unrepaired=result["unrepaired"],
            before=before,
            after=work / "files",
        )


def _together(settings: Settings, upstream: Upstream, folder: Path | None, into: Path) -> None:
    """The same of the model that an adapter makes with its base."""
    if upstream.base is None:
        raise ValueError(f"{upstream.release.repo} has no base")
    api = connect(settings)
    with tempfile.TemporaryDirectory(prefix="sluice-merge-") as made:
        adapter, base = Path(made) / "adapter", Path(made) / "base"
        for part, there, release in ((adapter, folder, upstream.release), (base, upstream.base_folder, upstream.base.release)):
            part.mkdir()
            if there is not None:
                ruled.taken(there, part)
            else:
                _fetched(api, release, part)
        merge.merge(into, adapter=adapter, base=base, repo=upstream.release.repo, below=upstream.base.release.repo, headers=True)


def _rebuilt(settings: Settings, upstream: Upstream, folder: Path | None, into: Path) -> None:
    """The same of the model that is rebuilt from a GGUF file, by its header."""
    source = Route(api=connect(settings), folder=None if folder is None else str(folder)).source
    header = source.gguf_header(upstream.release, upstream.gguf)
    with tempfile.TemporaryDirectory(prefix="sluice-rebuild-") as made:
        for path in source.sizes(upstream.release):
            if path not in upstream.gguf:
                source.download(upstream.release, path, Path(made))
        rebuild.describe_all(into, Path(made), header, upstream.gguf[0])


def _fetched(api: HfApi, release: Release, into: Path) -> None:
    """The same of a repo."""
    for path in snapshot.sizes(api, release):
        if path in CONFIGURATION | {INDEX, ADAPTER} or is_named_template(path):
            snapshot.download(api, release, path, into)
        elif path.endswith(WEIGHTS):
            with in_words(api, release.repo, release.sha, path):
                try:
                    hollow.of_tensors(api.parse_safetensors_file_metadata(release.repo, path, revision=release.sha).tensors, into / path)
                except (SafetensorsParsingError, AttributeError, TypeError, ValueError, RecursionError) as error:  # the client trusts the header's types
                    raise unsafe(Path(path), f"its header cannot be read ({error})") from error
    shutil.rmtree(into / ".cache", ignore_errors=True)


def _filled(api: HfApi, release: Release, into: Path) -> None:
    """The values of output matrix and embeddings where a model that has but one of them stores both: only they tell a copy from a matrix of its own."""
    tensors = {tensor.name: tensor for path in weight_files(into) for tensor in read_header(path)}
    found = ties.pair(dict_at(read_files(into), "config.json", ()), tensors)
    if found is None or found[0].shape != found[1].shape:
        return
    sizes, total = snapshot.sizes(api, release), sum(tensor.bytes for tensor in found)
    require_room(into, total, f"{found[0].name} and {found[1].name} of {release.repo} have {total / 1e9:.2f} GB, which are compared")
    tally = Tally(total, "bytes")
    for tensor in found:

        def read(behind: int, count: int, path: str = tensor.file) -> bytes:
            data = part(api, release.repo, release.sha, path, sizes[path] - behind, count)
            tally.add(len(data))
            return data

        hollow.fill(into / tensor.file, tensor.name, read)


def _remote(source: Source) -> tuple[HfApi, Release]:
    if source.api is None or source.release is None:
        raise ValueError(f"{source.name} is not on the Hub")
    return source.api, source.release


def difference(found: Repaired) -> str:
    """The changed files as a unified diff, which `patch -p1` takes; of what is binary or too large only that it differs."""
    parts = []
    for name in found.changed:
        old, new = found.before / name, found.after / name
        if name in BINARY or new.stat().st_size > SHOWN:
            parts.append(f"Files a/{name} and b/{name} differ\n" if old.is_file() else f"Only in b: {name}\n")
            continue
        there = old.read_text(encoding="utf-8") if old.is_file() else ""
        lines = difflib.unified_diff(
            there.splitlines(keepends=True),
            new.read_text(encoding="utf-8").splitlines(keepends=True),
            f"a/{name}" if old.is_file() else "/dev/null",
            f"b/{name}",
        )
        parts += [line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines]
    parts += [f"Only in a: {name}\n" for name in found.removed]
    parts += [f"Files a/{name} and b/{name} differ: without {', '.join(left)}\n" for name, left in found.lighter.items()]
    return "".join(parts)


def target_of(source: Source, out: Path | None) -> Path:
    """Where the repaired model is to be: `out`, else a folder beside the model's, or for a repo in the working folder. Raises ConfigurationError."""
    if source.upstream is not None and out is not None and in_place(source, out.expanduser().absolute()):
        held = "an adapter, which is merged into its base model" if source.upstream.adapter else "a GGUF file, from which the model is rebuilt,"
        raise ConfigurationError(f"{out} holds {held} and stays as it is. Name another place by -o.")
    usual = source.folder.with_name(source.folder.name + SUFFIX) if source.folder is not None else Path.cwd() / f"{source.repo.rpartition('/')[2]}{SUFFIX}"
    target = (out or usual).expanduser().absolute()
    if in_place(source, target):
        return target
    if source.folder is not None and source.folder in target.resolve().parents:
        raise ConfigurationError(f"{target} is inside of the model's own folder, which stays as it is. Name another place by -o.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigurationError(f"{target} is there already. Remove it, or name another place by -o.")
    if not target.parent.is_dir():
        raise ConfigurationError(f"{target.parent} is no folder. Make it, or name another place by -o.")
    return target


def in_place(source: Source, target: Path) -> bool:
    """Whether the target is the model's own folder, which its owner then wants to be changed."""
    return source.folder is not None and target.resolve() == source.folder


def write(settings: Settings, found: Repaired, target: Path, listener: Listener) -> None:
    """Write the whole repaired model to `target`, or nothing; in the model's own folder, the changed files in the place of the old ones.

    Raises ConfigurationError when that cannot be written, UpstreamError, HubError.
    """
    source = found.source
    try:
        if in_place(source, target):
            _replaced(found, target)
            return
        unfinished = target.with_name(f".{target.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            with told(listener, f"write {target.name}"):
                if source.upstream is None:
                    _whole(source, unfinished, frozenset(found.changed))
                else:
                    route = Route(api=connect(settings), folder=None if source.folder is None else str(source.folder))
                    merged = taking.taken(Workbench(settings=settings, stages=StageStore(settings.folder), listener=listener), route, source.upstream)
                    _copied(source.name, [file.path for file in merged.files], merged.folder / "files", unfinished)
                _replaced(found, unfinished)
            if target.is_dir():
                target.rmdir()
            unfinished.rename(target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise ConfigurationError(f"{target} cannot be written: {error.strerror}. Name another place by -o, or free some space.") from error


def _replaced(found: Repaired, folder: Path) -> None:
    """Put the changed files in place, each whole or not at all; a link to an old one gives way to the file itself."""
    for name, left in found.lighter.items():
        unfinished = folder / f".{name}.unfinished"
        if write_without(unfinished, folder / name, left):
            unfinished.replace(folder / name)
        else:
            (folder / name).unlink()
    for name in found.removed:
        (folder / name).unlink()
    for name in found.changed:
        unfinished = folder / f".{name}.unfinished"
        shutil.copyfile(found.after / name, unfinished)
        unfinished.replace(folder / name)


def _whole(source: Source, into: Path, changed: frozenset[str]) -> None:
    """Everything of the model but the changed files, byte for byte."""
    if source.folder is None:
        api, release = _remote(source)
        snapshot.fetch(into, api=api, release=release)
        return
    paths = [str(path.relative_to(source.folder)) for path in _below(source.folder)]
    _copied(source.name, [path for path in paths if path not in changed], source.folder, into)


def _copied(name: str, paths: Sequence[str], folder: Path, into: Path) -> None:
    """Copy these files of a folder."""
    total = sum((folder / path).stat().st_size for path in paths)
    require_room(into, total, f"{name} has {total / 1e9:.2f} GB, which are copied")
    tally = Tally(total, "bytes")
    for path in paths:
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        folders.copied((folder / path).resolve(), into / path, tally.add)


def _below(folder: Path) -> list[Path]:
    """Every file in a folder and its folders, without what tools keep there."""
    found = []
    for root, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if name not in _LEFT_OUT)
        found += [path for name in sorted(names) if (path := Path(root) / name).is_file()]
    return found


def document(found: Repaired, target: Path | None) -> Mapping[str, Any]:
    """What was found and done, as JSON; `target` where something was written."""
    return {
        "model": found.source.name,
        "commit": None if found.source.release is None else found.source.release.sha,
        "family": found.family,
        "patches": found.patches,
        "unrepaired": found.unrepaired,
        "files": sorted([*found.changed, *found.lighter, *found.removed]),
        "out": None if target is None else str(target),
    }
