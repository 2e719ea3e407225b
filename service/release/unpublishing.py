"""Taking a publication back: its repo becomes private on the Hub, with name and reason on record."""

from huggingface_hub import HfApi

from config.errors import PublishConflict, SluiceError
from publishers.unpublishing import make_private
from service.runs.steering import Actor
from service.store import PublicationRecord, Store


class UnpublishRefused(SluiceError):
    """Nobody says who takes the publication back, or why."""


def unpublish(store: Store, api: HfApi, publication: int, *, by: str, reason: str, actor: Actor) -> PublicationRecord:
    """Make the publication's repo private. Raises UnknownPublication, UnpublishRefused, PublishConflict when it is a folder, HubError."""
    record = store.publication(publication)
    by, reason = said(by, reason)
    if store.run(record.run).target is not None:
        raise PublishConflict(f"Publication {publication} is the folder {record.repo}, which nobody sees but on this machine. Remove it there.")
    make_private(api, record.repo)
    return store.record_unpublished(publication, by=by, reason=reason, source=actor.source, details=actor.details)


def said(by: str, reason: str) -> tuple[str, str]:
    """Name and reason, each on one line. Raises UnpublishRefused where one is missing."""
    by, reason = " ".join(by.split()), " ".join(reason.split())
    if not by or not reason:
        raise UnpublishRefused("Taking a publication back needs a name and a reason: say who decides this, and why.")
    return by, reason
