"""Running llama.cpp's programs: output, logs, errors, time limits, and an environment without secrets."""

import os
import sys
from pathlib import Path

import pytest

from config.errors import ConversionError, ToolError
from engines import toolchain, tools


def python(code: str) -> list[str | Path]:
    return [sys.executable, "-c", code]


def test_real_tools_run() -> None:
    assert "version" in tools.run("llama-server", "--version")


def test_real_converter_runs() -> None:
    assert "--outtype" in tools.convert("--help")


def test_unknown_tool() -> None:
    with pytest.raises(ToolError, match="llama-nonsense of llama.cpp is not at"):
        tools.run("llama-nonsense")


def test_output_holds_both_streams_and_is_kept(tmp_path: Path) -> None:
    output = tools.execute(python("import sys; print('out', flush=True); print('err', file=sys.stderr)"), log=tmp_path / "log")
    assert output == "out\nerr\n"
    assert (tmp_path / "log").read_text() == output


def test_error_ends_with_the_last_lines_and_names_the_log(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught:
        tools.execute(python("for n in range(100): print('line', n)\nraise SystemExit(3)"), log=tmp_path / "log")
    message = str(caught.value)
    assert "ended with exit code 3" in message
    assert str(tmp_path / "log") in message
    assert message.endswith("line 98\nline 99")
    assert "line 84" not in message


def test_real_tool_error_shows_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"llama-quantize ended with exit code 1[\s\S]*absent\.gguf"):
        tools.run("llama-quantize", tmp_path / "absent.gguf", tmp_path / "out.gguf", "Q8_0")


def test_signal_is_named() -> None:
    with pytest.raises(ToolError, match="was ended by SIGSEGV"):
        tools.execute(python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"))


def test_what_llama_cpp_says_of_an_abort_is_the_last_line() -> None:
    aborts = """
from engines import ggml
ggml.loaded("libggml-base.so").ggml_abort(b"quants.c", 12, b"GGML_ASSERT(%s) failed", b"k % 256 == 0")
"""
    with pytest.raises(ToolError) as caught:
        tools.execute(python(aborts))
    first, *said = str(caught.value).splitlines()
    assert first.endswith("was ended by SIGABRT. It ends with:")
    assert said == ["quants.c:12: GGML_ASSERT(k % 256 == 0) failed"]


def test_timeout_stops_it() -> None:
    with pytest.raises(ToolError, match=r"was stopped after 0\.5 seconds[\s\S]*began"):
        tools.execute(python("import time; print('began', flush=True); time.sleep(60)"), timeout=0.5)


def test_a_program_that_prints_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "FLOOD", 2**20)
    with pytest.raises(ToolError, match="was stopped when it had printed 1 MiB"):
        tools.execute(python("while True: print('again and again')"), log=tmp_path / "log")


def test_program_that_cannot_be_run(tmp_path: Path) -> None:
    (tmp_path / "program").write_text("not a program")
    with pytest.raises(ToolError, match="cannot be run: Permission denied"):
        tools.execute([tmp_path / "program"])


def test_no_secret_reaches_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("SLUICE_HUB_TOKEN", "hf_secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    output = tools.execute(python("import os; print(dict(os.environ))"))
    assert "secret" not in output
    assert os.environ["PATH"] in output


def test_the_converter_keeps_the_gguf_that_came_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """gguf 0.19.0 of the Python index takes add_bos_token's word where the converter's takes the post-processor's, and this variable exchanges them."""
    monkeypatch.setenv("NO_LOCAL_GGUF", "1")
    monkeypatch.setattr(toolchain, "converter", lambda: tmp_path / "converter.py")
    (tmp_path / "converter.py").write_text("import os; print('NO_LOCAL_GGUF' in os.environ)", encoding="utf-8")
    assert tools.convert() == "False\n"


@pytest.mark.parametrize(
    ("script", "timeout", "of_the_model"),
    [
        ("raise ValueError('no such tensor')", None, True),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", None, False),
        ("import time; time.sleep(60)", 0.5, False),
        ("while True: print('again and again')", None, False),
    ],
    ids=["refuses", "killed", "too slow", "prints without end"],
)
def test_only_a_converter_that_ends_by_itself_says_something_of_the_model(
    script: str, timeout: float | None, of_the_model: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "FLOOD", 2**20)
    monkeypatch.setattr(toolchain, "converter", lambda: tmp_path / "converter.py")
    (tmp_path / "converter.py").write_text(script, encoding="utf-8")
    with pytest.raises(ToolError, match=r"^converter\.py (was|ended)") as caught:
        tools.convert(timeout=timeout)
    assert isinstance(caught.value, ConversionError) is of_the_model


def test_runs_in_the_folder_it_is_given_and_reads_no_input(tmp_path: Path) -> None:
    assert tools.execute(python("import os, sys; print(os.getcwd(), repr(sys.stdin.read()))"), cwd=tmp_path) == f"{tmp_path} ''\n"
