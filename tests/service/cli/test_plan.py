"""Wrong usage of `sluice plan` and `sluice quantize`: one sentence, an exit code, and nothing begun."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from config.recipe import stock_of
from config.settings import Settings
from service.cli.main import app
from service.cli.plan import FileOptions, MixOptions, _wanted, tag_of
from service.machine.speed import Speed
from service.release import estimate

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "demo" / "model"
TEXT = ROOT / "demo" / "data" / "calibration_questions.txt"


def asked(home: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"SLUICE_HOME": str(home), "COLUMNS": "200"})


def said(done: Result) -> str:
    return " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([MODEL, "--text", TEXT, "--recipe", ROOT / "demo" / "recipe.yaml"], "by --recipe NAME, not by both"),
        ([MODEL, "--text", TEXT, "--like", "Q4_K_X"], "like: Input should be 'BF16'"),
        ([MODEL, "--text", TEXT, "--like", "Q4_0", "--bpw", "4"], "exactly one of"),
        ([MODEL, "--text", TEXT, "--bytes", "a lot"], "not a number of bytes"),
        ([MODEL, "--text", TEXT, "--bytes", "4.6"], "a unit is missing: 4.6 means 4 bytes; write 4.6GB"),
        ([MODEL, "--text", TEXT, "--bytes", "600kB"], "in no mix are they smaller than 716.80 kB (1.56 bits per weight), mostly in IQ1_S"),
        ([MODEL, "--text", TEXT, "--bpw", "4", "--profile", "arm"], "mostly in IQ4_NL, the smallest that the profile arm allows"),
        ([MODEL, "--text", TEXT, "--fit", "512MiB"], "cannot hold the model"),
        ([MODEL, "--text", TEXT, "--context", "512"], "--context goes with --fit"),
        ([MODEL, "--text", TEXT, "--profile", "toaster"], "There is no profile 'toaster'"),
        ([MODEL, "--text", TEXT, "--profile", "amr"], "Did you mean arm?"),
        ([MODEL, "--text", TEXT, "--like", "q4km"], "did you mean `Q4_K_M`?"),
        ([MODEL, "--text", TEXT, "--curve", "curve.pdf"], "name a .svg or .png file"),
        (["no such folder", "--text", TEXT], "neither the name of a repo"),
    ],
)
def test_what_cannot_be_planned_is_said_before_anything_is_done(tmp_path: Path, arguments: list[str | Path], words: str) -> None:
    done = asked(tmp_path, "plan", *arguments)
    assert done.exit_code == 2, done.output
    assert words in said(done)
    assert not list((tmp_path / "stages").glob("*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--type", "q4km"], "There is no type 'q4km'. Did you mean Q4_K_M?"),
        (["--type", "UD-Q4_KXL"], "Did you mean UD-Q4_K_XL?"),
        (["--type", "Q4_K_M", "--bpw", "4"], "--type says how large the file will be"),
    ],
)
def test_a_type_that_is_not_there(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = asked(tmp_path, "quantize", MODEL, "--text", TEXT, *arguments)
    assert done.exit_code == 2, done.output
    assert words in said(done)


@pytest.mark.parametrize(
    ("given", "planned", "like", "tag"),
    [
        ({}, True, "Q4_K_M", "UD-Q4_K_XL"),
        ({"type": "q4_k_m"}, False, "Q4_K_M", "Q4_K_M"),
        ({"type": "ud-q4_k_xl"}, True, "Q4_K_M", "UD-Q4_K_XL"),
        ({"type": "q4_k_xl"}, True, "Q4_K_M", "UD-Q4_K_XL"),
        ({"type": "UD-IQ2_M"}, True, "IQ2_M", "UD-IQ2_M"),
        ({"like": "q2_k"}, True, "Q2_K", "UD-Q2_K_XL"),
        ({"like": "Q8_0"}, True, "Q8_0", "UD-Q8_K_XL"),
        ({"like": "Q4_0"}, True, "Q4_0", "UD-Q4_0"),
        ({"bpw": 3.5}, True, None, "UD-3.5bpw"),
        ({"size": "4.6GB"}, True, None, "UD-4.60GB"),
        ({"fit": "8GB"}, True, None, "UD-8.00GB-fit"),
    ],
)
def test_what_a_file_is_called(given: dict[str, Any], planned: bool, like: str | None, tag: str) -> None:
    mix = MixOptions(text=[TEXT], **{name: value for name, value in given.items() if name != "type"})
    wanted = _wanted(Settings(), str(MODEL), mix, FileOptions(type=given.get("type")))
    assert (wanted.planned, wanted.budget.like, tag_of(wanted)) == (planned, like, tag)
    assert like is None or not planned or stock_of(tag) == like, "a recipe understands the name as it was meant"


def test_the_model_itself_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    done = asked(tmp_path, "quantize", tmp_path / "model.gguf", "--text", TEXT, "-o", tmp_path / "model.gguf")
    assert done.exit_code == 2
    assert "is the model itself" in said(done)
    assert (tmp_path / "model.gguf").read_bytes() == b"GGUF"


def test_where_nothing_can_be_written_nothing_is_begun(tmp_path: Path) -> None:
    done = asked(tmp_path, "quantize", MODEL, "--text", TEXT, "-o", "/proc/out.gguf")
    assert done.exit_code == 2
    assert "Nothing can be written in /proc" in said(done)
    assert not list((tmp_path / "stages").glob("*"))


@pytest.mark.parametrize(("path", "words"), [("out.bin", "name a .gguf file"), ("nowhere/out.gguf", "in a folder that exists")])
def test_where_no_file_can_be_written(tmp_path: Path, path: str, words: str) -> None:
    done = asked(tmp_path, "quantize", MODEL, "--text", TEXT, "-o", tmp_path / path)
    assert done.exit_code == 2
    assert words in said(done)


def test_a_folder_without_safetensors(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    done = asked(tmp_path / "home", "plan", tmp_path / "model", "--text", TEXT)
    assert done.exit_code == 1, done.stdout
    assert "holds no .safetensors file" in done.stderr


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "speed", lambda settings: Speed(threads=2, ram=24 * 10**9))


@pytest.mark.usefixtures("quiet")
def test_an_estimate_needs_no_model_and_names_machines(tmp_path: Path) -> None:
    done = asked(tmp_path, "plan", "--estimate", "8B")
    assert done.exit_code == 0, done.stderr
    for word in ("Llama-3.1-8B, 8.03 billion parameters", "this machine", "64 cores, 1 TB", "RTX 4090", "H200", "probes, no rounding"):
        assert word in done.stdout
    found = json.loads(asked(tmp_path, "plan", "--estimate", "8B", "--json").stdout)
    assert found["machines"][0]["name"] == "this machine"
    for one in found["machines"]:
        assert one["passes"] == (None if one["windows"] is None else one["windows"] * one["groups"])
        assert one["seconds"] == pytest.approx(sum(stage["seconds"] for stage in one["stages"]))


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a MODEL to plan, or a shape by --estimate"),
        ([MODEL, "--estimate", "8B"], "name a MODEL to plan, or a shape by --estimate"),
        (["--estimate", "9B"], "There is no shape '9B'"),
        (["--estimate", ROOT / "docs"], "config.json"),
    ],
)
def test_an_estimate_of_nothing_known_is_refused(arguments: list[str | Path], words: str, tmp_path: Path) -> None:
    done = asked(tmp_path, "plan", *arguments)
    assert done.exit_code in {1, 2}
    assert words in said(done)
