"""From a hint to a queued run: looks at each watched repo that may have changed, and again later when the look failed."""

from collections.abc import Collection
from dataclasses import replace

import structlog

from config.errors import ConfigurationError, HubUnavailable, SluiceError, in_words
from config.passing import DAY, pause
from config.settings import Settings
from config.watch import Watched
from service.daemon.listing import Listings
from service.hubclient import within
from service.logs import redact
from service.pulse import pulse
from service.release.checks.watch import fault
from service.release.datasets import recipe_for
from service.release.intake import ReleaseRequest, queue_release
from service.release.watchlist import asked, cooling, entries, following, refusal
from service.runs.again import ATTEMPTS
from service.store import HintRecord, LookKey, RunFilter, RunRecord, Store

FIRST_DELAY = 30.0  # seconds from a failed look to the next, at most; doubles each time
LONGEST_DELAY = 3600.0  # seconds
LONGEST_REFUSAL = DAY  # where the Hub answers, but what it answers cannot be released: polls find another commit before that
LOOK_SECONDS = 540.0  # that a look may take, with everything that it fetches and checks
RUN_SECONDS = 60.0  # between two looks at whether a run has ended after which another one is asked for

log = structlog.get_logger(__name__)


class TooSoon(SluiceError):
    """The repo was committed to a moment ago, and the watch list asks to wait; or a run is at work that is to be carried out again."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


def take_hints(store: Store, settings: Settings, listings: Listings) -> None:
    """Look at every repo that a due hint names. A look that fails is had again later; one entry's failure does not keep the others from theirs.

    Looks may take hours together: before each it is asked anew what comes next and who is watched.
    """
    while (hint := store.next_hint()) is not None:
        _take(store, settings, listings, hint)


def _take(store: Store, settings: Settings, listings: Listings, hint: HintRecord) -> None:
    """Look for each entry that follows the hint's repo. What it asks to be rebuilt is so once for each, however often it is looked at for others."""
    followed = following(entries(store, settings), hint.repo)
    failed = {entry: failure for entry in followed if (failure := _look(store, settings, listings, entry, _asked_of(entry, hint))) is not None}
    if hint.rebuild:
        hint = replace(hint, rebuilt=tuple(sorted({*hint.rebuilt, *(set(map(_name, followed)) - set(map(_name, failed)))})))
    if not failed:
        store.settle_hint(hint)
        return
    failures = failed.values()
    soon = [failure.seconds for failure in failures if isinstance(failure, TooSoon)]
    delay = min([DAY, *soon, *([_delay(hint, failures)] if len(soon) < len(failures) else [])])  # a longer cool-down is looked at on the way
    words = " ".join(dict.fromkeys(redact(in_words(failure)) for failure in failures))
    log.warning("look failed", repo=hint.repo, error=words, next_in_seconds=delay)
    store.defer_hint(hint, error=words, seconds=delay)


def _asked_of(entry: Watched, hint: HintRecord) -> HintRecord:
    """What the hint still asks of one entry."""
    return replace(hint, rebuild=hint.rebuild and _name(entry) not in hint.rebuilt)


def _name(entry: Watched) -> str:
    """What decides which run of a repo it makes."""
    return f"{entry.revision} {entry.recipe}"


def _delay(hint: HintRecord, failures: Collection[Exception]) -> float:
    passing = [failure for failure in failures if not _refuses(failure) and not isinstance(failure, TooSoon)]
    asked = max((failure.wait or 0.0 for failure in passing if isinstance(failure, HubUnavailable)), default=0.0)
    return pause(hint.attempts, first=FIRST_DELAY, longest=LONGEST_DELAY if passing else LONGEST_REFUSAL, asked=asked)


def _begun_before(store: Store, hint: HintRecord, wanted: RunFilter) -> RunRecord | None:
    """A run at work, or left by who was at it, that was queued before the rebuild was asked for: one that was queued since is what was asked for."""
    begun = (*store.runs(state="running", wanted=wanted), *store.runs(state="interrupted", wanted=wanted))
    return next((run for run in begun if run.queued is None or run.queued < hint.created), None)


def _refuses(failure: Exception) -> bool:
    """Whether the look would come to the same again as long as neither the repo nor anything here changes."""
    return isinstance(failure, SluiceError) and not isinstance(failure, HubUnavailable | TooSoon)


def _look(store: Store, settings: Settings, listings: Listings, entry: Watched, hint: HintRecord) -> Exception | None:
    """Queue what the entry asks for of the repo, if that is due; why it failed, None when all is done."""
    pulse.beat("intake", "look")  # several entries may follow a repo, and each look may take nearly as long as intake may be silent
    if (wrong := fault(entry.recipe)) is not None:
        return ConfigurationError(wrong)
    try:
        with within(LOOK_SECONDS, lambda: HubUnavailable(f"The look at {hint.repo} took longer than {LOOK_SECONDS:.0f} seconds.")):
            return _queued(store, settings, listings, entry, hint)
    except Exception as error:  # whatever it is, the other entries and repos go on
        if not isinstance(error, SluiceError):
            log.exception("look failed", repo=hint.repo)
        return error


def _queued(store: Store, settings: Settings, listings: Listings, entry: Watched, hint: HintRecord) -> TooSoon | None:
    """As `_look`, but whatever fails is raised."""
    listed = listings.of_repo(hint.repo, entry.revision)
    if (reason := refusal(entry, listed)) is not None:
        log.info("repo passed over", repo=hint.repo, reason=reason)
        return None
    if (wait := cooling(entry, listed)) > 0 and not hint.rebuild:
        age = f"its last commit is less than {entry.cool_down_minutes:g} minutes old, as the watch list asks (`cool_down_minutes`)"
        return TooSoon(f"{hint.repo} is left alone for now: {age}.", wait)
    if hint.rebuild and (at_work := _begun_before(store, hint, RunFilter(repo=listed.repo, recipe=entry.recipe))) is not None:
        return TooSoon(f"{hint.repo} is released again when run {at_work.id}, which is at work, has ended.", RUN_SECONDS)
    trigger = "rebuild" if hint.rebuild else hint.source  # that of the wish, also where a poll has found the repo since
    wanted = ReleaseRequest(repo=hint.repo, revision=entry.revision, recipe=entry.recipe, trigger=trigger, changed_only=not hint.rebuild, followed=True)

    def looked(digest: str) -> None:
        store.record_look(LookKey(repo=listed.repo, revision=entry.revision, asked=asked(digest, settings.namespace)), listed.sha)

    try:
        run, queued = queue_release(store, settings, listings.api, wanted, again=hint.rebuild, attempts=None if hint.rebuild else ATTEMPTS)
    except SluiceError as error:
        if _refuses(error):
            looked(recipe_for(settings, entry.recipe, listings.api).digest())
        raise
    looked(run.recipe_digest)
    if queued:
        moved = {} if run.rollback is None else {"rollback": run.rollback.comment}
        log.info("run queued", run=run.id, repo=run.release.repo, sha=run.release.sha, trigger=trigger, **moved)
    return None
