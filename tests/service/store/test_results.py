from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import create_engine, text

from config.progress import Progress
from config.words import GateResult, Kind, Measurement, Outcome, Patch, Release, Sample, Variant, Verdict
from service.logs import redact
from service.store import Artifact, Published, Store, StoreError, UnknownPublication, VariantRecord
from tests.service.helpers import queue_run

PATCH = Patch(fix="eos", version=2, file="config.json", key="eos_token_id", reason="The turn must end.", before=None, after=[1, 2])
MEASURED = (
    Measurement(name="kld.mean", value=0.01, unit="nats", stderr=0.001, n=2**40),
    Measurement(name="template.failures", value=2, unit="count", n=9, details=("two BOS", "no end of turn")),
)
RESULT = GateResult(gate="close", measure="kld.mean", value=0.01, stderr=0.001, condition="at most 0.005", outcome=Outcome.FAILED, reason="0.01 is above 0.005")
VERDICT = Verdict(tag="Q2_K", outcome=Outcome.FAILED, reasons=("0.01 is above 0.005",), results=(RESULT,))
Q2 = Variant(tag="Q2_K", kind=Kind.GGUF)


def record(store: Store, run: int, *, position: int = 0, **changes: object) -> None:
    values = {"variant": Q2, "file": "m-Q2_K.gguf", "bytes": 2**40, "bpw": 2.6, "measurements": MEASURED, "verdict": VERDICT}
    store.record_variant(run, VariantRecord(**{**values, **changes}), position=position)


def leased(store: Store, *, seconds: float = 60) -> int:
    """The run, leased by a worker for so long."""
    run = queue_run(store).id
    assert store.lease("worker", seconds=seconds, run=run) is not None
    return run


SAMPLE = Sample(basis={"kld": "text"}, windows="w", influences={"kld.mean": [0.1, None, -0.1]}, look=2, looks=3)
ASKED = Sample(basis={"mmlu": "questions"}, answers={"calendar": "7.30"}, look=1, looks=3)


def test_what_was_published_before_is_found_with_its_sample(store: Store) -> None:
    passed = replace(VERDICT, outcome=Outcome.PASSED)

    def published(sha: str, *, repo: str = "upstream/model", to: str = "ours/model-GGUF", **changes: object) -> int:
        run = queue_run(store, repo, release=Release(repo=repo, sha=sha * 40)).id
        record(store, run, **{"verdict": passed, "samples": (SAMPLE, ASKED), **changes})
        store.record_publication(run, Published(repo=to, revision=sha * 40, url="u", files=("f",), manifest_digest="m", changed=True))
        return run

    first = published("1")
    assert store.published_before(first, "ours/model-GGUF", "Q2_K") is None, "a run is not compared with itself"
    published("2", repo="another/model")
    published("3", to="ours/model")
    published("4", verdict=VERDICT)  # blocked, while others of its run were published
    last = queue_run(store, release=Release(repo="upstream/model", sha="f" * 40)).id
    run, variant = store.published_before(last, "ours/model-GGUF", "Q2_K")
    assert (run, variant.samples, variant.measurements) == (first, (SAMPLE, ASKED), MEASURED)
    assert store.published_before(last, "ours/model-GGUF", "Q4_0") is None
    second = published("5", samples=())
    run, variant = store.published_before(last, "ours/model-GGUF", "Q2_K")
    assert (run, variant.samples) == (second, ())
    assert store.published_before(second, "ours/model-GGUF", "Q2_K")[0] == first


def test_a_stage_is_begun_and_ended(store: Store) -> None:
    run = leased(store)
    stage = store.stage_started(run, "convert", "k" * 64)
    assert [(item.name, item.state, item.seconds) for item in store.stages(run)] == [("convert", "running", None)]
    artifacts = (Artifact(name="m-BF16.gguf", sha256="a" * 64, bytes=2**40), Artifact(name="log", sha256="b" * 64, bytes=0))
    store.stage_finished(stage, state="done", seconds=1.5, artifacts=artifacts)
    (done,) = store.stages(run)
    assert (done.id, done.key, done.state, done.seconds, done.error, done.artifacts) == (stage, "k" * 64, "done", 1.5, None, artifacts)


def test_the_last_time_of_a_stage_counts(store: Store) -> None:
    run = leased(store)
    store.stage_finished(store.stage_started(run, "fix", "a"), state="done", seconds=1.0)
    store.stage_finished(store.stage_started(run, "convert", "b"), state="failed", seconds=2.0, error="no memory")
    store.stage_finished(store.stage_started(run, "fix", "a"), state="reused", seconds=0.0)
    store.stage_started(run, "convert", "b")
    assert [(item.name, item.state) for item in store.stages(run)] == [("fix", "reused"), ("convert", "running")]


def test_what_a_dying_program_printed_can_be_kept_whatever_it_is(store: Store) -> None:
    run = leased(store)
    said = redact("It had printed last:\n\0\1\x7f\N{REPLACEMENT CHARACTER}")
    store.stage_finished(store.stage_started(run, "convert", "a"), state="failed", seconds=2.0, error=said)
    store.finish(run, state="failed", error=said)
    assert (store.run(run).error, store.stages(run)[0].error) == (said, said)


def test_a_stage_that_was_never_begun_cannot_go_on_or_end(store: Store) -> None:
    with pytest.raises(StoreError, match="no stage 7"):
        store.stage_finished(7, state="done", seconds=0.0)
    with pytest.raises(StoreError, match="no stage 7"):
        store.stage_progressed(7, Progress(done=1, total=2, unit="windows"))


