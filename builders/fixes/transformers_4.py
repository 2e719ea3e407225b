"""What transformers 4.57 knows under other names than transformers 5, and takes where config.json does not say it in that version's words.

Collected from its configuration classes; tests/builders/test_transformers_4.py holds this against the library itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

VERSION = "4.57.6"

THETAS: Mapping[str, float] = {
    model_type: theta
    for theta, names in {
        10_000.0: "arcee aria_text bamba chameleon cohere cohere2 deepseek_v2 deepseek_v3 diffllama doge dots1 exaone4 falcon gemma gemma2 glm glm4 glm4_moe "
        "glm4v_moe_text glm4v_text gpt_neox gpt_neox_japanese granite granitemoe granitemoehybrid granitemoeshared hunyuan_v1_dense hunyuan_v1_moe "
        "jetmoe llama ministral mistral moshi nemotron olmo olmo2 olmo3 olmoe phi phi3 phi4_multimodal qwen2 qwen2_moe qwen3 qwen3_moe qwen3_next "
        "recurrent_gemma seed_oss stablelm starcoder2 vaultgemma zamba2",
        25_000.0: "persimmon",
        100_000.0: "falcon_h1 helium",
        150_000.0: "gpt_oss",
        500_000.0: "bitnet blt ernie4_5 ernie4_5_moe flex_olmo llama4_text mllama_text_model",
        1_000_000.0: "emu3_text_model gemma3_text gemma3n_text lfm2 minimax mixtral phimoe qwen2_5_vl_text qwen2_vl_text",
        2_000_000.0: "smollm3",
        5_000_000.0: "qwen3_vl_moe_text qwen3_vl_text",
        10_000_000.0: "longcat_flash",
        12_000_000.0: "apertus",
    }.items()
    for model_type in names.split()
}
"""The base of the rotary embeddings by model type, of those that the version knows."""

PARTIAL: Mapping[str, float] = {
    **dict.fromkeys(("bamba", "glm", "glm4", "glm4_moe", "glm4v_moe_text", "nemotron", "persimmon", "phi", "recurrent_gemma"), 0.5),
    **dict.fromkeys(("gpt_neox", "qwen3_next", "stablelm"), 0.25),
}
"""The share of each head that is rotated, where it is not all of it."""

LOCAL: Mapping[str, float] = {"gemma3_text": 10_000.0, "gemma3n_text": 10_000.0}
"""The base in layers with a sliding window, where the version knows one of their own."""

SCALINGS: Mapping[str, Mapping[str, Any]] = {
    "apertus": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "gpt_oss": {
        "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False, "original_max_position_embeddings": 4096
    },
}  # fmt: skip
"""The scaling, where it is not none."""

SECTIONS: Mapping[str, Sequence[int]] = {
    **dict.fromkeys(("qwen2_5_vl_text", "qwen2_vl_text"), (16, 24, 24)),
    **dict.fromkeys(("qwen3_vl_moe_text", "qwen3_vl_text"), (24, 20, 20)),
    **dict.fromkeys(("glm4v_moe_text", "glm4v_text"), (8, 12, 12)),
}
"""How text, rows and columns share a head where config.json does not say it: transformers 5 takes this, and transformers 4 fails."""

NAMES: Mapping[str, Mapping[str, str]] = {
    kind: {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"} for kind in ("gpt_neox", "gpt_neox_japanese")
}
"""What some types call the keys."""

THREE_FIELDS = frozenset({"phi3", "phi4_multimodal"})
"""Types whose `rope_scaling` must be `type`, `short_factor` and `long_factor`, and nothing else."""

RENAMED: Mapping[str, Mapping[str, str]] = {"qwen3_moe": {"num_local_experts": "num_experts"}}
"""By model type, keys that transformers 5 saves under another name than transformers 4 reads; transformers 5 reads both."""

LAYERS: Mapping[str, Mapping[str, str]] = {"granitemoehybrid": {"linear_attention": "mamba", "full_attention": "attention"}}
"""By model type, likewise the words of `layer_types`."""
