"""Finds the base model of an adapter, on the Hub or, for a folder of this machine, in another; and says what both make, told by headers alone."""

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from builders import folder, packed
from builders.adapters import description
from builders.adapters.changes import changes
from builders.adapters.description import Adapter
from builders.adapters.files import renamed
from builders.names import ADAPTER, is_legal
from builders.rebuilt import architectures, layout, origin
from builders.snapshot import Upstream
from builders.sources import FolderSource, Source
from builders.weights import Tensor
from config.errors import UpstreamError
from config.facts import together
from config.settings import REPO_ID
from config.words import Release

VERSION = 2  # raise when outputs change


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A release before anything of it is taken but headers and descriptions; of an adapter the model that it makes of its base."""

    sizes: Mapping[str, int]  # bytes of each file that is to be taken, by path
    tensors: Mapping[str, Tensor]  # by name, as the release will have them
    config: Mapping[str, Any]  # config.json; empty when it is not a JSON object, which the stage that needs it says
    template: bool  # whether there is a chat template


def resolve(source: Source, hub: Source, repo: str, revision: str, *, at: str | None = None) -> Upstream:
    """The release that `revision` of `repo` names now; of an adapter with its base, at the commit `at`, or at what the adapter names, or as it is now; of a
    model in GGUF alone with what its header says of licence and base models, where the card does not.

    Raises UpstreamError when either cannot be used, HubError when the Hub cannot be asked.
    """
    found = source.resolve(repo, revision)
    if found.gguf and not (found.license and found.base_models):
        return origin.completed(found, source.gguf_fields(found.release, found.gguf[0]))
    if not found.adapter:
        return found
    described = _described(source, found.release)
    there, name = _place(source, hub, described, repo)
    try:
        base = there.resolve(name, at or described.revision or folder.PRESENT)
    except UpstreamError as error:
        raise UpstreamError(
            f"{repo} is an adapter, and its base model cannot be had. {error} Or copy the adapter into a folder, write the base model's place into "
            f"`base_model_name_or_path` of its {ADAPTER}, and release the folder."
        ) from error
    if base.adapter:
        raise UpstreamError(f"{repo} is an adapter of {name}, which is an adapter itself. Merge that one first, and name the result as the base in a copy.")
    return _together(found, base, there)


def _described(source: Source, release: Release) -> Adapter:
    with tempfile.TemporaryDirectory(prefix="sluice-adapter-") as into:
        return description.read(source.download(release, ADAPTER, Path(into)), release.repo)


def _place(source: Source, hub: Source, described: Adapter, repo: str) -> tuple[Source, str]:
    """Where the base is, and what it is called there. What a stranger's adapter names is never looked for on this machine."""
    local = folder.base_folder(source.folder, described) if isinstance(source, FolderSource) else None
    if local is not None:
        return FolderSource(folder=local), folder.legal_name(local.name)
    if re.fullmatch(REPO_ID, described.base) is None:
        raise UpstreamError(
            f"{ADAPTER} of {repo} names {described.base[:200]!r} as its base model, which is a place on its author's machine and no repo. Ask the owner for "
            "the repo's name; or copy the adapter into a folder, write the right name or path into it there, and release the folder."
        )
    return hub, described.base


def _together(adapter: Upstream, base: Upstream, there: Source) -> Upstream:
    """The adapter with its base, and with what is to be said of both."""
    return replace(
        together(adapter, base),
        private=adapter.private or base.private,
        base=base,
        base_folder=there.folder if isinstance(there, FolderSource) else None,
    )


def base_source(upstream: Upstream, hub: Source) -> Source:
    """Where the base of an adapter is taken from."""
    return hub if upstream.base_folder is None else FolderSource(folder=upstream.base_folder)


def pin(out: Path, *, base: Release) -> dict[str, Any]:
    """The base that an adapter was first merged with: kept as the output of a stage, so that a run that goes on later takes the same commit."""
    return asdict(base)


def see(source: Source, hub: Source, upstream: Upstream) -> Seen:
    """What can be known of a release from its headers. Raises UpstreamError when it is no whole model, or an adapter that does not fit; HubError."""
    release = upstream.release
    sizes = source.sizes(release)
    if upstream.gguf:
        return _seen_in_gguf(source, upstream, sizes)
    tensors = source.headers(release, sizes)
    if upstream.base is None:
        return Seen(sizes=sizes, tensors=tensors, config=_settings(source, release, "config.json"), template=_has_template(source, release, sizes))
    there, base = base_source(upstream, hub), upstream.base.release
    held = there.sizes(base)
    below, config = there.headers(base, held), _settings(there, base, "config.json")
    if (refusal := packed.refusal(config, below)) is not None:
        raise UpstreamError(
            f"{release.repo} is an adapter whose base {base.repo} {refusal} Copy the adapter into a folder, write that name into `base_model_name_or_path` of "
            f"its {ADAPTER}, and release the folder."
        )
    found = changes(_described(source, release), tensors, below, model_type=str(config.get("model_type", "")), names=(release.repo, base.repo))
    terms = {name.casefold() for name in sizes if is_legal(name)}
    together = {path: sizes.get(path, 0) + held.get(path, 0) for path in (*sizes, *held)}
    together |= {renamed(name): 0 for name in held if is_legal(name) and name.casefold() in terms}  # where both have terms of that name
    template = _has_template(source, release, sizes) or _has_template(there, base, held)
    return Seen(sizes=together, tensors=found.tensors, config=config, template=template)


def _seen_in_gguf(source: Source, upstream: Upstream, sizes: Mapping[str, int]) -> Seen:
    """What the header of a GGUF file tells of the model that is rebuilt from it. Raises UpstreamError when it cannot be."""
    header = source.gguf_header(upstream.release, upstream.gguf)
    config, tensors = architectures.config(header, upstream.gguf[0]), layout.tensors(header, upstream.gguf[0])
    from builders.rebuilt import vocabulary  # it loads transformers, which a service does without

    vocabulary.require_known(header, upstream.gguf[0])
    return Seen(sizes=sizes, tensors=tensors, config=config, template=bool(header.fields.get("tokenizer.chat_template")))


def _has_template(source: Source, release: Release, sizes: Mapping[str, int]) -> bool:
    """Whether a file of the release is a chat template, or tokenizer_config.json holds one."""
    if any(PurePath(path).name.startswith("chat_template.") or path.startswith("additional_chat_templates/") for path in sizes):
        return True
    return "tokenizer_config.json" in sizes and bool(_settings(source, release, "tokenizer_config.json").get("chat_template"))


def _settings(source: Source, release: Release, name: str) -> Mapping[str, Any]:
    """What a JSON file of the release says; nothing when it holds no object. Raises UpstreamError, HubError."""
    with tempfile.TemporaryDirectory(prefix="sluice-config-") as into:
        path = source.download(release, name, Path(into))
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return {}
    return content if isinstance(content, dict) else {}
