"""Fetches what a release needs, and nothing else, from the Hub at one commit; checks every name, size, digest and safetensors header."""

import json
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import SafetensorsParsingError
from huggingface_hub.hf_api import RepoFile

from builders import asking, vectors
from builders.asking import in_words, misnamed
from builders.names import ADAPTER, ADAPTER_WEIGHTS, CONFIGURATION, INDEX, SINGLE, check_names, is_adapter, is_legal, is_lost, is_named_template, shards
from builders.rebuilt import choice
from builders.weights import Tensor, read_header, unsafe
from config.errors import HubError, UpstreamError
from config.facts import LICENSES, Facts
from config.progress import Tally
from config.settings import REPO_ID
from config.sharing import share, take
from config.words import MANIFEST, Release
from engines import vocabulary

VERSION = 3  # raise when outputs change

_PART = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")

LARGEST_INDEX = 100_000_000  # bytes; the index of a model with 100,000 tensors has about 10 MB


@dataclass(frozen=True, kw_only=True)
class Upstream(Facts):
    """A release and what the Hub and the repo's card say about it. Every string is a stranger's."""

    release: Release
    private: bool
    gated: bool
    adapter: bool = False  # no whole model: to be merged into its base
    gguf: tuple[str, ...] = ()  # the GGUF file, or its parts, that a model is rebuilt from which is there in no other form
    over: tuple[str, ...] = ()  # other GGUF files in 16 bits or more that were not taken
    lost: tuple[str, ...] = ()  # files of terms that are not passed on, because of their names
    base: "Upstream | None" = None  # which that is, where it was looked for
    base_folder: Path | None = None  # that the base is taken from; None: the Hub


def resolve(api: HfApi, repo: str, revision: str) -> Upstream:
    """The commit that `revision` (branch, tag or commit) of `repo` names now.

    Raises UpstreamError when the repo is unknown, private, gated or misnamed, has no such revision or holds no language model, HubError when the Hub cannot be
    asked.
    """
    found, listed, card = _told(api, repo, revision)
    if said := vectors.refusal(listed, card, found.release.repo):
        raise UpstreamError(said)
    return replace(found, adapter=is_adapter(listed), lost=lost(listed), **in_gguf(listed, found.release.repo))


def base_models(api: HfApi, repo: str) -> tuple[str, ...]:
    """What a repo's card says that it was made from, whatever the repo holds. Raises as `resolve` does for repos that cannot be looked at."""
    return _told(api, repo, "main")[0].base_models


def _told(api: HfApi, repo: str, revision: str) -> tuple[Upstream, set[str], dict[str, Any]]:
    """What the Hub and the card say of a repo, the names of its files, and all of the card's front matter."""
    if re.fullmatch(REPO_ID, repo) is None:
        raise misnamed(repo)
    with in_words(api, repo, revision):
        try:
            info = api.model_info(repo, revision=revision)
        except (TypeError, AttributeError) as error:  # the client trusts the card's types
            raise UpstreamError(f"{repo} cannot be used: what the Hub says about it cannot be read ({error}). Ask its owner to correct its card.") from error
    if info.sha is None:
        raise HubError(f"{api.endpoint} did not say which commit {revision!r} of {repo} is. Try again later.")
    card = vars(info.card_data) if info.card_data is not None else {}
    spelt = info.id if info.id.lower() == repo.lower() else repo  # as the Hub spells it, to which case is all the same
    found = described(Release(repo=spelt, sha=info.sha), card, private=bool(info.private), gated=bool(info.gated))
    return replace(found, pipeline_tag=found.pipeline_tag or info.pipeline_tag), {file.rfilename for file in info.siblings or ()}, card


def described(release: Release, card: Mapping[str, Any], *, private: bool = False, gated: bool = False) -> Upstream:
    """A release with what the front matter of its card says, as far as it is of the right types."""
    return Upstream(release=release, private=private, gated=gated, **vars(facts(card, known=not release.local)))


def lost(listed: Iterable[str]) -> tuple[str, ...]:
    """Files of terms among those listed that cannot be passed on."""
    return tuple(sorted(filter(is_lost, listed)))


def in_gguf(listed: Collection[str], where: str) -> dict[str, Any]:
    """What an Upstream says of a model that is there as GGUF alone. Raises UpstreamError when it cannot be rebuilt from that, as far as names tell."""
    if not choice.is_rebuilt(listed):
        return {}
    if MANIFEST in listed:
        raise UpstreamError(
            f"{where} holds what Sluice published, in GGUF alone. Its {MANIFEST} names the upstream that it was made from: release that, or copy the file in "
            "16 bits into a folder without the manifest."
        )
    taken = choice.chosen(listed, where)
    return {"gguf": taken, "over": choice.passed_over(listed, taken)}


