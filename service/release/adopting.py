"""Adopting a repo that somebody else's tool filled: whose publication is to come there, what would become of its files, and the record of who agreed."""

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from huggingface_hub import HfApi

from builders import snapshot
from config.data import as_written
from config.errors import ConfigurationError, UpstreamError
from config.recipe import Recipe
from config.settings import REPO_ID, Settings
from config.words import Release, Variant
from config.written import load_recipe
from publishers import adoption, target
from publishers.account import owner, publishing_namespace
from publishers.adoption import Fated
from publishers.manifest import Adoption
from publishers.naming import CARD, same_repo
from publishers.target import Head
from service.release.kinds import LLAMA_CPP, by_repo, kind_of
from service.release.paths import may_publish
from service.release.route import Route
from service.release.what import Meant, meant
from service.store import Store

PATHS = 1000  # that the audit trail names


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Which repo is to be adopted, and for what."""

    repo: str
    upstream: str | None = None  # owner/name, the address of its page, or a folder of this machine; found out when absent
    name: str | None = None  # that a folder is published under, where it is not its own
    recipe: str | None = None  # that of the watch list when absent, else the default one
    remove: tuple[str, ...] = ()  # patterns of files that are to go


@dataclass(frozen=True, kw_only=True)
class Source:
    """Whose publication is to come into the repo."""

    upstream: Meant
    recipe: str
    found: str  # how it is known, in words


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What an adoption would mean, of the repo as it was at one commit."""

    repo: str
    source: Source
    origin: str  # what manifests call it
    head: Head
    files: tuple[Fated, ...]
    remarks: tuple[str, ...]
    planned: Callable[[str], bool]  # whether a path may be published there

    @property
    def empty(self) -> bool:
        """Whether there is nothing to adopt: all that the repo holds is ours, or the Hub's own."""
        return not self.files

    @property
    def agreed(self) -> bool:
        """Whether a person agreed to just this before, of files that are as they were."""
        before, now = self.head.adoption, self.terms("")
        return before is not None and (before.kept, before.replaceable, before.removable) == (now.kept, now.replaceable, now.removable)

    def terms(self, by: str) -> Adoption:
        """What is written down when it is agreed to."""
        return adoption.agreement(self.head, self.files, self.planned, by=by)

    def as_json(self) -> dict[str, Any]:
        """The proposal as a JSON document."""
        listed = [{"path": item.path, "bytes": item.bytes, "fate": item.fate} for item in self.files]
        source = {"upstream": self.origin, "recipe": self.source.recipe, "found": self.source.found}
        return {"repo": self.repo, **source, "commit": self.head.commit, "files": listed, "remarks": list(self.remarks)}


def propose(store: Store, settings: Settings, api: HfApi, wish: Wish) -> Proposal:
    """What would be kept, replaced and removed; nothing is written.

    Raises ConfigurationError when it is not known whose publication is to come, or it would not come there, PublishConflict when the repo holds another
    upstream's or is public and must not be, UpstreamError, HubError.
    """
    if re.fullmatch(REPO_ID, wish.repo) is None:
        raise ConfigurationError(f"{wish.repo!r} is not the name of a repo. Give it as owner/name, not as a URL or a path.")
    namespace = publishing_namespace(api, wish.repo.partition("/")[0])
    if not target.exists(api, wish.repo):
        raise ConfigurationError(f"{wish.repo} does not exist, or the token may not see it: there is nothing to adopt. A run makes the repos that it needs.")
    source = _source(settings, api, wish)
    recipe, route = load_recipe(source.recipe, data=False, locate=as_written), Route(api=api, folder=source.upstream.folder)
    upstream = route.resolve(source.upstream.repo, source.upstream.revision)
    release = upstream.release
    repo, variants = _destination(wish.repo, namespace, recipe, release)
    last = store.last_publication(repo)
    head = target.read_head(api, repo, previously=last.revision if last else None)
    if head.upstream is not None:
        target.check_ours(api, repo, head, upstream=release.origin)
    target.check_visibility(repo, head, private=settings.private or upstream.private)
    planned = may_publish(variants, release.name, route.source.sizes(release))
    files = adoption.fates(head, planned, wish.remove) if target.filled(api, repo, head) else ()
    remarks = tuple(_remarks(head, files, variants))
    return Proposal(repo=repo, source=source, origin=release.origin, head=head, files=files, remarks=remarks, planned=planned)


