"""Weights that are not there are told by headers alone, whatever the others are stored in, with their file and what can be done."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from builders import hollow, lacking
from builders.names import INDEX
from builders.weights import read_header, weight_files
from config.errors import UnsupportedModel, UpstreamError
from tests import releases

NAME = "model.layers.1.mlp.up_proj.weight"


def looked_at(model: Path, out: Path) -> None:
    """The model by its config.json and weight files that are all header."""
    weights, files = out / "weights", out / "files"
    for folder in (weights, files):
        folder.mkdir(parents=True)
    for file in weight_files(model):
        hollow.of(read_header(file), weights / file.name)
    if (model / INDEX).is_file():
        shutil.copyfile(model / INDEX, weights / INDEX)
    lacking.check(files, model=model, weights=weights)


def without(model: Path, name: str) -> Path:
    """The model without a tensor; what describes its files stays."""
    for file in weight_files(model):
        if name in (held := load_file(file)):
            del held[name]
            save_file(held, file, metadata={"format": "pt"})
    return model


@pytest.mark.parametrize(
    ("made", "there"),
    [
        (releases.clean, "model.safetensors lacks"),
        (releases.in_shards, "The 3 safetensors files lack"),
        (releases.float8_original, "model.safetensors lacks"),
    ],
)
def test_a_model_is_whole_until_a_matrix_is_gone(made: Callable[[Path], Path], there: str, tmp_path: Path) -> None:
    model = made(tmp_path / "model")
    looked_at(model, tmp_path / "whole")
    with pytest.raises(UpstreamError, match=rf"^{there} {re.escape(NAME)}, which the architecture that config\.json names has: .*Ask the owner"):
        looked_at(without(model, NAME), tmp_path / "lacking")


def test_a_head_may_be_meant_to_be_the_embeddings(tmp_path: Path) -> None:
    with pytest.raises(UpstreamError, match=r"^model\.safetensors lacks lm_head\.weight, .*`tie_word_embeddings` has to be true in config\.json"):
        looked_at(releases.head_neither_tied_nor_there(tmp_path / "model"), tmp_path / "looked")


def test_that_transformers_does_not_run_a_model_is_told_and_what_it_cannot_read_is_for_others_to_judge(tmp_path: Path) -> None:
    model = without(releases.clean(tmp_path / "model"), NAME)
    releases.edit(model / "config.json", num_hidden_layers="many")
    looked_at(model, tmp_path / "odd")
    releases.edit(model / "config.json", num_hidden_layers=4, model_type="unheard-of")
    with pytest.raises(UnsupportedModel, match="no code for language models of the architecture 'unheard-of'"):
        looked_at(model, tmp_path / "unheard of")
