"""The watch list as a whole, from the settings and from what was added over the network, and what its entries make of a repo."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from config.settings import Settings
from config.watch import Watched
from service.store import Store, WatchRecord

MAIN = "main"


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What the Hub says of a repo."""

    repo: str  # as the Hub spells it
    sha: str  # commit of the branch that was asked for
    modified: datetime | None  # when its main branch was last committed to, as far as the Hub says
    private: bool
    gated: bool
    tags: frozenset[str]
    downloads: int  # of the last 30 days


def entries(store: Store, settings: Settings) -> tuple[Watched, ...]:
    """The whole watch list: of the settings, then what was added over the network, as far as it can be read."""
    return together(settings, store.watch_entries())


def together(settings: Settings, added: Iterable[WatchRecord]) -> tuple[Watched, ...]:
    """The same of what was added, where that is at hand."""
    return (*settings.watch, *(item.entry for item in added if item.entry is not None))


def following(watch: Iterable[Watched], repo: str) -> tuple[Watched, ...]:
    """The entries that follow a repo of this name."""
    return tuple(entry for entry in watch if entry.follows(repo))


def refusal(entry: Watched, listed: Listed) -> str | None:
    """Why an entry that follows a repo by its name does not take it; None when it does."""
    if listed.private and entry.policy(listed.repo, entry.private) == "skip":
        return "it is private"
    if listed.gated and entry.policy(listed.repo, entry.gated) == "skip":
        return "it is gated"
    tags = {tag.lower() for tag in listed.tags}
    if "gguf" in tags and "safetensors" not in tags and not entry.names_repo(listed.repo):
        return "it is there in GGUF alone, as what quantizers publish is; name it in `repos` to have it released from that"
    if lacking := [tag for tag in entry.tags if tag.lower() not in tags]:
        return f"it lacks the tag {', '.join(lacking)}"
    if listed.downloads < entry.minimum_downloads:
        return f"it has {listed.downloads} downloads, and {entry.minimum_downloads} are asked for"
    stated = sorted(tag.removeprefix("license:") for tag in tags if tag.startswith("license:"))
    if entry.licenses and not {item.lower() for item in entry.licenses} & set(stated):
        return f"its licence is {', '.join(stated) or 'not stated'}, and {', '.join(entry.licenses)} is asked for"
    return None


def cooling(entry: Watched, listed: Listed, now: datetime | None = None) -> float:
    """Seconds until the repo's last commit is as old as the entry asks."""
    if listed.modified is None or entry.cool_down_minutes <= 0:
        return 0.0
    ready = listed.modified + timedelta(minutes=entry.cool_down_minutes)
    return max(0.0, (ready - (now or datetime.now(UTC))).total_seconds())


def asked(recipe_digest: str, namespace: str | None) -> str:
    """What is wanted of a repo, as one digest: when it changes, the repo is looked at again though it did not change."""
    return hashlib.sha256(f"{recipe_digest} {namespace or ''}".encode()).hexdigest()
