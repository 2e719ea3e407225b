import json
import time

import pytest

from config.progress import Progress
from config.words import Kind, Measurement, Outcome, Patch, Sample, Variant, Verdict
from service.runs.summary import summary
from service.store import Published, Store, UnknownRun, VariantRecord
from tests.service.helpers import SHA, queue_run

MEASURED = (
    Measurement(name="kld.mean", value=0.0237, unit="nats", stderr=0.0004, n=10_000),
    Measurement(name="kld.p999", value=1.5, unit="nats"),
    Measurement(name="kld.max", value=9.25, unit="nats"),
    Measurement(name="same_top", value=0.93, unit="share", stderr=0.002),
    Measurement(name="mmlu.accuracy", value=0.71, unit="share", stderr=0.01, n=400),
    Measurement(name="flips", value=12.0, unit="count", n=400),
    Measurement(name="efficiency", value=2.94, unit="points/GB"),
)


def test_a_run_that_has_not_begun_has_nothing(file_store: Store) -> None:
    run = queue_run(file_store)
    found = summary(file_store, run.id)
    assert found.pop("created") <= found.pop("queued")
    assert found == {
        "run": run.id,
        "release": {"repo": "upstream/model", "sha": SHA},
        "recipe": "default",
        "quick": False,
        "target": None,
        "state": "queued",
        "wanted": None,
        "trigger": "test",
        "attempt": 1,
        "priority": 0,
        "namespace": "ours",
        "private": False,
        "started": None,
        "finished": None,
        "error": None,
        "again": None,
        "disk_high_water": None,
        "left": None,
        "coming": [],
        "stages": [],
        "rollback": None,
        "held": [],
        "patches": [],
        "variants": [],
        "publications": [],
        "pull_request": None,
        "remarks": [],
    }


def test_a_finished_run_is_told_whole(file_store: Store) -> None:
    run = queue_run(file_store).id
    file_store.lease("worker", seconds=60)
    file_store.stage_finished(file_store.stage_started(run, "fix", "k"), state="done", seconds=1.25)
    file_store.record_patches(run, [Patch(fix="eos", version=1, file="config.json", key="eos_token_id", reason="The turn must end.", before=1, after=2)])
    passed = Verdict(tag="Q4_K_M", outcome=Outcome.PASSED, reasons=(), results=())
    record = VariantRecord(
        variant=Variant(tag="Q4_K_M", kind=Kind.GGUF),
        file="m-Q4_K_M.gguf",
        bytes=100,
        bpw=4.8,
        measurements=MEASURED,
        verdict=passed,
        samples=(Sample(basis={"kld": "text"}), Sample(basis={"mmlu": "questions"}, answers={"calendar": "7210"})),
    )
    file_store.record_variant(run, record, position=0)
    number = file_store.record_publication(
        run, Published(repo="ours/m-GGUF", revision="f" * 40, url="http://hub", files=("README.md",), manifest_digest="m", changed=True)
    )
    file_store.finish(run, state="done", disk_high_water=2**40)
    told = summary(file_store, run)
    json.dumps(told, allow_nan=False)
    assert (told["state"], told["disk_high_water"]) == ("done", 2**40)
    assert told["stages"] == [{"name": "fix", "state": "done", "seconds": 1.25, "estimate": None, "progress": None}]
    assert told["patches"] == [{"fix": "eos", "file": "config.json", "key": "eos_token_id", "before": 1, "after": 2, "reason": "The turn must end."}]
    assert told["variants"] == [
        {
            "tag": "Q4_K_M",
            "file": "m-Q4_K_M.gguf",
            "bytes": 100,
            "bpw": 4.8,
            "kld": {"mean": 0.0237, "stderr": 0.0004, "p999": 1.5, "max": 9.25},
            "same_top": 0.93,
            "mmlu": {
                "accuracy": 0.71,
                "stderr": 0.01,
                "n": 400,
                "subjects": {"calendar": {"questions": 4, "right": 2, "reference": 2, "wins": 1, "losses": 1}},
            },
            "flips": 12,
            "efficiency": 2.94,
            "verdict": "passed",
            "reasons": [],
            "waivers": [],
            "plan": None,
        }
    ]
    (publication,) = told["publications"]
    assert publication.pop("at") > told["started"]
    about = {"id": number, "run": run, "unpublished": None}
    assert publication == {**about, "repo": "ours/m-GGUF", "revision": "f" * 40, "url": "http://hub", "files": ["README.md"]}


