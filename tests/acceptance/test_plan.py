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
    assert 0 < plan["activations"] < plan["predicted"]["mean"] < plan["stock"]["mean"]
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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_model_that_transformers_does_not_know_and_a_gguf_file_are_planned_by_probes(tmp_path: Path) -> None:
    text, chat = tmp_path / "text.txt", tmp_path / "chat.jsonl"
    text.write_text(TEXT.read_text(encoding="utf-8")[:3000], encoding="utf-8")
    chat.write_text("".join((TEXT.parent / "calibration.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:20]), encoding="utf-8")
    home, model, out = tmp_path / "home", tmp_path / "odd", tmp_path / "out.gguf"
    shutil.copytree(MODEL, model)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(config | {"model_type": "not-in-transformers"}), encoding="utf-8")
    done = asked(home, "quantize", model, "--bpw", "4.5", "--profile", "no-iq", "--text", text, "--chat", chat, "--json", "-o", out)
    made = document(done)
    found = made["sensitivity"]
    assert found["provider"] == "probes"
    assert found["probes"] == 8 + 4 + 3
    assert "'not-in-transformers'" in found["reason"]
    assert found["reason"] in done.stderr
    assert made["predicted"]["stderr"] > found["systematic"] * made["predicted"]["mean"] > 0
    assert made["rounded"] is False
    assert made["bytes"] == out.stat().st_size

    (base,) = home.glob("stages/*/files/*-BF16.gguf")
    alone = shutil.copy(base, tmp_path / "alone.gguf")
    shown = asked(home, "quantize", alone, "--bpw", "4.5", "--profile", "no-iq", "--text", text, "--chat", chat, "-o", out)
    assert shown.returncode == 0, shown.stderr
    assert "by 15 probes through llama.cpp: the method itself is known within" in shown.stdout
    assert "not rounded anew" in shown.stdout
    own = document(asked(home, "plan", alone, "--bpw", "4.5", "--profile", "no-iq", "--text", text, "--chat", chat, "--json"))
    assert [row["type"] for row in own["tensors"]] == [row["type"] for row in made["tensors"]], "template and tokenizer of the file are the folder's"
    assert own["patches"] == []
    refused = asked(home, "plan", out, "--text", text)
    assert refused.returncode == 1
    assert "quantized already" in refused.stderr
