"""What is old is forgotten with all that hangs on it, and nothing that somebody still needs to know; on both databases."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, func, insert, make_url, select, text
from sqlalchemy.exc import DBAPIError

from bench.clock import Clock
from config.settings import Settings
from config.words import Hold, Kind, Measurement, Outcome, Patch, Release, Variant, Verdict
from service.disk.records import forget
from service.store import Artifact, Horizons, Message, Published, Store, VariantRecord, open_store
from service.store.tables import Base
from tests.service.helpers import queue_run

PATCH = Patch(fix="f", version=1, file="config.json", key="a", reason="Because.", before=1, after=2)


def horizons(clock: Clock, *, runs: float = 100, messages: float = 10, audit: float = 300) -> Horizons:
    ago = lambda days: clock.at - timedelta(days=days)  # noqa: E731
    return Horizons(runs=ago(runs), messages=ago(messages), audit=ago(audit))


def ran(store: Store, number: int, *, repo: str = "upstream/model", publish: str | None = None, state: str = "done") -> int:
    """A run with something in each table."""
    run = queue_run(store, repo, release=Release(repo=repo, sha=f"{number:040}")).id
    store.lease("worker", seconds=3600, run=run)
    store.stage_reused(run, "convert", f"key-{run}", seconds=0.1, artifacts=(Artifact(name="model", sha256="a" * 64, bytes=1),))
    store.record_patches(run, [PATCH])
    variant = Variant(tag="Q4_0", kind=Kind.GGUF)
    figure = Measurement(name="kld.mean", value=0.1, unit="nats")
    verdict = Verdict(tag="Q4_0", outcome=Outcome.PASSED, reasons=(), results=())
    store.record_variant(run, VariantRecord(variant=variant, file="m.gguf", bytes=1, bpw=4.0, verdict=verdict, measurements=(figure,)), position=0)
    if publish is not None:
        store.record_publication(run, Published(repo=publish, revision=f"{number:040}", url="", files=(), manifest_digest="m", changed=True))
    if state == "held":
        store.record_holds(run, [Hold(subject="licence", reason="There is none.")])
    store.finish(run, state=state)  # type: ignore[arg-type]
    return run


def rows(url: str) -> dict[str, int]:
    """How many rows each table has."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = {table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in Base.metadata.sorted_tables}
    engine.dispose()
    return found


def known(store: Store) -> list[int]:
    return sorted(run.id for run in store.runs())


def test_old_runs_go_with_all_that_hangs_on_them(store: Store, clock: Clock, database_url: str) -> None:
    first = ran(store, 1, publish="ours/model")
    clock.at += timedelta(days=1)
    last = ran(store, 2, publish="ours/model")
    once = rows(database_url)
    clock.at += timedelta(days=200)
    assert store.forget(horizons(clock)) == {"runs": 1, "steps": 1}
    assert known(store) == [last]
    assert first != last
    now = rows(database_url)
    hanging = ("runs", "releases", "stages", "artifacts", "patches", "verdicts", "measurements", "publications")
    assert [(now[name], once[name]) for name in hanging] == [(1, 2)] * len(hanging)


def test_a_dry_run_counts_the_same_and_changes_nothing(store: Store, clock: Clock, database_url: str) -> None:
    for number in range(3):
        ran(store, number)
        clock.at += timedelta(days=1)
    clock.at += timedelta(days=400)
    before = rows(database_url)
    foretold = store.forget(horizons(clock), dry_run=True)
    assert rows(database_url) == before
    assert foretold["runs"] == 2
    assert store.forget(horizons(clock)) == foretold
    assert store.forget(horizons(clock)) == {}


def test_what_explains_a_current_publication_stays_however_old(store: Store, clock: Clock, database_url: str) -> None:
    current = ran(store, 1, publish="ours/model")
    clock.at += timedelta(days=1)
    later = ran(store, 2)  # published nothing
    clock.at += timedelta(days=1)
    newest = ran(store, 3, repo="upstream/other")
    clock.at += timedelta(days=10_000)
    told = {event.subject for event in store.audit_events()}
    store.forget(horizons(clock))
    assert known(store) == [current, later, newest], "the second is the newest of its kind, the third the newest of all"
    assert {event.subject for event in store.audit_events()} == told, "what tells of them stays with them"
    assert store.publications(current)
    assert [item.name for item in store.variants(current)[0].measurements] == ["kld.mean"]


@pytest.mark.parametrize("state", ["held", "queued", "paused"])
def test_what_is_not_at_its_end_stays(store: Store, clock: Clock, state: str) -> None:
    if state == "held":
        run = ran(store, 1, state="held")
    else:
        run = queue_run(store, release=Release(repo="upstream/model", sha="1" * 40)).id
        if state == "paused":
            store.pause(run, source="api", details={})
    clock.at += timedelta(days=1)
    ran(store, 2)
    clock.at += timedelta(days=10_000)
    store.forget(horizons(clock))
    assert run in known(store)


