"""`sluice gates` and `sluice waive` on a run that is on record."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from config.settings import Settings
from config.words import GateResult, Kind, Outcome, Variant, Verdict
from publishers.naming import NOBODY
from service.cli.context import command_again
from service.cli.main import app
from service.operations.database import Here
from service.store import Store, VariantRecord, open_store
from tests.service.helpers import SHA, queue_run

REASON = "kld.mean is 0.43 nats, at most 0.15 is allowed."
SHARED = "template.failures is 1, at most 0 is allowed: a conversation with tools is rendered otherwise by llama.cpp than by transformers."


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """The store of a home in which run 1 has a variant that a gate blocked."""
    (tmp_path / "home").mkdir()
    opened = open_store(f"sqlite:///{tmp_path / 'home' / 'sluice.db'}")
    result = GateResult(
        gate="divergence", measure="kld.mean", value=0.43, stderr=0.02, condition="at most 0.15", outcome=Outcome.FAILED, reason=REASON, limit=0.15
    )
    other = replace(result, gate="file", measure="file.failures", value=0.0, stderr=None, condition="at most 0", outcome=Outcome.PASSED, reason="0.")
    template = replace(other, gate="template", measure="template.failures", value=1.0, outcome=Outcome.FAILED, reason=SHARED)
    judged = {"Q8_0": (Outcome.PASSED, (other,)), "Q2_K": (Outcome.FAILED, (other, template)), "IQ1_S": (Outcome.FAILED, (other, template, result))}
    run = queue_run(opened).id
    for position, (tag, (outcome, results)) in enumerate(judged.items()):
        reasons = tuple(item.reason for item in results if item.outcome is not Outcome.PASSED)
        verdict = Verdict(tag=tag, outcome=outcome, reasons=reasons, results=results)
        variant = Variant(tag=tag, kind=Kind.GGUF)
        opened.record_variant(run, VariantRecord(variant=variant, file=None, bytes=1, bpw=2.0, measurements=(), verdict=verdict), position=position)
    opened.lease("worker", seconds=60)
    opened.finish(run, state="blocked")
    yield opened
    opened.close()


def asked(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"SLUICE_HOME": str(folder / "home"), "COLUMNS": "200"})


def test_a_gate_is_shown_waived_and_the_waiver_withdrawn(store: Store, tmp_path: Path) -> None:
    shown = asked(tmp_path, "gates", "1")
    assert shown.exit_code == 3
    assert f"IQ1_S, divergence: {REASON}" in shown.stdout
    given = ["waive", "1", "divergence", "IQ1_S", "--by", "Ada", "--comment", "Its users asked for it.", "--json"]
    told = asked(tmp_path, *given)
    assert json.loads(told.stdout) == {
        "run": 1,
        "gate": "divergence",
        "variant": "IQ1_S",
        "by": "Ada",
        "comment": "Its users asked for it.",
        "state": "recorded",
        "next": f"sluice run upstream/model --revision {SHA} --recipe default --namespace ours",
    }
    assert [(item.waiver.gate, item.waiver.tag, item.waiver.by, item.waiver.comment) for item in store.waivers(1)] == [
        ("divergence", "IQ1_S", "Ada", "Its users asked for it.")
    ]
    assert "waived by Ada" in asked(tmp_path, "gates", "1").stdout
    assert json.loads(asked(tmp_path, *given, "--withdraw").stdout)["state"] == "withdrawn"
    assert store.waivers(1) == ()


def test_what_cannot_be_waived_is_explained(store: Store, tmp_path: Path) -> None:
    refused = asked(tmp_path, "waive", "1", "divergence", "IQ1S", "--by", "Ada", "--comment", "Why not.")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "Did you mean IQ1_S? Judged are: Q8_0, Q2_K, IQ1_S" in refused.stderr
    misspelt = asked(tmp_path, "waive", "1", "divergense", "IQ1_S", "--by", "Ada", "--comment", "Why not.")
    assert "Did you mean divergence?" in misspelt.stderr
    nameless = asked(tmp_path, "waive", "1", "divergence", "IQ1_S", "--comment", "Why not.")
    assert (nameless.exit_code, "--by" in nameless.stderr) == (2, True)
    assert store.waivers(1) == ()


def test_only_what_failed_is_shown_and_what_variants_share_is_said_once(store: Store, tmp_path: Path) -> None:
    everything, failed = asked(tmp_path, "gates", "1").stdout, asked(tmp_path, "gates", "1", "--failed").stdout
    assert everything.count("file.failures") == 3
    assert "file.failures" not in failed
    assert "Q8_0" not in failed
    assert failed.count(SHARED) == 1
    assert f"all 2 variants, template: {SHARED}" in failed


def test_the_gates_of_some_variants_are_shown_by_their_tags_in_any_case(store: Store, tmp_path: Path) -> None:
    document = json.loads(asked(tmp_path, "gates", "1", "--variant", "iq1_s", "--variant", "Q8_0", "--json").stdout)
    assert [item["tag"] for item in document["variants"]] == ["Q8_0", "IQ1_S"]
    failed = json.loads(asked(tmp_path, "gates", "1", "--variant", "iq1_s", "--failed", "--json").stdout)
    assert [gate["gate"] for item in failed["variants"] for gate in item["gates"]] == ["template", "divergence"]
    assert "every gate passed" in asked(tmp_path, "gates", "1", "--variant", "Q8_0", "--failed").stdout
    unknown = asked(tmp_path, "gates", "1", "--variant", "Q2K")
    assert unknown.exit_code == 2
    assert "Did you mean Q2_K?" in unknown.stderr


def test_the_command_that_carries_a_run_out_again_names_the_settings_in_use(store: Store, tmp_path: Path) -> None:
    settings = tmp_path / "my settings.yaml"
    settings.write_text(f"home: {tmp_path / 'home'}\n")
    given = ["waive", "1", "divergence", "IQ1_S", "--by", "Ada", "--comment", "Its users asked for it.", "--json"]
    done = CliRunner().invoke(app, ["--config", str(settings), *given])
    assert json.loads(done.stdout)["next"].startswith(f"sluice --config '{settings}' run upstream/model ")


@pytest.mark.parametrize(
    ("order", "ending"),
    [
        ({"private": True}, "--namespace ours --private"),
        ({"folder": "/models/mine", "target": "/repos", "namespace": NOBODY}, "--to /repos"),
        ({"fixes_as_pr": True}, "--namespace ours --fixes-as-pr"),
    ],
)
def test_the_command_again_is_of_the_same_run(file_store: Store, order: dict[str, Any], ending: str) -> None:
    run = queue_run(file_store, **order)
    assert str(command_again(Here(store=file_store, settings=Settings()), run.id, None)).endswith(f"--recipe default {ending}")
