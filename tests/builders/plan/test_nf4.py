"""Dynamic NF4: which modules stay in 16 bits, and that transformers keeps them so."""

import json
from pathlib import Path

import numpy as np
import pytest

from builders import bnb
from builders.plan import nf4
from builders.sensitivity.table import Sensitivity, Tensor
from builders.weights import read_header
from config.errors import ConfigurationError, UpstreamError
from engines import nf4 as engine


def table(types: tuple[str, ...] = ("NF4", "BF16")) -> Sensitivity:
    random = np.random.default_rng(0)
    tensors = tuple(Tensor(name=f"model.layers.{layer}.mlp.down_proj", rows=256, columns=768) for layer in range(4))
    products = np.zeros((32, 4, len(types)), dtype=np.float32)
    products[:, :, 0] = random.standard_normal((32, 4)) * np.array([1, 4, 2, 3])
    return Sensitivity(provider="fisher", tensors=tensors, types=types, products=products)


def test_the_most_sensitive_modules_stay_in_16_bits() -> None:
    small, large = engine.stored_bytes(256 * 768), 2 * 256 * 768
    assert nf4.skip(table(), capacity=4 * small) == []
    assert nf4.skip(table(), capacity=2 * small + 2 * large) == ["model.layers.1.mlp.down_proj", "model.layers.3.mlp.down_proj"]
    assert len(nf4.skip(table(), capacity=4 * large)) == 4
    with pytest.raises(ConfigurationError, match="smallest allowed types need"):
        nf4.skip(table(), capacity=4 * small - 1)
    with pytest.raises(ConfigurationError, match="needs sensitivities of the types NF4, BF16; given are Q4_K, BF16"):
        nf4.skip(table(("Q4_K", "BF16")), capacity=10**9)


def test_values_come_back_close_to_what_they_were() -> None:
    values = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    back = engine.roundtrip(values)
    assert back.shape == values.shape
    assert 0.003 < ((back - values) ** 2).mean() < 0.02  # 4 bits of normally distributed values: at best 0.0095, with a scale for each 64 a little more


@pytest.mark.slow
def test_skipped_modules_are_stored_in_16_bits_and_load(fixed: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    bnb.quantize(tmp_path, model=fixed, threads=1, skip=["model.layers.1.mlp.down_proj"])
    stored = {tensor.name: tensor for tensor in read_header(tmp_path / "model.safetensors")}
    kept = [stored[f"model.layers.{layer}.mlp.down_proj.weight"].dtype for layer in range(2)]
    assert (kept, stored["model.embed_tokens.weight"].dtype) == (["U8", "BF16"], "BF16")
    name = "model.layers.0.mlp.down_proj.weight"
    size = sum(tensor.bytes for key, tensor in stored.items() if key.startswith(name))
    assert size == pytest.approx(engine.stored_bytes(256 * 768), abs=100)
    config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert set(config["llm_int8_skip_modules"]) >= {"model.layers.1.mlp.down_proj", "lm_head"}
    model = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert model.model.layers[1].mlp.down_proj.weight.dtype == torch.bfloat16
    with pytest.raises(UpstreamError, match=r"model\.layers\.9"):
        bnb.quantize(tmp_path, model=fixed, threads=1, skip=["model.layers.9.mlp.down_proj"])
