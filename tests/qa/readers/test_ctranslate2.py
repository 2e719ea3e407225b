"""What CTranslate2 makes of positions that are stretched: the source of what config/readers.yaml says of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from builders import fixes
from qa.readers import ctranslate2, references, table
from qa.readers.words import BITS16, Result, Variant
from tests import releases

pytestmark = pytest.mark.slow

BASE = {
    "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "max_position_embeddings": 65_536, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
GEMMA = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 512, "query_pre_attn_scalar": 32}
CASES: dict[str, tuple[str, dict[str, Any], Result]] = {
    "llama": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}, Result.SAME),
    "llama3": ("llama", {"rope_parameters": {"rope_theta": 10_000.0, **LLAMA3}}, Result.OTHER),
    "gemma": (
        "gemma3_text",
        {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}, **GEMMA},
        Result.OTHER,
    ),
    "yarn": ("qwen2", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 128}}, Result.REFUSED),
}


@pytest.mark.parametrize("name", CASES)
def test_positions_that_are_stretched(name: str, tmp_path: Path) -> None:
    if why := ctranslate2.READER.missing():
        pytest.skip(why)
    kind, own, expected = CASES[name]
    clean = releases.clean(tmp_path / "clean")
    torch.manual_seed(0)
    vocabulary = json.loads((clean / "config.json").read_text())["vocab_size"]
    network = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](vocab_size=vocabulary, **BASE, **json.loads(json.dumps(own)))).to(torch.bfloat16)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(6 if parameter.ndim > 1 else 1)  # or a fresh model says nothing of positions
    network.save_pretrained(tmp_path / "made")
    for file in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json"):
        shutil.copy(clean / file, tmp_path / "made")
    (tmp_path / "fixed").mkdir()
    fixes.repair(tmp_path / "fixed", snapshot=tmp_path / "made", repo="someone/miniature", fixes=True)
    variant = Variant(tag="16bit", form=BITS16, path=tmp_path / "fixed", files=(), folder=tmp_path / "fixed", repo="someone/miniature")
    found = table.outcome(ctranslate2.READER, variant, references.of(variant, [variant]))
    assert found.result is expected, found.words