def facts(card: Mapping[str, Any], *, known: bool) -> Facts:
    """What the front matter of a card says, as far as it is of the right types; `known` when the Hub that it lies on took its licence."""
    license, license_name = _licence(card.get("license"), known=known)
    return Facts(
        license=license,
        license_name=license_name or _text(card.get("license_name")),
        license_link=_text(card.get("license_link")),
        languages=_texts("no" if language is False else language for language in _items(card.get("language"))),  # YAML 1.1 reads Norwegian as a boolean
        pipeline_tag=_text(card.get("pipeline_tag")),
        tags=_texts(_items(card.get("tags"))),
        base_models=_texts(_items(card.get("base_model"))),
        datasets=_texts(_items(card.get("datasets"))),
    )


def contents(api: HfApi, release: Release) -> dict[str, str]:
    """Git's id of every file that a release may consist of, by path; its README, which only describes it, is none of them. Raises UpstreamError, HubError."""
    with in_words(api, release.repo, release.sha):
        listed = {item.path: item for item in api.list_repo_tree(release.repo, revision=release.sha, recursive=True) if isinstance(item, RepoFile)}
    if choice.is_rebuilt(listed):
        chosen = {path for path in listed if is_legal(path) or path in choice.chosen(listed, release.repo)}
    else:
        own = CONFIGURATION | {INDEX, ADAPTER}
        named = (path for path in listed if is_named_template(path))
        chosen = {*named, *(path for path in listed if path in own or is_legal(path) or (path.endswith(".safetensors") and "/" not in path))}
    return {path: listed[path].blob_id for path in chosen}


def sizes(api: HfApi, release: Release) -> dict[str, int]:
    """Bytes of every file that `fetch` would download, by path. Raises as `fetch` does."""
    return {path: file.size for path, file in _wanted(api, release).items()}


def headers(api: HfApi, release: Release, paths: Iterable[str]) -> dict[str, Tensor]:
    """Every tensor of the release, by name, from the headers alone of the weight files among `paths`. Raises as `fetch` does."""
    found: dict[str, Tensor] = {}
    for path in paths:
        if path.endswith(".safetensors"):
            with in_words(api, release.repo, release.sha, path):
                try:
                    tensors = api.parse_safetensors_file_metadata(release.repo, path, revision=release.sha).tensors
                    found |= {name: _tensor(name, tensor, path) for name, tensor in tensors.items()}
                except (SafetensorsParsingError, AttributeError, TypeError, ValueError, RecursionError) as error:  # the client trusts the header's types
                    raise unsafe(Path(path), f"its header cannot be read ({error})") from error
    return found


def _tensor(name: str, info: Any, path: str) -> Tensor:
    """A tensor as the client describes it."""
    begin, end = info.data_offsets
    return Tensor(name=name, dtype=str(info.dtype), shape=tuple(info.shape), bytes=end - begin, file=path)


def download(api: HfApi, release: Release, path: str, folder: Path) -> Path:
    """One file of the release in `folder`; where it lies there. Raises as `fetch` does."""
    with in_words(api, release.repo, release.sha, path):
        return Path(api.hf_hub_download(release.repo, path, revision=release.sha, local_dir=folder))


def fetch(out: Path, *, api: HfApi, release: Release, blobs: Path | None = None) -> dict[str, Any]:
    """Download the release into `out`: configuration, tokenizer, template, terms, README and safetensors, all from the top of the repo.

    What lies in the folder `blobs` under the sha256 that the Hub lists is neither downloaded nor copied, but linked. What arrives is put there file by file:
    if the download breaks off, that of another commit need not fetch it again.

    Returns `files`, a list of `{path, bytes, sha256}`, and `total` in bytes. Raises UpstreamError when the repo or a file cannot be used or the disk is too
    small, HubError when the Hub cannot be reached or what arrives is not what it lists.
    """
    wanted = _wanted(api, release)
    total = sum(file.size for file in wanted.values())
    for path in wanted:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
    there = {path: file.lfs.sha256 for path, file in wanted.items() if blobs and file.lfs and take(out / path, file.lfs.sha256, blobs)}
    lacking = {path: wanted[path].size for path in sorted(wanted) if path not in there}
    broken_off = (path for path in out.rglob("*") if path.is_file() and path.relative_to(out).as_posix() not in there)  # of a download
    begun = sum(path.stat().st_size for path in broken_off)
    asking.require_room(out, sum(lacking.values()) - begun, f"{release.repo} needs {sum(lacking.values()) / 1e9:.2f} GB to download")

    def arrived(path: str) -> None:
        if blobs and (file := wanted[path].lfs):
            share(out / path, file.sha256, blobs)

    asking.download(out, api=api, repo=release.repo, revision=release.sha, sizes=lacking, arrived=arrived)
    files, read = [], Tally(total, "bytes")
    for path, file in sorted(wanted.items()):
        digest = there.get(path) or asking.verified(out / path, path, size=file.size, sha256=None if file.lfs is None else file.lfs.sha256)
        files.append({"path": path, "bytes": file.size, "sha256": digest})
        read.add(file.size)
    for path in sorted(wanted):
        if path.endswith(".safetensors"):
            read_header(out / path)
    return {"files": files, "total": total}


