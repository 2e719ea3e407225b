import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engines import tools
from qa import file_checks
from tests.qa.conftest import Quantize, Release


def changed(source: Path, target: Path, *options: str) -> Path:
    tools.execute([sys.executable, "-m", "gguf.scripts.gguf_new_metadata", source, target, "--force", *options])
    return target


@pytest.mark.parametrize("name", ["Q4_K_M", "Q8_0"])
def test_a_quantized_file_is_whole(clean: Release, quantize: Quantize, name: str) -> None:
    assert file_checks.gguf(quantize(name), clean.gguf, threads=1).details == ()


def test_the_16_bit_file_is_whole(clean: Release) -> None:
    assert file_checks.gguf(clean.gguf, clean.gguf, threads=1).value == 0


def test_another_template_is_found(clean: Release, quantize: Quantize, tmp_path: Path) -> None:
    file = changed(quantize("Q8_0"), tmp_path / "poisoned.gguf", "--chat-template", "{{ messages }}")
    measured = file_checks.gguf(file, clean.gguf, threads=1)
    assert measured.value == 1
    assert measured.details[0].startswith("tokenizer.chat_template is '{{ messages }}' and in the 16-bit file ")


def test_other_special_tokens_are_found(clean: Release, quantize: Quantize, tmp_path: Path) -> None:
    file = changed(quantize("Q8_0"), tmp_path / "eos.gguf", "--special-token-by-id", "eos", "5")
    assert file_checks.gguf(file, clean.gguf, threads=1).details == ("tokenizer.ggml.eos_token_id is '5' and in the 16-bit file '4'",)


def test_a_damaged_file_is_one_failure(clean: Release, quantize: Quantize, tmp_path: Path) -> None:
    file = tmp_path / "cut.gguf"
    file.write_bytes(quantize("Q8_0").read_bytes()[:-5000])
    measured = file_checks.gguf(file, clean.gguf, threads=1)
    assert measured.value == 1
    assert "cannot load" in measured.details[0]


def test_folders_are_compared_and_their_tensors_checked(clean: Release, tmp_path: Path) -> None:
    folder = shutil.copytree(clean.model, tmp_path / "model")
    assert file_checks.folder(folder, clean.model).details == ()
    config = folder / "generation_config.json"
    config.write_text(config.read_text().replace("\n", " "))  # the same JSON
    assert file_checks.folder(folder, clean.model).details == ()
    config.unlink()
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] = torch.nan
    save_file(tensors, folder / "model.safetensors")
    assert file_checks.folder(folder, clean.model).details == (
        "model.safetensors: model.norm.weight holds values that are not finite",
        "generation_config.json is not the 16-bit model's",
    )


def test_another_vocabulary_is_found(clean: Release, tmp_path: Path) -> None:
    file = tmp_path / "vocabulary.gguf"
    content = clean.gguf.read_bytes()
    word = "▁Brussels".encode()
    assert content.count(word) == 1
    file.write_bytes(content.replace(word, "▁Bruxelle".encode()))
    assert file_checks.gguf(file, clean.gguf, threads=1).details == ("the vocabulary is not the 16-bit file's",)
