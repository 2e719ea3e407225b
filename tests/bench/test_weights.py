"""Weights are taken off their grid without changing what a layer computes, and a tensor that nobody knows is no model's."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from bench.models import weights
from builders.rebuilt.architectures import ARCHITECTURES
from config.errors import ToolError
from engines.model import Floats
from service.release.shapes import Model

MODEL = Model(layers=1, hidden=32, wide=64, vocabulary=8, heads=4, groups=2, width=8)


def layer() -> dict[str, Floats]:
    random = np.random.default_rng(0)
    rows = {"attn_q": 32, "attn_k": 16, "attn_v": 16, "attn_output": 32, "ffn_gate": 64, "ffn_up": 64}
    shapes = {name: (count, 32) for name, count in rows.items()} | {"ffn_down": (32, 64), "attn_norm": (32,), "ffn_norm": (32,)}
    drawn = {f"blk.0.{name}.weight": random.normal(size=shape) for name, shape in shapes.items()} | {"token_embd.weight": random.normal(size=(8, 32))}
    return {name: values.astype(np.float32) for name, values in drawn.items()}


def products(found: dict[str, Floats]) -> list[Floats]:
    """What a layer computes of its weights whatever enters."""
    at = {name.removeprefix("blk.0.").removesuffix(".weight"): values for name, values in found.items()}
    q, k, v = (at[part] * at["attn_norm"] for part in ("attn_q", "attn_k", "attn_v"))
    through = [at["attn_output"][:, 8 * head : 8 * head + 8] @ v[8 * group : 8 * group + 8] for head, group in enumerate((0, 0, 1, 1))]
    return [q, k, *through, at["ffn_gate"] * at["ffn_norm"], at["ffn_down"] @ (at["ffn_up"] * at["ffn_norm"])]


def test_the_function_stays_the_same_and_no_weight_does() -> None:
    before, after = layer(), layer()
    weights.take_off_grid(after, MODEL)
    for one, other in zip(products(before), products(after), strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-4)
    assert all((values != before[name]).mean() > 0.99 for name, values in after.items())
    assert np.abs(after["token_embd.weight"] - before["token_embd.weight"]).max() < 0.5 * 4 / 127


@pytest.mark.parametrize("parts", [ARCHITECTURES["llama"].layer, ARCHITECTURES["gemma3"].layer])
@pytest.mark.parametrize("name", ["rope_freqs.weight", "blk.0.attn_sinks.weight", "blk.0.attn_q.bias"])
def test_a_tensor_that_the_model_does_not_have_is_told(parts: dict[str, str], name: str, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=rf"odd\.gguf holds a tensor {name}, which this model does not have"):
        weights.save(tmp_path, layer() | {name: np.ones(1, dtype=np.float32)}, parts, tmp_path / "odd.gguf")
    weights.save(tmp_path, layer(), parts, tmp_path / "sound.gguf")
    assert {"model.embed_tokens.weight", f"model.layers.0.{parts['ffn_norm']}.weight"} < load_file(tmp_path / "model.safetensors").keys()