def _wanted(api: HfApi, release: Release) -> dict[str, RepoFile]:
    """The files to download, by path, after each of their names was checked: no other file of the repo can do harm."""
    with in_words(api, release.repo, release.sha):
        listed = {item.path: item for item in api.list_repo_tree(release.repo, revision=release.sha, recursive=True) if isinstance(item, RepoFile)}
    return {path: listed[path] for path in choose(listed, release.repo, lambda: _weight_map(api, release, listed[INDEX]))}


def choose(listed: Collection[str], repo: str, weight_map: Callable[[], object]) -> tuple[str, ...]:
    """Which of the listed files a release consists of; `weight_map` reads what the index says. Raises UpstreamError when they are no whole model."""
    if is_adapter(listed):
        weights, own = _adapter_weights(listed, repo), CONFIGURATION - {"config.json"}  # the architecture is the base model's
    elif choice.is_rebuilt(listed):
        weights, own = choice.chosen(listed, repo), frozenset()
    else:
        if "config.json" not in listed:
            raise UpstreamError(f"{repo} has no config.json, so its architecture is not known. Name one that holds a transformers model.")
        weights, own = _weights(listed, repo, weight_map), CONFIGURATION.union(filter(is_named_template, listed))
        if said := vocabulary.lacking(listed, repo):
            raise UpstreamError(said)
    chosen = (*(path for path in listed if path in own or path == "README.md" or is_legal(path)), *weights)
    check_names(chosen, repo)
    return chosen


def _adapter_weights(listed: Collection[str], repo: str) -> tuple[str, ...]:
    """The weight file of an adapter and what describes it."""
    if ADAPTER_WEIGHTS not in listed:
        pickled = next((path for path in sorted(listed) if path.startswith("adapter_model.")), None)
        held = f"; it holds {pickled}, which can run code when it is opened and is never used" if pickled else ""
        raise UpstreamError(f"{repo} has {ADAPTER} and no {ADAPTER_WEIGHTS}{held}. Ask its owner for safetensors, or save the adapter so yourself.")
    return (ADAPTER, ADAPTER_WEIGHTS)


def _weights(listed: Collection[str], repo: str, weight_map: Callable[[], object]) -> tuple[str, ...]:
    """The weight files, and the index when there are several; as transformers does, a single file goes before an index."""
    if SINGLE in listed:
        return (SINGLE,)
    if INDEX in listed:
        return (INDEX, *shards(weight_map(), listed, repo))
    if parts := sorted(path for path in listed if _PART.fullmatch(path)):
        raise UpstreamError(
            f"{repo} holds {len(parts)} shards, among them {parts[0]}, and no {INDEX}, which says what each of them holds. The upload may be unfinished; ask "
            "its owner for the index."
        )
    if own := sorted(path for path in listed if path.endswith(".safetensors") and "adapter" not in path):
        raise UpstreamError(
            f"{repo} has neither {SINGLE} nor {INDEX}; it holds {own[0]}, which is another form than transformers'. Ask its owner for that one, or convert and "
            "upload it yourself."
        )
    pickled = sorted(path for path in listed if path.endswith((".bin", ".pt", ".pth", ".ckpt")))
    held = f"; it holds {pickled[0]}, which can run code when it is opened and is never used" if pickled else ""
    raise UpstreamError(
        f"{repo} has no safetensors weights (neither {SINGLE} nor {INDEX}){held}. Ask its owner for safetensors, or convert and upload them yourself."
    )


def _weight_map(api: HfApi, release: Release, index: RepoFile) -> object:
    if index.size > LARGEST_INDEX:
        raise UpstreamError(f"{INDEX} of {release.repo} has {index.size} bytes, more than any model needs. Do not use this repo.")
    with tempfile.TemporaryDirectory(prefix="sluice-index-") as folder, in_words(api, release.repo, release.sha, INDEX):
        path = Path(api.hf_hub_download(release.repo, INDEX, revision=release.sha, local_dir=folder))
        return weight_map_in(path, release.repo)


def weight_map_in(index: Path, repo: str) -> object:
    """What stands under `weight_map` in an index. Raises UpstreamError when it is not JSON."""
    try:
        content = json.loads(index.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UpstreamError(f"{INDEX} of {repo} is not JSON. The upload may be damaged; ask its owner.") from error
    return content.get("weight_map") if isinstance(content, dict) else None


def _licence(stated: object, *, known: bool) -> tuple[str | None, str | None]:
    """The licence, and its name where it has to be given: several of them are none that the Hub knows, and neither is what only a folder's card says."""
    several = _texts(_items(stated))
    if len(several) > 1:
        return "other", " and ".join(several)
    if several and not known and several[0].lower() not in LICENSES:
        return "other", several[0]
    return (several[0] if several else None), None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _texts(items: Iterable[object]) -> tuple[str, ...]:
    return tuple(item for item in items if isinstance(item, str) and item)
