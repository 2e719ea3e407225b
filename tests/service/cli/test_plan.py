"""Wrong usage of `sluice plan` and `sluice quantize`: one sentence, an exit code, and nothing begun."""

from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from service.cli.main import app

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
        ([MODEL, "--text", TEXT, "--curve", "curve.pdf"], "name a .svg or .png file"),
        (["no such folder", "--text", TEXT], "neither a folder, a .gguf file nor the name of a repo"),
    ],
)
def test_what_cannot_be_planned_is_said_before_anything_is_done(tmp_path: Path, arguments: list[str | Path], words: str) -> None:
    done = asked(tmp_path, "plan", *arguments)
    assert done.exit_code == 2, done.output
    assert words in said(done)
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