def test_what_was_not_measured_is_null(store: Store) -> None:
    run = queue_run(store).id
    error = Verdict(tag="Q2_K", outcome=Outcome.ERROR, reasons=("kld.mean is missing",), results=())
    endless = (Measurement(name="kld.max", value=float("inf"), unit="nats"), Measurement(name="kld.mean", value=float("nan"), unit="nats", stderr=float("nan")))
    variant = Variant(tag="Q2_K", kind=Kind.GGUF)
    store.record_variant(run, VariantRecord(variant=variant, file=None, bytes=None, bpw=None, measurements=endless, verdict=error), position=0)
    (variant,) = summary(store, run)["variants"]
    assert variant["kld"] == {"mean": None, "stderr": None, "p999": None, "max": None}
    assert variant["mmlu"] == {"accuracy": None, "stderr": None, "n": None, "subjects": {}}
    assert (variant["same_top"], variant["flips"], variant["efficiency"], variant["file"]) == (None, None, None, None)
    assert (variant["verdict"], variant["reasons"]) == ("error", ["kld.mean is missing"])


def test_a_plan_stands_beside_what_came_of_it(store: Store) -> None:
    run = queue_run(store).id
    planned = (
        Measurement(name="plan.predicted", value=0.002, unit="nats", stderr=0.0001),
        Measurement(name="plan.measured", value=0.005, unit="nats", stderr=0.0002, n=100),
        Measurement(name="plan.error", value=2.5, unit="ratio", stderr=0.2, details=("far off",)),
        Measurement(name="plan.stock", value=0.004, unit="nats", stderr=0.0002, n=100),
        Measurement(name="plan.replaced", value=1, unit="count", n=1, details=("replaced",)),
    )
    variant = Variant(tag="UD-Q4_K_XL", kind=Kind.GGUF)
    store.record_variant(run, VariantRecord(variant=variant, file="m", bytes=1, bpw=4.0, measurements=planned, verdict=None), position=0)
    assert summary(store, run)["variants"][0]["plan"] == {
        "predicted": 0.002,
        "predicted_stderr": 0.0001,
        "measured": 0.005,
        "factor": 2.5,
        "stock": 0.004,
        "replaced": True,
        "remarks": ["far off", "replaced"],
    }


def test_a_stage_at_work_tells_how_far_it_has_come(store: Store) -> None:
    run = queue_run(store).id
    store.lease("worker", seconds=600)
    stage = store.stage_started(run, "measure", "k", estimate=90.5)
    (told,) = summary(store, run)["stages"]
    assert (told["state"], told["estimate"], told["progress"]) == ("running", 90.5, None)
    assert 0 <= told["seconds"] < 60
    for done in (0, 10):
        store.stage_progressed(stage, Progress(done=done, total=40, unit="windows"))
        time.sleep(0.05)
    (told,) = summary(store, run)["stages"]
    progress = told["progress"]
    assert (progress["done"], progress["total"], progress["unit"]) == (10, 40, "windows")
    assert progress["left"] == pytest.approx(30 / progress["rate"], rel=0.2)
    store.stage_finished(stage, state="done", seconds=2.0)
    ended = {"name": "measure", "state": "done", "seconds": 2.0, "estimate": 90.5, "progress": {**progress, "rate": None, "left": None}}
    assert summary(store, run)["stages"] == [ended]


def test_an_interrupted_run_tells_how_far_it_had_come(store: Store) -> None:
    run = queue_run(store).id
    store.lease("worker", seconds=0)
    silent = store.stage_started(run, "fix", "k")
    (told,) = summary(store, run)["stages"]
    assert (told["state"], told["seconds"], told["progress"]) == ("interrupted", None, None)
    store.stage_finished(silent, state="done", seconds=1.0)
    stage = store.stage_started(run, "measure", "l")
    store.stage_progressed(stage, Progress(done=10, total=None, unit="windows"))
    found = summary(store, run)
    assert found["state"] == "interrupted"
    told = found["stages"][-1]
    assert (told["state"], told["progress"]) == ("interrupted", {"done": 10, "total": None, "unit": "windows", "rate": None, "left": None})
    assert told["seconds"] == pytest.approx((store.stages(run)[-1].reported - store.stages(run)[-1].started).total_seconds())


def test_an_unknown_run_has_no_summary(file_store: Store) -> None:
    with pytest.raises(UnknownRun):
        summary(file_store, 7)
