"""Taking a publication back: its repo becomes private on the Hub, with name and reason on record."""

from huggingface_hub import HfApi

from config.errors import PublishConflict
from publishers.unpublishing import make_private
from service.runs.steering import Actor
from service.store import PublicationRecord, Store


def unpublish(store: Store, api: HfApi, publication: int, *, by: str, reason: str, actor: Actor) -> PublicationRecord:
    """Make the publication's repo private. Raises UnknownPublication, PublishConflict when it is a folder, HubError."""
    record = store.publication(publication)
    if store.run(record.run).target is not None:
        raise PublishConflict(f"Publication {publication} is the folder {record.repo}, which nobody sees but on this machine. Remove it there.")
    make_private(api, record.repo)
    return store.record_unpublished(publication, by=by, reason=reason, source=actor.source, details=actor.details)
