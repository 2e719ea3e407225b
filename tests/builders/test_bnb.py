"""bitsandbytes NF4 on the CPU: what is quantized, what stays, and that it loads."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes import functional
from transformers import AutoModelForCausalLM, Starcoder2Config

from builders import bnb
from builders.weights import read_header
from config.digests import content_digest
from config.errors import UpstreamError
from engines import hf

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quantized(fixed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("bnb")
    return out, bnb.quantize(out, model=fixed, threads=1)


def test_linear_layers_are_4_bit_and_the_rest_is_16_bit(quantized: tuple[Path, dict[str, Any]]) -> None:
    tensors = {tensor.name: tensor for tensor in read_header(quantized[0] / "model.safetensors")}
    assert tensors["model.embed_tokens.weight"].dtype == "BF16"
    assert tensors["model.norm.weight"].dtype == "BF16"
    projection = tensors["model.layers.0.mlp.down_proj.weight"]
    assert (projection.dtype, projection.elements) == ("U8", 256 * 768 // 2)
    assert "model.layers.0.mlp.down_proj.weight.nested_absmax" in tensors, "the scales are quantized again"
    config = json.loads((quantized[0] / "config.json").read_text())["quantization_config"]
    assert (config["bnb_4bit_quant_type"], config["bnb_4bit_use_double_quant"], config["bnb_4bit_compute_dtype"]) == ("nf4", True, "bfloat16")


def test_sizes(quantized: tuple[Path, dict[str, Any]]) -> None:
    size = (quantized[0] / "model.safetensors").stat().st_size
    assert quantized[1] == {"bytes": size, "parameters": 3_672_320, "bpw": pytest.approx(size * 8 / 3_672_320)}
    assert 4 < quantized[1]["bpw"] < 8


def test_tokenizer_template_and_generation_config_are_the_fixed_models(quantized: tuple[Path, dict[str, Any]], fixed: Path) -> None:
    names = {path.name for path in fixed.iterdir()}
    assert {path.name for path in quantized[0].iterdir()} == names
    for name in names - {"config.json", "model.safetensors"}:
        assert (quantized[0] / name).read_bytes() == (fixed / name).read_bytes()


def test_it_loads_and_answers_as_before(quantized: tuple[Path, dict[str, Any]]) -> None:
    with hf.open_model(quantized[0], threads=1) as model:
        prompt = hf.render_chat(model.tokenizer, [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True)
        answer = model.generate(model.tokenize(prompt, add_special=True), max_tokens=40, stop=[4])
        assert answer[-1] == 4
        assert "Paris" in model.detokenize(answer)


def test_config_is_the_models_own_with_what_describes_these_weights(quantized: tuple[Path, dict[str, Any]], fixed: Path) -> None:
    theirs, ours = (json.loads((folder / "config.json").read_text()) for folder in (quantized[0], fixed))
    assert {name for name in theirs if theirs[name] != ours.get(name)} == {"quantization_config", "torch_dtype"}
    assert set(ours) <= set(theirs)
    assert (theirs["dtype"], theirs["torch_dtype"]) == ("bfloat16", "bfloat16")


def test_a_model_with_biases_is_measured_in_one_type(tmp_path: Path) -> None:
    """transformers widens the biases of such a folder and not the weights of its norms, which cannot be computed with."""
    sizes = {"vocab_size": 320, "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = Starcoder2Config(**sizes, bos_token_id=1, eos_token_id=2)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(tmp_path / "made")
    (tmp_path / "nf4").mkdir()
    bnb.quantize(tmp_path / "nf4", model=tmp_path / "made", threads=1)
    network = hf.load_model(tmp_path / "nf4")
    assert {str(value.dtype) for value in network.parameters()} == {"torch.float32", "torch.uint8"}
    with torch.inference_mode():
        assert torch.isfinite(network(torch.tensor([[3, 4, 5]])).logits).all()


def test_it_is_computed_as_its_values_in_float32_are(quantized: tuple[Path, dict[str, Any]], fixed: Path, tmp_path: Path) -> None:
    """Not in bfloat16, which the folder names for whoever runs it: that rounds activations as the 16-bit model's are not when the two are compared."""
    model = hf.load_model(quantized[0])
    values = hf.load_model(fixed)
    own = dict(model.named_modules())
    for name, part in values.named_modules():
        stored: Any = own[name]
        if isinstance(part, torch.nn.Linear) and hasattr(stored.weight, "quant_state"):
            state = stored.weight.quant_state
            state.dtype = torch.float32  # what it would be rounded to otherwise
            part.weight.data = functional.dequantize_4bit(stored.weight.data, state)
    tokens = torch.arange(5, 69)[None]
    with torch.inference_mode():
        assert torch.allclose(model(tokens).logits, values(tokens).logits, atol=1e-4)
        assert not torch.allclose(model(tokens).logits, hf.load_model(fixed)(tokens).logits, atol=1e-2)


def test_the_same_again_gives_the_same_bytes(quantized: tuple[Path, dict[str, Any]], fixed: Path, tmp_path: Path) -> None:
    bnb.quantize(tmp_path, model=fixed, threads=1)
    assert content_digest(tmp_path) == content_digest(quantized[0])


def test_terms_in_a_folder_named_as_terms_are_go_with_it(fixed: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(fixed, tmp_path / "model"))
    terms = "docs/LICENSES/MIT of 2020.txt"
    (model / terms).parent.mkdir(parents=True)
    (model / terms).write_text("terms", encoding="utf-8")
    (tmp_path / "out").mkdir()
    bnb.quantize(tmp_path / "out", model=model, threads=1)
    assert (tmp_path / "out" / terms).read_text(encoding="utf-8") == "terms"


def test_a_model_that_does_not_load_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(UpstreamError, match="cannot load the fixed model for 4-bit"):
        bnb.quantize(tmp_path / "out", model=tmp_path, threads=1)
