"""A release cannot begin with a model that holds its language model where transformers does not look; that alone can be had of an omni model."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from builders import beginning, fixes
from config.errors import UpstreamError
from engines import hf
from tests import omni, releases

DOCS = Path(__file__).parents[2] / "docs" / "architectures.md"
OMNI = {  # as it is published, in part
    "architectures": ["Qwen2_5OmniModel"],
    "enable_audio_output": True,
    "enable_talker": True,
    "model_type": "qwen2_5_omni",
    "talker_config": {"architectures": ["Qwen2OmniTalkerForConditionalGeneration"], "model_type": "qwen2_5_omni_talker", "hidden_size": 896},
    "thinker_config": {
        "architectures": ["Qwen2OmniNaViTThinkerForConditionalGeneration"],
        "audio_config": {"model_type": "qwen2_5_omni_audio_encoder", "d_model": 1280},
        "model_type": "qwen2_5_omni_thinker",
        "text_config": {"model_type": "qwen2_5_omni_text", "hidden_size": 3584, "rope_scaling": {"mrope_section": [16, 24, 24], "type": "default"}},
        "vision_config": {"model_type": "qwen2_5_omni_vision_encoder", "depth": 32},
    },
    "token2wav_config": {"model_type": "qwen2_5_omni_token2wav", "dit_config": {"model_type": "qwen2_5_omni_dit"}},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "Qwen2.5-Omni": (OMNI, "thinker_config"),
    "its tune": (OMNI | {"architectures": ["Qwen2_5OmniForConditionalGeneration"], "enable_audio_output": False}, "thinker_config"),
    "Qwen3-Omni": (
        {
            "architectures": ["Qwen3OmniMoeForConditionalGeneration"],
            "model_type": "qwen3_omni_moe",
            "code2wav_config": {"model_type": "", "hidden_size": 1024},
            "talker_config": {"model_type": "qwen3_omni_moe_talker", "text_config": {"model_type": "qwen3_omni_moe_talker_text"}},
            "thinker_config": {"model_type": "qwen3_omni_moe_thinker", "text_config": {"model_type": "qwen3_omni_moe_text", "num_experts": 128}},
        },
        "thinker_config",
    ),
    "InternVL": (
        {
            "architectures": ["InternVLChatModel"],
            "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
            "llm_config": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"},
            "model_type": "internvl_chat",
            "vision_config": {"architectures": ["InternVisionModel"], "model_type": "intern_vit_6b"},
        },
        "llm_config",
    ),
    "DeepSeek-VL 2": (
        {
            "architectures": ["DeepseekVLV2ForCausalLM"],
            "candidate_resolutions": [[384, 384]],
            "language_config": {"architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2"},
            "model_type": "deepseek_vl_v2",
            "vision_config": {"model_type": "vision"},
        },
        "language_config",
    ),
    "Mamba": ({"d_model": 768, "n_layer": 24, "ssm_cfg": {"layer": "Mamba2"}, "vocab_size": 50277}, "ssm_cfg"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_language_model_that_transformers_does_not_find_is_refused_and_told_where_to_look(name: str) -> None:
    config, section = REFUSED[name]
    said = beginning.refusal(config, {})
    assert said is not None
    assert f"`{section}` in config.json" in said
    assert ("docs/architectures.md" in said, "-hf" in said) == ((True, False) if section == "thinker_config" else (False, True))
    assert f"| `{section}`" in (documented := DOCS.read_text(encoding="utf-8")) or f"`, `{section}`" in documented


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"},
        {"architectures": ["Qwen2_5OmniThinkerForConditionalGeneration"], "model_type": "qwen2_5_omni_thinker", "text_config": {}},
        {"architectures": ["InternVLForConditionalGeneration"], "model_type": "internvl", "text_config": {"model_type": "qwen2"}, "vision_config": {}},
        {"architectures": ["UnlimitedOCRForCausalLM"], "model_type": "unlimited_ocr", "language_config": {"hidden_size": 1280}},
        {"architectures": ["NemotronH_Nano_Omni_Reasoning_V3"], "model_type": "nemotron_h_omni", "llm_config": {"model_type": "nemotron_h"}},
        {"architectures": ["MambaForCausalLM"], "d_model": 768, "hidden_size": 768, "model_type": "mamba", "n_layer": 24, "ssm_cfg": {}, "vocab_size": 50280},
        {"architectures": ["Own"], "model_type": "of-tomorrow", "llm_config": None},
    ],
)
def test_what_transformers_finds_is_let_through(config: dict[str, Any]) -> None:
    assert beginning.refusal(config, {}) is None


def test_of_no_other_model_transformers_looks_there() -> None:
    """By the sources of configurations: the sections that they name, of model types that are loaded as language models or with images."""
    models, found = Path(transformers.__file__).with_name("models"), set()
    for file in models.glob("*/configuration_*.py"):
        source = file.read_text(encoding="utf-8")
        sections = {section for section in beginning.ELSEWHERE if re.search(rf"\b{section}\b", source)}
        found |= {(kind, section) for kind in re.findall(r'model_type = "(\w+)"', source) if kind in hf.KNOWN for section in sections}
    assert {(kind, section) for kind, section in found if section != beginning.OMNI} == beginning.READ


@pytest.mark.parametrize("name", omni.MODELS)
def test_repairs_end_where_the_language_model_is_elsewhere(name: str, tmp_path: Path) -> None:
    made = omni.MODELS[name](tmp_path / "omni")
    with pytest.raises(
        UpstreamError, match=r"^makers/omni is an omni model: its language model \(`thinker_config` in config\.json\) stands beside one that speaks"
    ):
        fixes.repair(tmp_path, snapshot=made, repo="makers/omni", fixes=True)
    said = r"^makers/other describes its language model as `llm_config` in config\.json, where transformers \(.*\) does not look, .*`-hf`\.$"
    with pytest.raises(UpstreamError, match=said):
        fixes.repair(tmp_path, snapshot=omni.elsewhere(releases.clean(tmp_path / "other"), "llm_config"), repo="makers/other", fixes=True)


@pytest.mark.parametrize("name", omni.MODELS)
def test_the_lines_of_the_docs_write_a_language_model_that_answers_alike(name: str, tmp_path: Path) -> None:
    made, out, model = omni.MODELS[name](tmp_path / "omni"), tmp_path / "out", tmp_path / "model"
    section = DOCS.read_text(encoding="utf-8").partition("\n## Language models within others\n")[2]
    (lines,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    subprocess.run([sys.executable, "-c", lines, made, out], check=True)
    before, after = load_file(made / "model.safetensors"), load_file(out / "model.safetensors")
    assert all(torch.equal(value, before[f"thinker.{key}"]) for key, value in after.items())
    assert not [key for key in after if any(part in key for part in ("talker", "visual", "audio"))]

    model.mkdir()
    fixes.repair(model, snapshot=out, repo="makers/text", fixes=True)
    hf.require_all(model)
    tokens = torch.arange(3, 67)[None]
    with torch.inference_mode():
        torch.testing.assert_close(hf.load_model(model)(tokens).logits, omni.thinker(made).eval()(tokens).logits, rtol=0, atol=1e-5)
