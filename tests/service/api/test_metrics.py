"""`/metrics` as Prometheus reads it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from config.recipe import Gate
from config.settings import Settings
from config.words import GateResult, Kind, Measurement, Outcome, Variant, Verdict, Waiver
from qa.gates import judge
from service.api import create_app, create_health_app
from service.api.tokens import create_token
from service.hubclient.traffic import traffic
from service.store import Published, Store, VariantRecord
from tests.service.helpers import queue_run


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home" / "not there yet", namespace="ours")


@pytest.fixture
def client(store: Store, settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_health_app(store, settings)) as opened:
        yield opened


def figures(client: TestClient) -> dict[tuple[str, ...], float]:
    """By name and values of labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_runs_stages_gates_and_publications_are_counted(store: Store, client: TestClient) -> None:
    passed = GateResult(gate="file", measure="file.failures", value=0.0, stderr=None, condition="at most 0", outcome=Outcome.PASSED, reason="0.", limit=0.0)
    failed = replace(passed, gate="divergence", outcome=Outcome.FAILED)
    run, waiting = queue_run(store), queue_run(store, recipe_digest="e" * 64)
    store.lease("worker", seconds=60)
    for position, (tag, results) in enumerate({"Q8_0": (passed,), "Q2_K": (passed, failed), "IQ1_S": (failed,)}.items()):
        outcome = Outcome.FAILED if failed in results else Outcome.PASSED
        verdict = Verdict(tag=tag, outcome=outcome, reasons=(), results=results)
        record = VariantRecord(variant=Variant(tag=tag, kind=Kind.GGUF), file=None, bytes=1, bpw=2.0, measurements=(), verdict=verdict)
        store.record_variant(run.id, record, position=position)
    store.stage_reused(run.id, "convert", "k" * 64, seconds=2.5, artifacts=())
    published = Published(repo="ours/m", revision="a" * 40, url="http://hub/ours/m", files=("README.md",), manifest_digest="d" * 64, changed=True)
    store.record_publication(run.id, published)
    found = figures(client)
    assert found["sluice_runs", "running"] == 1
    assert found["sluice_runs", "queued"] == 1
    assert 0 < found["sluice_queue_age_seconds",] < 60
    assert store.run(waiting.id).state == "queued"
    assert (found["sluice_variants_total", "passed"], found["sluice_variants_total", "failed"]) == (1, 2)
    assert found["sluice_gate_results_total", "divergence", "failed", "limit_exceeded"] == 2
    assert found["sluice_gate_results_total", "file", "passed", ""] == 2, "of variants that passed, and of others"
    assert found["sluice_stages_total", "convert", "reused"] == 1
    assert found["sluice_stage_seconds_total", "convert"] == 2.5
    assert found["sluice_publications_total",] == 1
    assert found["sluice_last_published_timestamp_seconds",] > 1.7e9
    assert 0 < found["sluice_disk_free_bytes",] <= found["sluice_disk_bytes",]
    assert found["process_resident_memory_bytes",] > 1e6


MEASURED = (Measurement(name="kld.mean", value=0.2, unit="nats", stderr=0.05, n=100),)
ONE, LIKE = (
    {"name": "close", "measure": "kld.mean", "at_most": 0.1},
    {"name": "close", "measure": "kld.mean", "at_most": 1.1, "relative_to": "Q4_0", "compare": "ratio"},
)
REASONS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "": ({**ONE, "at_most": 0.9}, {}),
    "limit_exceeded": ({**ONE, "at_most": 0.01}, {}),
    "undecided": ({**ONE, "at_most": 0.19}, {}),
    "not_measured": (ONE, {"measurements": {}, "errors": {"kld.mean": "It ran out of memory at 12:03."}}),
    "not_comparable": (LIKE, {}),
    "waived": ({**ONE, "at_most": 0.01}, {"waivers": [Waiver(tag="Q2_K", gate="close", by="Ada", comment="fine", outcome=Outcome.FAILED)]}),
}


@pytest.mark.parametrize("reason", REASONS)
def test_gates_are_counted_by_why_they_did_not_pass_in_a_few_words(store: Store, client: TestClient, reason: str) -> None:
    gate, given = REASONS[reason]
    variant = Variant(tag="Q2_K", kind=Kind.GGUF)
    wanted = {"measurements": {item.name: item for item in MEASURED}, "errors": {}, **given}
    verdict = judge(variant, [Gate.model_validate(gate)], **wanted)  # type: ignore[arg-type]
    store.record_variant(queue_run(store).id, VariantRecord(variant=variant, file=None, bytes=1, bpw=2.0, measurements=MEASURED, verdict=verdict), position=0)
    (result,) = verdict.results
    assert {key[1:]: value for key, value in figures(client).items() if key[0] == "sluice_gate_results_total"} == {("close", result.outcome.value, reason): 1}
    assert (result.outcome is Outcome.PASSED) == (reason == "")


def test_an_empty_store_has_nothing_to_count(client: TestClient) -> None:
    found = figures(client)
    assert found["sluice_queue_age_seconds",] == 0
    assert found["sluice_publications_total",] == 0
    assert ("sluice_last_published_timestamp_seconds",) not in found


def test_the_api_s_own_listener_wants_a_token(file_store: Store, settings: Settings) -> None:
    with TestClient(create_app(file_store, settings), raise_server_exceptions=False) as client:
        assert client.get("/metrics").status_code == 401
        token = create_token(file_store, "prometheus")
        assert "sluice_queue_age_seconds 0.0" in client.get("/metrics", headers={"Authorization": f"Bearer {token}"}).text


def test_requests_to_hubs_and_their_bytes_are_told(client: TestClient) -> None:
    before = figures(client)
    traffic.called("GET", "429")
    traffic.moved("sent", 1000)
    after = figures(client)
    assert after["sluice_hub_calls_total", "GET", "429"] - before.get(("sluice_hub_calls_total", "GET", "429"), 0) == 1
    assert after["sluice_hub_bytes_total", "sent"] - before.get(("sluice_hub_bytes_total", "sent"), 0) == 1000
