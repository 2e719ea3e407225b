"""The report of a run that was blocked before anything was built: made by its stage, found again by the command and the API."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from config.settings import Settings
from config.words import GateResult, Kind, Measurement, Outcome, Patch, Variant, Verdict
from config.written import load_recipe
from service.api import create_app
from service.api.tokens import create_token
from service.cli.main import app
from service.execution.kept import StageStore
from service.release import report as reporting
from service.release.job import Job
from service.release.products import Built
from service.runs import report as found
from service.store import Store, UnknownRun, VariantRecord, open_store
from tests.service.conftest import RECIPE
from tests.service.helpers import at_work, queue_run
from tests.service.release.test_claims import OURS, made

REASON = "template.failures is 3, at most 0 is allowed: <b>bold</b> differs."


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """A run whose variant was blocked by a gate on the release; its measurements overflowed."""
    settings = Settings(home=tmp_path / "home", database_url=None, hub_endpoint="http://127.0.0.1:1", namespace="ours")
    store = open_store(settings.database)
    (tmp_path / "small.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "text.txt").write_text("Some text.\n", encoding="utf-8")
    run = queue_run(store)
    infinite = float("inf")
    result = GateResult(
        gate="template", measure="template.failures", value=infinite, stderr=None, condition="at most 0", outcome=Outcome.FAILED, reason=REASON, limit=0
    )
    measured = (Measurement(name="parity.kld", value=0.001, unit="nats"), Measurement(name="overflowed", value=infinite, unit="nats"))
    verdict = Verdict(tag="Q4_0", outcome=Outcome.FAILED, reasons=(REASON,), results=(result,))
    variant = Variant(tag="Q4_0", kind=Kind.GGUF)
    store.record_variant(run.id, VariantRecord(variant=variant, file=None, bytes=None, bpw=None, measurements=measured, verdict=verdict), position=0)
    store.record_patches(run.id, [Patch(fix="eos", version=1, file="config.json", key="eos_token_id", reason="Answers end.", before=5, after=4)])
    yield Job(store=store, run=run, recipe=load_recipe(str(tmp_path / "small.yaml")), settings=settings, stages=StageStore(settings.folder))
    store.close()


def test_a_run_that_was_blocked_early_has_a_report_that_says_why(job: Job, tmp_path: Path) -> None:
    with pytest.raises(found.NoReport, match=rf"Run {job.run.id} has no report"):
        found.find(job.store, job.settings, job.run.id)
    made = reporting.report(at_work(job, {}))
    path = found.find(job.store, job.settings, job.run.id)
    assert path == made.file().path
    text = path.read_text(encoding="utf-8")
    assert "Nothing was built" in text
    assert "&lt;b&gt;bold&lt;/b&gt; differs" in text
    assert "Answers end." in text
    assert text.count("<svg") == 1, "the stages, and no plot"
    assert '<svg class="way"' in text
    assert reporting.report(at_work(job, {})).key == made.key
    assert [stage.state for stage in job.store.stages(job.run.id)] == ["reused"], "the same findings make no new page"

    copied = tmp_path / "page.html"
    environment = {"SLUICE_HOME": str(job.settings.home)}
    told = CliRunner().invoke(app, ["report", str(job.run.id), "--json"], env=environment)
    assert json.loads(told.stdout) == {"run": job.run.id, "report": str(path)}
    assert CliRunner().invoke(app, ["report", str(job.run.id), "-o", str(copied)], env=environment).exit_code == 0
    assert copied.read_bytes() == path.read_bytes()
    refused = CliRunner().invoke(app, ["report", str(job.run.id), "-o", str(tmp_path / "nowhere" / "page.html")], env=environment)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"report: {path}" in CliRunner().invoke(app, ["status", str(job.run.id)], env=environment).stdout

    bearer = {"Authorization": f"Bearer {create_token(job.store, 'ci')}"}
    with TestClient(create_app(job.store, job.settings)) as client:
        answer = client.get(f"/api/v1/runs/{job.run.id}/report", headers=bearer)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        assert answer.content == path.read_bytes()

    path.unlink()
    with pytest.raises(found.NoReport):
        found.find(job.store, job.settings, job.run.id)


def test_a_run_without_a_report_says_so(file_store: Store, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", hub_endpoint="http://127.0.0.1:1", namespace="ours")
    run = queue_run(file_store)
    bearer = {"Authorization": f"Bearer {create_token(file_store, 'ci')}"}
    with TestClient(create_app(file_store, settings)) as client:
        for number in (run.id, run.id + 1):
            answer = client.get(f"/api/v1/runs/{number}/report", headers=bearer)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    with pytest.raises(UnknownRun):
        found.find(file_store, settings, run.id + 1)


def test_what_is_remarked_on_a_plan_reaches_the_page(job: Job) -> None:
    predicted = Measurement(name="plan.predicted", value=0.002, unit="nats", details=("A pattern matches no tensor.",))
    variant = Variant(tag="UD-Q4_K_XL", kind=Kind.GGUF, planned=True)
    record = VariantRecord(variant=variant, file=None, bytes=None, bpw=None, measurements=(predicted,), verdict=None)
    job.store.record_variant(job.run.id, record, position=1)
    assert [item.remarks for item in reporting.figures(at_work(job, {}), ()).variants] == [(), ("A pattern matches no tensor.",)]


def test_types_that_stand_in_reach_the_page(job: Job, tmp_path: Path) -> None:
    item = made(tmp_path, "Q4_0", OURS)
    item.output.result["fallbacks"] = {"Q5_0": {"attn_q": [0, 1]}}
    built = Built(variant=item.variant, output=item.output, bpw=4.5, measured={}, verdict=Verdict(tag="Q4_0", outcome=Outcome.PASSED, reasons=(), results=()))
    (found_of,) = reporting.figures(at_work(job, {}), (built,)).variants
    assert (found_of.file, found_of.fallbacks) == ("m-Q4_0.gguf", {"Q5_0": {"attn_q": [0, 1]}})
    assert [item.fallbacks for item in reporting.figures(at_work(job, {}), ()).variants] == [{}], "of what was not built"