def _source(settings: Settings, api: HfApi, wish: Wish) -> Source:
    """What is to be published there: as it was said, as the watch list says, or as the repo's own card does."""
    if wish.upstream is None and wish.name is not None:
        raise ConfigurationError(f"--name {wish.name} says what a folder is published as, and no folder is named. Give it by --upstream ./FOLDER.")
    said = None if wish.upstream is None else meant(wish.upstream, endpoint=settings.hub_endpoint, revision=None, name=wish.name)
    watched = [(repo, item) for item in settings.watch for repo in item.named if _watched(repo, item.recipe, wish.repo, said)]
    if len(watched) == 1:
        ((repo, item),) = watched
        return Source(upstream=Meant(repo=repo, revision=item.revision), recipe=wish.recipe or item.recipe, found="the watch list")
    recipe = wish.recipe or "default"
    if said is not None:
        return Source(upstream=said, recipe=recipe, found="--upstream")
    with suppress(UpstreamError):  # a card that cannot be read says nothing
        named = snapshot.base_models(api, wish.repo)
        if len(named) == 1 and re.fullmatch(REPO_ID, named[0]):
            return Source(upstream=Meant(repo=named[0], revision="main"), recipe=recipe, found=f"`base_model` in the card of {wish.repo}")
    raise ConfigurationError(f"It is not known which upstream's publication is to come into {wish.repo}. Name it by --upstream OWNER/NAME, or ./FOLDER.")


def _watched(repo: str, recipe: str, wanted: str, said: Meant | None) -> bool:
    """Whether an entry of the watch list publishes into the wanted repo, and is not another one than was named."""
    if said is not None and not same_repo(repo, said.repo):
        return False
    namespace, name = wanted.partition("/")[0], repo.partition("/")[2]
    with suppress(ConfigurationError):  # a recipe that cannot be read is told by whoever runs it
        listed = load_recipe(recipe, data=False, locate=as_written).variants.listed()
        return any(same_repo(found, wanted) for found in by_repo(listed, namespace, name))
    return False


def _destination(wanted: str, namespace: str, recipe: Recipe, release: Release) -> tuple[str, tuple[Variant, ...]]:
    """The repo under the name that a run publishes to, and the variants that come there."""
    if same_repo(wanted, release.repo):
        raise ConfigurationError(f"{wanted} is the upstream itself, and nothing is published over it. `sluice run {wanted} --fixes-as-pr` offers fixes to it.")
    repos = by_repo(recipe.variants.listed(), namespace, release.name)
    for repo, variants in repos.items():
        if same_repo(repo, wanted):
            return repo, variants
    raise ConfigurationError(
        f"The recipe {recipe.name} publishes {release.origin} in {', '.join(repos)}, not in {wanted}. "
        f"Name another {'folder by --upstream, another name by --name' if release.local else 'upstream by --upstream'} or another recipe by --recipe."
    )


def _remarks(head: Head, files: Collection[Fated], variants: Collection[Variant]) -> Iterator[str]:
    """What a person should know before agreeing."""
    if any(item.path == CARD for item in files):
        yield f"{CARD} gives way to the model card. Its present text stays in the repo's history, at commit {head.commit}."
    kept = [item.path for item in files if item.fate == "kept"]
    tags = [variant.tag for variant in variants if kind_of(variant).engine is LLAMA_CPP]
    for path in kept:
        if tag := next((tag for tag in tags if path.endswith(".gguf") and re.search(rf"[-_.]{re.escape(tag)}[-.]", path, re.IGNORECASE)), None):
            yield f"{path} stays, and llama.cpp and Ollama may take it for our {tag}. `--remove '{path}'` removes it."
    if len(tags) < len(variants) and (others := [path for path in kept if path.endswith((".safetensors", ".bin"))]):
        yield f"{', '.join(others[: target.LISTED])} {'stay' if len(others) > 1 else 'stays'} beside our weights, and a program may load them instead."


def adopt(store: Store, api: HfApi, proposal: Proposal) -> str | None:
    """Write down on the Hub and in the audit trail that a person agreed; the commit, None when the repo is no longer as it was shown.

    Raises HubError. What is agreed to happens at the repo's next publication; the manifest in the repo tells any service so, whichever database it has.
    """
    by = owner(api)
    commit = adoption.adopt(api, proposal.repo, proposal.head, proposal.terms(by), upstream=proposal.origin)
    if commit is not None:
        fates = {fate: [item.path for item in proposal.files if item.fate == fate][:PATHS] for fate in ("removed", "replaced", "kept")}
        details = {"by": by, "upstream": proposal.origin, "shown": proposal.head.commit, "commit": commit, **fates}
        store.audit("command", f"repo/{proposal.repo}", "adopted", details)
    return commit
