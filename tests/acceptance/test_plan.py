"""`sluice plan` and `sluice quantize` on a folder, as a stranger to the service uses them: no Hub, no account, no database."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from tests.acceptance.conftest import ROOT, sluice

MODEL = ROOT / "demo" / "model"
TEXT = ROOT / "demo" / "data" / "calibration_questions.txt"


def asked(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return sluice(*arguments, SLUICE_HOME=str(home), SLUICE_THREADS="1")


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_folder_becomes_a_plan_a_drawing_and_a_file_and_the_slow_part_is_done_once(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT.read_text(encoding="utf-8")[:20000], encoding="utf-8")
    home, model, out, drawing = tmp_path / "home", tmp_path / "tiny-chat", tmp_path / "out.gguf", tmp_path / "curve.svg"
    shutil.copytree(MODEL, model)
    plan = document(asked(home, "plan", model, "--like", "Q4_K_M", "--text", text, "--json", "--curve", drawing))
    assert plan["predicted"]["mean"] < plan["stock"]["mean"]
    assert sum(row["share"] for row in plan["tensors"]) == pytest.approx(1)
    assert {patch["fix"] for patch in plan["patches"]} >= {"strip-remote-code"}
    assert "<svg" in drawing.read_text(encoding="utf-8")
    ours = plan["curve"]["planned"]
    assert [point["mean"] for point in ours] == sorted((point["mean"] for point in ours), reverse=True)
    assert {"Q4_K_M", "Q2_K", "Q6_K"} <= {point["name"] for point in plan["curve"]["stock"]}

    done = asked(home, "quantize", model, "--bpw", "3.5", "--text", text, "--json", "--profile", "no-iq", "-o", out)
    made = document(done)
    kept = [line.split()[0] for line in done.stderr.splitlines() if line.rstrip().endswith(("fix", "convert", "imatrix", "sensitivity"))]
    assert kept == ["↺"] * 4, done.stderr
    assert made["bytes"] == out.stat().st_size
    assert made["bpw"] <= 3.5
    stored = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(out).tensors}
    assert {row["name"]: row["type"] for row in made["tensors"]}.items() <= stored.items()
    assert not any(type_.startswith("IQ") for type_ in stored.values())
    assert not list(tmp_path.glob(".*unfinished"))
    assert not list((home / "working").iterdir())

    shown = asked(home, "plan", model, "--bytes", "2MB", "--text", text)
    assert shown.returncode == 0, shown.stderr
    assert "predicted KLD" in shown.stdout
    small = asked(home, "plan", model, "--bytes", "100kB", "--text", text)
    assert small.returncode == 2, small.stdout
    assert "Traceback" not in small.stderr
