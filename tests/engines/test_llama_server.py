from pathlib import Path

import psutil
import pytest

from config.errors import MeasurementError, ToolError
from engines import llama, llama_server

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " héllo \n"}, {"role": "assistant", "content": ""}]


@pytest.fixture(scope="module")
def server(gguf: Path):
    with llama_server.serve(gguf, threads=1) as running:
        yield running


def test_renders_the_embedded_template_without_the_bos_that_the_tokenizer_adds(server) -> None:
    expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n héllo \n<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
    assert server.apply_template(CHAT) == expected
    assert server.apply_template(CHAT, add_generation_prompt=True) == f"{expected}<|im_start|>assistant\n"


def test_tokenizes_like_the_library(server, gguf: Path) -> None:
    text = server.apply_template(CHAT)
    with llama.open_vocabulary(gguf) as vocabulary:
        for add_special in (True, False):
            for parse_special in (True, False):
                expected = vocabulary.tokenize(text, add_special=add_special, parse_special=parse_special)
                assert server.tokenize(text, add_special=add_special, parse_special=parse_special) == expected


def test_what_it_refuses_is_said(server) -> None:
    with pytest.raises(MeasurementError, match="must contain 'content'"):
        server.apply_template([{"role": "user"}])


def test_it_is_gone_afterwards_whatever_happens(gguf: Path) -> None:
    def interrupted() -> None:
        with llama_server.serve(gguf, threads=1) as running:
            seen.append(running.log.parent)
            processes.extend(child for child in psutil.Process().children() if str(seen[0]) == child.cwd())
            raise KeyboardInterrupt

    seen: list[Path] = []
    processes: list[psutil.Process] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not seen[0].exists()
    assert [process.is_running() for process in processes] == [False]


def test_a_model_that_does_not_load_is_an_error_with_the_log(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"not a model")
    with pytest.raises(ToolError, match="invalid magic"), llama_server.serve(file, threads=1):
        pass


def test_the_temporary_folder_may_have_a_long_name(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("x" * 120)  # longer than a socket's path may be
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with llama_server.serve(gguf, threads=1) as running:
        assert running.tokenize("A", add_special=False)
