"""Tells the places of `notify` how runs end: composed from the records, written down, sent, and tried again where that may help."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import structlog

from config.errors import SluiceError
from config.notify import Ending, Notified
from config.passing import pause
from config.words import Outcome
from publishers.notify import NotDelivered, Notice, body, send
from service.pulse import pulse
from service.store import AuditRecord, DeliveryRecord, Message, Store, UnknownRun
from service.store.database import now

FIRST, LONGEST = 30.0, 6 * 3600.0  # seconds until the second attempt, and between later ones at most
PATIENCE = timedelta(days=3)  # after which a message is old news

log = structlog.get_logger(__name__)


def notify(store: Store, places: Iterable[Notified]) -> None:
    """Write down what there is to tell, and send what is due. What one place does not take stands in its record and keeps nothing from the others."""
    known = {place.name: place for place in places}
    for place in known.values():
        ends = store.ends_untold(place.name)
        if ends:
            store.put_messages(place.name, [message for event in ends if (message := _message(store, place, event)) is not None], upto=ends[-1].id)
    while known and (delivery := store.take_delivery(known)) is not None:
        pulse.beat("notify", delivery.place)  # each may take seconds, and an outage may leave hundreds
        _deliver(store, known[delivery.place], delivery)


def _message(store: Store, place: Notified, event: AuditRecord) -> Message | None:
    """What the place is told of it; None when it does not want to know, or nothing came of the run."""
    try:
        notice = composed(store, event)
    except UnknownRun:
        return None
    if notice is None or notice.ending not in place.on:
        return None
    return Message(event=event.id, subject=event.subject, ending=notice.ending, body=body(place.form, notice).decode())


def composed(store: Store, event: AuditRecord) -> Notice | None:
    """How a run ended, by the records; None when it is done, or was cancelled, and changed nothing. Raises UnknownRun."""
    run = store.run(int(event.subject.removeprefix("run/")))
    published = tuple(item.url for item in store.published_since_begun(run.id))
    blocked = {
        item.variant.tag: next(iter(item.verdict.reasons), "not measured")
        for item in store.variants(run.id)
        if item.verdict is not None and item.verdict.outcome is not Outcome.PASSED
    }
    done = Notice(
        ending="published", run=run.id, attempt=run.attempt, repo=run.release.repo, sha=run.release.sha, recipe=run.recipe, published=published, blocked=blocked
    )
    match event.action:
        case "failed" | "superseded":
            ending: Ending = "failed" if event.action == "failed" else "superseded"
            return replace(done, ending=ending, blocked={}, reason=str(event.details.get("error", "")) or None)
        case "held":
            undecided = [item.hold.reason for item in store.holds(run.id) if item.approval is None]
            return replace(done, ending="held", published=(), blocked={}, reason=" ".join(undecided) or None)
        case "blocked":
            return replace(done, ending="blocked")
        case "cancelled":
            return replace(done, reason="The run was cancelled, but this was public by then.") if published and run.started else None
        case _:
            return replace(done, reason=event.details.get("error")) if published else None


def _deliver(store: Store, place: Notified, delivery: DeliveryRecord) -> None:
    try:
        send(place, delivery.body.encode())
    except SluiceError as error:
        again = _again(error, delivery)
        log.warning("notification not delivered", place=place.name, subject=delivery.subject, attempt=delivery.attempts, error=str(error), again_in=again)
        store.delivery_ended(delivery.id, error=str(error), again_in=again)
        return
    store.delivery_ended(delivery.id)
    log.info("notified", place=place.name, subject=delivery.subject, ending=delivery.ending)


def _again(error: SluiceError, delivery: DeliveryRecord) -> float | None:
    """Seconds until it is tried again; None when that would not help, or would come too late."""
    if not isinstance(error, NotDelivered) or not error.passing or now() - delivery.created > PATIENCE:
        return None
    return pause(delivery.attempts - 1, first=FIRST, longest=LONGEST, asked=error.after)
