"""Taking a publication back: its repo becomes private on the Hub, with name and reason on record, and stays so until a person makes it public there.

Later releases are published in it all the same, and say that nobody sees them.
"""

from huggingface_hub import HfApi

from config.errors import PublishConflict, SluiceError
from publishers import target
from publishers.unpublishing import is_private, make_private
from service.runs.steering import Actor
from service.store import PublicationRecord, Store, Unpublished


class UnpublishRefused(SluiceError):
    """Nobody says who takes the publication back, or why."""


def unpublish(store: Store, api: HfApi, publication: int, *, by: str, reason: str, actor: Actor) -> PublicationRecord:
    """Make the publication's repo private. Raises UnknownPublication, UnpublishRefused, PublishConflict when it is a folder, HubError."""
    record = store.publication(publication)
    by, reason = said(by, reason)
    if store.run(record.run).target is not None:
        raise PublishConflict(f"Publication {publication} is the folder {record.repo}, which nobody sees but on this machine. Remove it there.")
    make_private(api, record.repo)
    kept = store.record_unpublished(publication, by=by, reason=reason, source=actor.source, details=actor.details)
    if not is_private(api, record.repo):  # a run that was about to open it did so before it could hear of this: see `publishers.opening.complete`
        make_private(api, record.repo)
    return kept


def taken_back(store: Store, repo: str) -> Unpublished | None:
    """Who took back what was published in a repo the last time, as far as is known; None where nobody did."""
    last = store.last_publication(repo)
    return None if last is None else last.unpublished


def removed(store: Store, api: HfApi, repo: str) -> bool:
    """Whether a repo that was taken back is not there any more: made anew, it stays private as well. Raises HubError."""
    return taken_back(store, repo) is not None and not target.exists(api, repo)


def opened(store: Store, api: HfApi, repo: str) -> Unpublished | None:
    """Who took a repo back that a person has made public since; None where nobody did, or it is private up to now. Raises HubError."""
    found = taken_back(store, repo)
    return None if found is None or is_private(api, repo) else found


def remark(found: Unpublished | None) -> str:
    """That a repo which was published into is seen by nobody; nothing where it is seen."""
    if found is None:
        return ""
    return f"the repo stays private: {found.by} unpublished it on {found.at:%Y-%m-%d} ({found.reason}). Make it public on the Hub when it is to be seen again"


def said(by: str, reason: str) -> tuple[str, str]:
    """Name and reason, each on one line. Raises UnpublishRefused where one is missing."""
    by, reason = " ".join(by.split()), " ".join(reason.split())
    if not by or not reason:
        raise UnpublishRefused("Taking a publication back needs a name and a reason: say who decides this, and why.")
    return by, reason