def test_a_stage_tells_how_far_it_has_come_and_how_long_it_should_take(store: Store) -> None:
    run = leased(store)
    stage = store.stage_started(run, "measure", "k", estimate=90.5)
    (begun,) = store.stages(run)
    assert (begun.estimate, begun.progress, begun.reported) == (90.5, None, None)
    assert abs((datetime.now(UTC) - begun.started).total_seconds()) < 60
    for done in (3, 5):
        store.stage_progressed(stage, Progress(done=done, total=2**40, unit="bytes"))
    (record,) = store.stages(run)
    assert record.progress == Progress(done=5, total=2**40, unit="bytes")
    assert record.phase.first == 3
    assert begun.started <= record.phase.began < record.reported
    store.stage_progressed(stage, Progress(done=0, total=None, unit="windows"))
    (other,) = store.stages(run)
    assert (other.progress, other.phase.first) == (Progress(done=0, total=None, unit="windows"), 0)
    assert other.phase.began > record.reported, "another unit is another phase"
    store.stage_finished(stage, state="done", seconds=2.0)
    store.stage_progressed(stage, Progress(done=9, total=9, unit="windows"))
    assert store.stages(run)[0].progress == other.progress, "a report that comes too late"


def test_a_stage_of_a_run_that_nobody_carries_out_is_interrupted(store: Store, database_url: str) -> None:
    run = leased(store, seconds=0)
    stage = store.stage_started(run, "measure", "k")
    assert [item.state for item in store.stages(run)] == ["interrupted"]
    assert in_the_database(database_url) == ["running"]
    leased(store)
    assert in_the_database(database_url) == ["interrupted"], "closed by the next who leases the run"
    store.stage_started(run, "measure", "k")
    assert [item.state for item in store.stages(run)] == ["running"]
    store.stage_progressed(stage, Progress(done=1, total=2, unit="windows"))
    assert store.stages(run)[0].progress is None, "it is the earlier attempt that reported"
    store.finish(run, state="failed", error="no memory")
    assert in_the_database(database_url) == ["interrupted"] * 2
    assert [item.state for item in store.stages(run)] == ["interrupted"]


def test_a_stage_of_a_run_that_was_put_back_is_interrupted(store: Store) -> None:
    run = leased(store)
    store.stage_started(run, "measure", "k")
    assert store.release(run, "worker")
    assert [item.state for item in store.stages(run)] == ["interrupted"]


def in_the_database(url: str) -> list[str]:
    """The states of all stages, as they are written down."""
    engine = create_engine(url)
    with engine.connect() as connection:
        states = list(connection.execute(text("SELECT state FROM stages ORDER BY id")).scalars())
    engine.dispose()
    return states


def test_patches_come_back_in_order_and_replace_earlier_ones(store: Store) -> None:
    run = queue_run(store).id
    other = Patch(fix="pad", version=1, file="tokenizer.json", key="pad", reason="Not the eos.", before={"a": None}, after=None)
    store.record_patches(run, [other])
    store.record_patches(run, [PATCH, other])
    assert store.patches(run) == (PATCH, other)


def test_a_variant_comes_back_as_it_was_recorded_and_replaces_itself(store: Store) -> None:
    run = queue_run(store).id
    record(store, run, verdict=None, measurements=(), file=None, bytes=None, bpw=None)
    (unjudged,) = store.variants(run)
    assert (unjudged.verdict, unjudged.file, unjudged.bytes, unjudged.measurements) == (None, None, None, ())
    for _ in range(2):
        record(store, run)
    (variant,) = store.variants(run)
    assert (variant.variant, variant.file, variant.bytes, variant.bpw) == (Q2, "m-Q2_K.gguf", 2**40, 2.6)
    assert variant.measurements == MEASURED
    assert variant.verdict == VERDICT


def test_variants_stand_in_the_order_of_the_recipe(store: Store) -> None:
    run = queue_run(store).id
    record(store, run, position=1)
    record(store, run, position=0, variant=Variant(tag="16bit", kind=Kind.SIXTEEN_BIT), verdict=None)
    assert [item.variant.tag for item in store.variants(run)] == ["16bit", "Q2_K"]


def test_a_publication_is_one_for_each_run_and_repo(store: Store) -> None:
    run = queue_run(store).id
    first = store.record_publication(
        run, Published(repo="ours/m-GGUF", revision="1" * 40, url="http://hub/1", files=("a", "b"), manifest_digest="m", changed=True)
    )
    same = store.record_publication(run, Published(repo="ours/m-GGUF", revision="2" * 40, url="http://hub/2", files=("a",), manifest_digest="m", changed=False))
    other = store.record_publication(run, Published(repo="ours/m", revision="3" * 40, url="http://hub/3", files=(), manifest_digest="o", changed=True))
    assert same == first != other
    publication = store.publication(first)
    assert (publication.run, publication.revision, publication.files, publication.changed) == (run, "2" * 40, ("a",), False)
    assert [item.id for item in store.publications(run)] == [first, other]
    assert [event.action for event in store.audit_events(subject=f"publication/{first}")] == ["unchanged", "published"]
    with pytest.raises(UnknownPublication, match="no publication 99"):
        store.publication(99)


def test_the_last_publication_of_a_repo_may_be_another_runs(store: Store) -> None:
    old, new = queue_run(store).id, queue_run(store, namespace="elsewhere").id
    assert store.last_publication("ours/m") is None
    for run, revision in ((old, "1" * 40), (new, "2" * 40)):
        store.record_publication(run, Published(repo="ours/m", revision=revision, url="", files=(), manifest_digest="", changed=True))
    assert store.last_publication("ours/m").revision == "2" * 40
    store.record_publication(old, Published(repo="ours/m", revision="3" * 40, url="", files=(), manifest_digest="", changed=True))
    assert store.last_publication("ours/m").revision == "3" * 40
