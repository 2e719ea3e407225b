"""`/metrics` as Prometheus reads it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from config.settings import Settings
from config.words import GateResult, Kind, Outcome, Variant, Verdict
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
    assert found["sluice_gate_results_total", "divergence", "failed"] == 2
    assert found["sluice_gate_results_total", "file", "passed"] == 1, "of a variant that did not pass"
    assert found["sluice_stages_total", "convert", "reused"] == 1
    assert found["sluice_stage_seconds_total", "convert"] == 2.5
    assert found["sluice_publications_total",] == 1
    assert found["sluice_last_published_timestamp_seconds",] > 1.7e9
    assert 0 < found["sluice_disk_free_bytes",] <= found["sluice_disk_bytes",]
    assert found["process_resident_memory_bytes",] > 1e6


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
