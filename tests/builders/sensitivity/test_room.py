"""How much memory a pass takes: the formula against what the kernel counts, and what follows from it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from builders.sensitivity import measure, room
from config.errors import UnsupportedModel
from engines import hf, quantizable
from tests.builders.conftest import DATA

ROOT = Path(__file__).parents[3]
PROGRAM = Path(__file__).with_name("memory_of_a_pass.py")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SHAPE = room.Shape(outside=1000, layers=(500,) * 8, largest=600, vocabulary=50, hidden=10, wide=40)


@pytest.fixture(scope="module", params=[{"hidden": 512, "vocabulary": 4000}, {"hidden": 256, "vocabulary": 32_000}], ids=["layers", "vocabulary"])
def folder(request, tmp_path_factory):
    """A model with random weights: the figures are of memory alone."""
    out = tmp_path_factory.mktemp("random")
    hidden = request.param["hidden"]
    sizes = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_hidden_layers": 8, "vocab_size": request.param["vocabulary"]}
    config = transformers.LlamaConfig(**sizes, num_attention_heads=8, num_key_value_heads=4, tie_word_embeddings=True)
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("way", ["streamed", "whole"])
@pytest.mark.parametrize(("context", "dtype"), [(128, "float32"), (512, "float32"), (128, "bfloat16")])  # a processor may need minutes for the fourth
def test_the_formula_is_what_a_pass_takes(folder, way, context, dtype):
    command = [sys.executable, PROGRAM, ROOT / "demo/model", folder, str(context), way, dtype]
    stated = room.needed(room.shape(hf.outline(folder), torch.bfloat16, DTYPES[dtype]), context=context, streamed=way == "streamed", homes=True)
    at_once = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**16)}  # else glibc keeps what is freed, now more of it and now less
    taken = int(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=at_once).stdout)
    assert 0.7 * stated - 2**24 < taken < stated


def test_what_is_counted(folder):
    config = hf.outline(folder).config
    about = room.shape(hf.outline(folder), torch.bfloat16, torch.float32)
    assert about.parameters == sum(parameter.numel() for parameter in hf.load_model(folder).parameters())
    assert (len(about.layers), about.hidden, about.wide, about.vocabulary) == (8, config.hidden_size, 4 * config.hidden_size, config.vocab_size)


def test_experts_that_a_token_reaches_count():
    assert room.shape(hf.outline(ROOT / "bench/models/mixtral"), torch.bfloat16, torch.float32).wide == 2 * 512


def test_the_whole_model_is_kept_while_that_takes_no_more_passes():
    sums = 20 * SHAPE.parameters
    whole = room.needed(SHAPE, context=4, streamed=False, homes=True)
    streamed = room.needed(SHAPE, context=4, streamed=True, homes=True)
    assert room.room(SHAPE, context=4, memory=whole + sums, homes=True, sums=sums) == room.Room(streamed=False, free=sums)
    least = streamed + room.SAMPLED * SHAPE.largest
    assert least < whole
    assert room.room(SHAPE, context=4, memory=least, homes=True, sums=sums) == room.Room(streamed=True, free=room.SAMPLED * SHAPE.largest)
    with pytest.raises(UnsupportedModel, match=f"5,000 parameters, so sensitivities need {least:,} bytes .* and {least - 1:,} are there"):
        room.room(SHAPE, context=4, memory=least - 1, homes=True)


def test_a_gpu_does_not_hold_what_waits_at_home():
    difference = room.needed(SHAPE, context=4, streamed=True, homes=True) - room.needed(SHAPE, context=4, streamed=True, homes=False)
    assert difference == 2 * sum(SHAPE.layers)


def test_a_processor_computes_in_float32_and_a_gpu_as_weights_are_stored():
    for stored, on, dtype in (
        (torch.bfloat16, "cpu", torch.float32),
        (torch.bfloat16, "cuda", torch.bfloat16),
        (torch.float16, "cuda", torch.float32),
        (torch.float32, "cuda", torch.float32),
    ):
        assert room.working(stored, torch.device(on)) is dtype


def test_a_streamed_pass_gives_the_same_table_and_hessians(fixed, gguf, imatrix, tmp_path, monkeypatch):
    """With little memory, layers are streamed and tensors come in groups; only the order of sums differs."""
    monkeypatch.setattr(measure, "FIRST", 2)
    monkeypatch.setattr(quantizable, "KEPT", (*quantizable.KEPT, "ffn", "token_embd", "attn_q", "attn_k", "attn_output"))
    given = {"model": fixed, "gguf": gguf, "imatrix": imatrix, "chat": [DATA / "calibration.jsonl"], "plain": [], "tokens": 256, "context": 128, "threads": 1}
    about = room.shape(hf.outline(fixed), torch.bfloat16, room.working(torch.bfloat16, torch.device("cpu")))
    tight = room.needed(about, context=128, streamed=True, homes=True) + room.SAMPLED * about.largest
    assert room.room(about, context=128, memory=tight, homes=True, sums=10**9).streamed
    results = {}
    for name, memory in {"tight": tight, "ample": None}.items():
        (tmp_path / name).mkdir()
        results[name] = measure.by_gradients(tmp_path / name, **given, memory=memory, rounding=True)
    assert results["ample"]["groups"] == 1
    for file in ("products.npy", "activations.npy", "hessian-blk.1.attn_v.weight.npy"):
        tight, ample = (np.load(tmp_path / name / file) for name in ("tight", "ample"))
        assert np.nanmax(np.abs(ample)) > 0
        np.testing.assert_allclose(tight, ample, rtol=1e-3, atol=1e-5)
