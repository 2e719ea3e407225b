"""A poll: lists each watched owner by one call and leaves hints of the repos that are not as they were at the last look."""

import random
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

import structlog

from config.errors import HubUnavailable, SluiceError, in_words
from config.settings import Settings
from config.watch import Watched
from service.daemon.listing import Listings
from service.hubclient import patient, within
from service.logs import redact
from service.pulse import pulse
from service.release.datasets import recipe_for
from service.release.watchlist import MAIN, Listed, asked, cooling, entries, refusal
from service.runs.again import ATTEMPTS
from service.store import LookKey, Store

FORGOTTEN = timedelta(days=30)  # after which nobody will ask again for what another recipe asked for
AT_ONCE = 4  # calls to the Hub
PATIENCE = 10.0  # seconds that one call waits for a fault of the moment to pass
LONGEST = 600.0  # seconds that a poll may take, where `poll_minutes` are less

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Polled:
    """What a poll came to."""

    owners: int
    repos: int  # that were listed
    calls: int  # to the Hub
    hints: int
    seconds: float


def poll(store: Store, settings: Settings, listings: Listings) -> Polled:
    """List every watched owner and leave a hint for each repo that is to be looked at. An owner that cannot be listed is told, and does not stop the others.

    A look that waits for a fault of the moment to pass is not had any sooner for that. When it lasts too long the Hub is asked no more:
    owners whose turn has not come by then are told, and may be the first of the next poll.
    """
    began, before = time.monotonic(), listings.calls
    longest = max(LONGEST, settings.poll_minutes * 60)

    def over() -> SluiceError:
        return HubUnavailable(f"The poll took longer than {longest:.0f} seconds, so the Hub is asked no more in it. The next one begins with others.")

    def listed(item: tuple[str, str | None]) -> list[Listed] | str:
        with within(began + longest - time.monotonic(), over):
            return _listed(listings, *item)

    watch = entries(store, settings)
    wanted = _shuffled(_wanted(watch))
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="poll") as pool:
        found = dict(zip(wanted, pool.map(listed, wanted.items()), strict=True))
    store.record_listings({owner: said if isinstance(said, str) else len(said) for owner, said in found.items()})
    there = {owner: said for owner, said in found.items() if not isinstance(said, str)}
    with within(began + longest - time.monotonic(), over):
        changed = _changed(store, settings, listings, watch, there)
    store.put_hints(dict.fromkeys(changed, "poll"))
    repos, calls, seconds = sum(map(len, there.values())), listings.calls - before, time.monotonic() - began
    told = Polled(owners=len(wanted), repos=repos, calls=calls, hints=len(changed), seconds=round(seconds, 3))
    log.info("polled", **vars(told))
    return told


def _shuffled(wanted: Mapping[str, str | None]) -> dict[str, str | None]:
    """In an order of chance: where the time is too short for all, it is not always too short for the same."""
    return dict(random.sample(list(wanted.items()), len(wanted)))


def _wanted(watch: Iterable[Watched]) -> dict[str, str | None]:
    """The owners to list, in lower case; of one of whom nothing but a single repo is followed, that repo."""
    named: dict[str, set[str]] = {}
    whole: set[str] = set()
    for entry in watch:
        whole |= {owner.lower() for owner in entry.owners}
        for repo in entry.named:
            named.setdefault(repo.partition("/")[0].lower(), set()).add(repo)
    single = {owner: next(iter(repos)) for owner, repos in named.items() if owner not in whole and len({repo.lower() for repo in repos}) == 1}
    return {owner: single.get(owner) for owner in sorted(whole | named.keys())}


def _listed(listings: Listings, owner: str, repo: str | None) -> list[Listed] | str:
    """The owner's repos, or why they cannot be listed."""
    try:
        with patient(PATIENCE):
            return listings.of_owner(owner) if repo is None else [listings.of_repo(repo)]
    except SluiceError as error:
        log.warning("owner not listed", owner=owner, error=str(error))
        return redact(str(error))
    except Exception as error:  # what one Hub answers for one owner must not stop the others
        log.exception("owner not listed", owner=owner)
        return redact(in_words(error))
    finally:
        pulse.beat("poll", owner)


def _changed(store: Store, settings: Settings, listings: Listings, watch: Collection[Watched], listed: Mapping[str, list[Listed]]) -> set[str]:
    """The repos that some entry has to look at: changed, or asked for otherwise, since the last look, or with a run that failed and may be tried again.

    That is the entry's own run: what another recipe failed at, or this one before it was corrected, no look would try again.
    """
    looks, failed, ours = store.looks(), store.failed_releases(ATTEMPTS, namespace=settings.namespace), store.published_repos()
    waiting = {hint.repo: hint.created for hint in store.hints() if hint.attempts}
    found: set[str] = set()
    sound = _sound(settings, listings, watch)
    if len(sound) == len(set(watch)):  # what a broken recipe asks for is not known
        store.forget_looks(asked={asked(digest, settings.namespace) for digest in sound.values()}, keep=FORGOTTEN)
    for entry, digest in sound.items():
        found |= _missing(entry, listed) - waiting.keys()
        for item in (item for owner in entry.concerns for item in listed.get(owner, ())):
            if not entry.follows(item.repo) or (item.repo.lower() in ours and not entry.names_repo(item.repo)):
                continue
            if refusal(entry, item) is not None or cooling(entry, item) > 0:
                continue
            sha = item.sha if entry.revision == MAIN else _branch(listings, item.repo, entry.revision)
            last = looks.get(LookKey(repo=item.repo, revision=entry.revision, asked=asked(digest, settings.namespace)))
            if item.repo in waiting and (last is None or last.at < waiting[item.repo]):
                continue
            if sha is None or last is None or last.sha != sha or (item.repo, sha, digest) in failed:
                found.add(item.repo)
    return found


def _missing(entry: Watched, listed: Mapping[str, list[Listed]]) -> set[str]:
    """The repos that are followed by name and that their owner, who was listed, does not have: the look says what is wrong."""
    there = {item.repo.lower() for owner in entry.concerns for item in listed.get(owner, ())}
    return {repo for repo in entry.named if repo.partition("/")[0].lower() in listed and repo.lower() not in there and entry.follows(repo)}


def _sound(settings: Settings, listings: Listings, watch: Iterable[Watched]) -> Mapping[Watched, str]:
    """The digest of each entry's recipe; without those whose recipe cannot be used, of which health and `sluice status` tell."""
    digests: dict[str, str] = {}
    for recipe in {entry.recipe for entry in watch}:
        try:
            digests[recipe] = recipe_for(settings, recipe, listings.api).digest()
        except SluiceError as error:
            log.warning("recipe not usable", recipe=recipe, error=str(error))
    return {entry: digests[entry.recipe] for entry in watch if entry.recipe in digests}


def _branch(listings: Listings, repo: str, revision: str) -> str | None:
    """The commit of another branch than main; None where the look shall say what is wrong."""
    pulse.beat("poll", repo)
    try:
        return listings.of_repo(repo, revision).sha
    except SluiceError:
        return None
