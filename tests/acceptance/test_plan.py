"""`sluice plan` and `sluice quantize` on a folder, as a stranger to the service uses them: no Hub, no account, no database."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from tests.acceptance.conftest import ROOT, Hub, sluice

MODEL = ROOT / "demo" / "model"
TEXT = ROOT / "demo" / "data" / "calibration_questions.txt"


def asked(home: Path, *arguments: str | Path, cwd: Path | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
    return sluice(*arguments, cwd=cwd, SLUICE_HOME=str(home), SLUICE_THREADS="1", **extra)


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


@pytest.mark.slow
def test_a_file_needs_no_name_and_every_path_may_be_relative(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "text.txt").write_text(TEXT.read_text(encoding="utf-8")[:3000], encoding="utf-8")
    shutil.copytree(MODEL, tmp_path / "My-Model")
    done = asked(tmp_path / "home", "quantize", "My-Model", "--type", "q4_k_m", "--text", "text.txt", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"My-Model → {tmp_path}/My-Model-Q4_K_M.gguf"
    assert re.fullmatch(r"about \d+ s, .* of memory at most, .* of disk", lines[1]), "what it takes is said first"
    assert lines[-1].startswith(f"wrote {tmp_path}/My-Model-Q4_K_M.gguf, 2.37 MB, 5.07 bits")
    stored = {tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "My-Model-Q4_K_M.gguf").tensors}
    assert {"Q4_K", "Q6_K"} <= stored

    (base,) = (tmp_path / "home").glob("stages/*/files/*-BF16.gguf")
    (tmp_path / "sub").mkdir()
    shutil.copy(base, tmp_path / "Mine-BF16.gguf")
    text = ("--text", "../text.txt")
    again = asked(tmp_path / "home", "quantize", "../Mine-BF16.gguf", "-t", "Q5_K_M", *text, cwd=tmp_path / "sub")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "sub" / "Mine-Q5_K_M.gguf").is_file()
    measured = asked(tmp_path / "home", "measure", "kld", "../Mine-BF16.gguf", "Mine-Q5_K_M.gguf", *text, "--ctx", "128", "--json", cwd=tmp_path / "sub")
    assert document(measured)["variants"][0]["measurements"][0]["name"] == "kld.mean"

    page = f"{hub.url}/upstream/tiny-chat/tree/main"
    third = asked(tmp_path / "home", "quantize", page, "-t", "q5_k_m", "--text", "text.txt", "--json", cwd=tmp_path, SLUICE_HUB_ENDPOINT=hub.url)
    made = document(third)
    assert made["file"] == str(tmp_path / "tiny-chat-Q5_K_M.gguf")
    assert made["type"] == "Q5_K_M"
    assert made["bytes"] == (tmp_path / "tiny-chat-Q5_K_M.gguf").stat().st_size
