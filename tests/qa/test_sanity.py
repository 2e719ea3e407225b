import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qa import sanity
from tests.qa.conftest import DEMO, Release

PROMPTS = ["What is the capital of Belgium?", "Who are you?"]


def details(out: Path, model: Path) -> list[str]:
    measured, loops = sanity.check(out, model=model, prompts=PROMPTS, max_tokens=60, threads=1)["measurements"]
    assert (loops["name"], loops["n"]) == ("sanity.loops", 2)
    assert (measured["name"], measured["value"], measured["n"]) == ("sanity.failures", len(measured["details"]), 2)
    return list(measured["details"])


@pytest.fixture
def damaged(tmp_path: Path):
    def make(change) -> Path:
        folder = shutil.copytree(DEMO, tmp_path / "model")
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return make


def test_a_wrong_eos_alone_is_sane(clean: Release, tmp_path: Path) -> None:
    assert details(tmp_path, clean.model) == []
    assert details(tmp_path, DEMO) == []


def test_values_that_are_not_finite_are_found(damaged, tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.1.mlp.down_proj.weight"][0, 0] = torch.nan

    where = "; 1 of its tensors are not finite, among them model.safetensors: model.layers.1.mlp.down_proj.weight"
    assert details(tmp_path, damaged(change)) == [f'The model computes values that are not finite for "{prompt}"{where}' for prompt in PROMPTS]


def test_babble_is_found(damaged, tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if "layers" in name and tensor.ndim == 2:
                tensor.zero_()  # what is left repeats the last token for ever

    found = details(tmp_path, damaged(change))
    assert len(found) == 2
    assert "repeats the same token" in found[0] or "is empty" in found[0]
