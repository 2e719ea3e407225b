"""`sluice gates` and `sluice waive` on a run that is on record."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from config.words import GateResult, Kind, Outcome, Variant, Verdict
from service.cli.main import app
from service.store import Store, VariantRecord, open_store
from tests.service.helpers import SHA, queue_run

REASON = "kld.mean is 0.43 nats, at most 0.15 is allowed."


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """The store of a home in which run 1 has a variant that a gate blocked."""
    (tmp_path / "home").mkdir()
    opened = open_store(f"sqlite:///{tmp_path / 'home' / 'sluice.db'}")
    result = GateResult(
        gate="divergence", measure="kld.mean", value=0.43, stderr=0.02, condition="at most 0.15", outcome=Outcome.FAILED, reason=REASON, limit=0.15
    )
    verdict = Verdict(tag="IQ1_S", outcome=Outcome.FAILED, reasons=(REASON,), results=(result,))
    variant = Variant(tag="IQ1_S", kind=Kind.GGUF)
    run = queue_run(opened).id
    opened.record_variant(run, VariantRecord(variant=variant, file=None, bytes=1, bpw=2.0, measurements=(), verdict=verdict), position=0)
    opened.lease("worker", seconds=60)
    opened.finish(run, state="blocked")
    yield opened
    opened.close()


def asked(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"SLUICE_HOME": str(folder / "home"), "COLUMNS": "200"})


def test_a_gate_is_shown_waived_and_the_waiver_withdrawn(store: Store, tmp_path: Path) -> None:
    shown = asked(tmp_path, "gates", "1")
    assert shown.exit_code == 3
    assert f"divergence: {REASON}" in shown.stdout
    given = ["waive", "1", "divergence", "IQ1_S", "--by", "Ada", "--comment", "Its users asked for it.", "--json"]
    told = asked(tmp_path, *given)
    assert json.loads(told.stdout) == {
        "run": 1,
        "gate": "divergence",
        "variant": "IQ1_S",
        "by": "Ada",
        "comment": "Its users asked for it.",
        "state": "recorded",
        "next": f"sluice run upstream/model --revision {SHA} --recipe default",
    }
    assert [(item.waiver.gate, item.waiver.tag, item.waiver.by, item.waiver.comment) for item in store.waivers(1)] == [
        ("divergence", "IQ1_S", "Ada", "Its users asked for it.")
    ]
    assert "waived by Ada" in asked(tmp_path, "gates", "1").stdout
    assert json.loads(asked(tmp_path, *given, "--withdraw").stdout)["state"] == "withdrawn"
    assert store.waivers(1) == ()


def test_what_cannot_be_waived_is_explained(store: Store, tmp_path: Path) -> None:
    refused = asked(tmp_path, "waive", "1", "divergence", "Q4_K_M", "--by", "Ada", "--comment", "Why not.")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "Judged are: IQ1_S" in refused.stderr
    nameless = asked(tmp_path, "waive", "1", "divergence", "IQ1_S", "--comment", "Why not.")
    assert (nameless.exit_code, "--by" in nameless.stderr) == (2, True)
    assert store.waivers(1) == ()