def test_what_is_held_for_as_long_as_records_stay_ends_where_something_newer_is_held_or_published(store: Store, clock: Clock) -> None:
    runs = dict[str, int]()
    for number, (name, repo, state, publish) in enumerate(
        (
            ("first", "upstream/model", "held", None),
            ("second", "upstream/model", "held", None),
            ("before", "upstream/other", "held", None),
            ("published", "upstream/other", "done", "ours/other"),
            ("alone", "upstream/alone", "held", None),
            ("done", "upstream/alone", "done", None),
        )
    ):
        clock.at += timedelta(days=1)
        runs[name] = ran(store, number, repo=repo, state=state, publish=publish)
    clock.at += timedelta(days=94)
    assert store.give_up_old(horizons(clock).runs) == 0, "not yet"
    clock.at += timedelta(days=10)
    keep = Settings(keep={"run_days": 100, "message_days": 10, "audit_days": 300, "days": 60})
    assert forget(store, keep, now=clock.at).counts == {}, "it is told first"
    assert {name: store.run(run).state for name, run in runs.items()} == {
        "first": "superseded", "second": "held", "before": "superseded", "published": "done", "alone": "held", "done": "done"
    }  # fmt: skip
    assert f"Run {runs['second']}, which is newer, takes its place." in str(store.run(runs["first"]).error)
    assert store.audit_events(subject=f"run/{runs['before']}")[0].action == "superseded"
    assert forget(store, keep, now=clock.at).counts["runs"] == 2
    assert known(store) == sorted(run for name, run in runs.items() if name not in {"first", "before"})


def test_a_run_with_something_left_to_do_stays(store: Store, clock: Clock) -> None:
    waiting = ran(store, 1)
    store.put_follow_up(waiting, "collection", {}, error="away", seconds=60, source="collection")
    clock.at += timedelta(days=1)
    ran(store, 2)
    clock.at += timedelta(days=10_000)
    store.forget(horizons(clock))
    assert waiting in known(store)
    store.settle_follow_up(waiting, "collection", source="collection")
    assert store.forget(horizons(clock))["runs"] == 1


def test_steps_that_were_begun_again_go_before_their_run_does(store: Store, clock: Clock) -> None:
    run = queue_run(store).id
    for _ in range(3):
        store.lease("worker", seconds=3600, run=run)
        store.stage_finished(store.stage_started(run, "convert", "key"), state="failed", seconds=0.1, error="No.")
        store.finish(run, state="failed", error="No.")
        queue_run(store, again=True)
    store.lease("worker", seconds=3600, run=run)
    clock.at += timedelta(days=20)
    assert store.forget(horizons(clock)) == {}, "it is at work"
    store.finish(run, state="failed", error="No.")
    assert store.forget(horizons(clock)) == {"steps": 2}
    assert [step.name for step in store.stages(run)] == ["convert"]


def test_what_was_told_goes_and_what_is_still_to_be_told_stays(store: Store, clock: Clock) -> None:
    store.ends_untold("chat")
    store.put_messages("chat", [Message(event=number, subject=f"run/{number}", ending="done", body="{}") for number in (1, 2)], upto=2)
    taken = store.take_delivery(["chat"])
    assert taken is not None
    store.delivery_ended(taken.id)
    store.claim_answer("caller", "key", "request")
    clock.at += timedelta(days=20)
    assert store.forget(horizons(clock)) == {"messages": 1, "requests": 1}
    assert [item.state for item in store.deliveries()] == ["pending"]


def test_the_audit_trail_ends_at_its_horizon_and_nobody_else_can_shorten_it(store: Store, clock: Clock, database_url: str) -> None:
    store.begin_opening("ours/model")
    store.audit("api", "token/ci", "created", {})
    clock.at += timedelta(days=301)
    store.audit("api", "token/ci", "revoked", {})
    assert store.forget(horizons(clock)) == {"events": 1}
    assert [(event.subject, event.action) for event in store.audit_events()] == [("token/ci", "revoked"), ("repo/ours/model", "created")]
    assert store.opening("ours/model"), "what is still to be done is not forgotten"
    engine = create_engine(database_url)
    for statement in ("DELETE FROM audit_events", "UPDATE audit_events SET action = 'none'"):
        with engine.connect() as connection, pytest.raises(DBAPIError, match="append-only"):
            connection.execute(text(statement))
    engine.dispose()
    assert len(store.audit_events()) == 2


def test_numbers_are_not_given_twice(store: Store, clock: Clock) -> None:
    last = [ran(store, number) for number in range(3)][-1]
    newest = store.audit_events(limit=1)[0].id
    clock.at += timedelta(days=10_000)
    store.forget(horizons(clock))
    assert ran(store, 9) > last
    assert store.audit_events(limit=1)[0].id > newest


def test_postgresql_gives_space_back_without_a_limit_and_another_time_where_a_table_is_locked(postgres_url: str) -> None:
    url = make_url(postgres_url).update_query_dict({"options": "-c statement_timeout=1500 -c lock_timeout=200 -c vacuum_cost_delay=50 -c vacuum_cost_limit=10"})
    store, other = Store(create_engine(url)), create_engine(postgres_url)
    open_store(postgres_url).close()
    with other.begin() as connection:
        connection.execute(
            text("INSERT INTO audit_events (at, source, subject, action, details) SELECT now(), 's', 'x/1', 'a', '{}' FROM generate_series(1, 5000)")
        )
    assert store.compact(), "it takes longer than any other statement may"
    with other.begin() as connection:
        connection.execute(text("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE"))
        assert not store.compact()
    assert store.compact()
    other.dispose()
    store.close()


def test_space_goes_back(tmp_path: Path, database_url: str, clock: Clock) -> None:
    store = open_store(database_url)
    for _ in range(50):
        with store.write() as session:
            session.execute(
                insert(Base.metadata.tables["audit_events"]),
                [{"at": clock.at, "source": "s", "subject": f"x/{n}", "action": "a", "details": {"said": "word " * 40}} for n in range(400)],
            )
    store.compact()
    full = store.size()
    clock.at += timedelta(days=301)
    store.audit("api", "token/ci", "revoked", {})
    assert store.forget(horizons(clock)) == {"events": 20_000}
    assert store.compact()
    assert store.size() < full / 4 if database_url.startswith("sqlite") else store.size() <= full
    if database_url.startswith("sqlite"):
        assert (tmp_path / "test.db").stat().st_size < full / 4
        assert not store.compact(), "nothing to gain"
    store.close()
