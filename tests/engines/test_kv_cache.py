"""The reckoned size of a conversation's memory beside what llama.cpp itself says that it makes."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from engines.kv_cache import cache_bytes, context_length

WORDS = 64
CLOSE = 0.005  # llama.cpp says MiB with two decimals, so that the two agree within half a per cent


# as llama-cli and llama-server open a model for one conversation; in a process of its own, for the log is the library's and one for all
OPEN = """
import sys
import llama_cpp as c

@c.llama_log_callback
def say(level, text, data):
    sys.stdout.write(text.decode())

c.llama_log_set(say, None)
model = c.llama_model_load_from_file(sys.argv[1].encode(), c.llama_model_default_params())
settings = c.llama_context_default_params()
settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_seq_max, settings.swa_full = int(sys.argv[2]), 2048, 512, 1, False
assert c.llama_init_from_model(model, settings)
"""


def told(path: Path, tokens: int) -> int:
    """What llama.cpp says that it keeps for so many tokens: of all its caches, in bytes."""
    done = subprocess.run([sys.executable, "-c", OPEN, path, str(tokens)], capture_output=True, text=True, check=False, timeout=60)
    found = re.findall(r"(?:llama_kv_cache|llama_memory_recurrent): size = +([\d.]+) MiB", done.stdout)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return round(sum(map(float, found)) * 2**20)


class Model:
    """A GGUF file of an architecture with tensors of zeros."""

    def __init__(self, path: Path, arch: str, layers: int, width: int, **keys: int | float) -> None:
        self.path, self.layers, self.width = path, layers, width
        self.writer = gguf.GGUFWriter(str(path), arch)
        self.writer.add_block_count(layers)
        self.writer.add_context_length(32768)
        self.writer.add_embedding_length(width)
        for name, value in {"feed_forward_length": width, "attention_layer_norm_rms_epsilon": 1e-6, **keys}.items():
            key = f"{arch}.{re.sub('^(attention|ssm|rope)_', lambda found: found[1] + '.', name)}"
            self.writer.add_float32(key, value) if isinstance(value, float) else self.writer.add_uint32(key, value)
        self.writer.add_tokenizer_model("gpt2")
        self.writer.add_tokenizer_pre("gpt-2")
        self.writer.add_token_list([f"t{number}" for number in range(WORDS)])
        self.writer.add_token_types([1] * WORDS)
        self.writer.add_token_merges(["t 0"])
        self.zeros("token_embd.weight", WORDS, width)
        self.zeros("output_norm.weight", width)
        self.zeros("output.weight", WORDS, width)

    def zeros(self, name: str, *shape: int) -> None:
        self.writer.add_tensor(name, np.zeros(shape, dtype=np.float32))

    def write(self, tensors: Callable[[int], dict[str, tuple[int, ...]]]) -> Path:
        for layer in range(self.layers):
            for name, shape in tensors(layer).items():
                self.zeros(f"blk.{layer}.{name}", *shape)
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()
        return self.path


def feed_forward(width: int) -> dict[str, tuple[int, ...]]:
    return {"ffn_norm.weight": (width,), **{f"ffn_{name}.weight": (width, width) for name in ("gate", "up", "down")}}


def grouped(path: Path) -> tuple[Path, dict[str, Any]]:
    """Llama's grouped keys and values, with heads wider than the hidden size says."""
    model = Model(path, "llama", 3, 64, attention_head_count=4, attention_head_count_kv=2, attention_key_length=32, attention_value_length=32)
    made = model.write(
        lambda _: {"attn_norm.weight": (64,), "attn_q.weight": (128, 64), "attn_k.weight": (64, 64), "attn_v.weight": (64, 64), "attn_output.weight": (64, 128)}
        | feed_forward(64)
    )  # fmt: skip
    return made, {"model_type": "llama", "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "hidden_size": 64}


def windows(path: Path) -> tuple[Path, dict[str, Any]]:
    """Gemma 3: five layers with a window, then one that sees all."""
    keys = {"attention_head_count": 2, "attention_head_count_kv": 1, "attention_key_length": 64, "attention_value_length": 64, "attention_sliding_window": 512}
    norms = {f"{name}.weight": (64,) for name in ("attn_norm", "post_attention_norm", "post_ffw_norm", "attn_q_norm", "attn_k_norm")}
    made = Model(path, "gemma3", 7, 64, **keys).write(
        lambda _: norms
        | {"attn_q.weight": (128, 64), "attn_k.weight": (64, 64), "attn_v.weight": (64, 64), "attn_output.weight": (64, 128)} | feed_forward(64)
    )  # fmt: skip
    text = {"model_type": "gemma3_text", "num_hidden_layers": 7, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64, "sliding_window": 512}
    return made, {"model_type": "gemma3", "text_config": text}


def latent(path: Path) -> tuple[Path, dict[str, Any]]:
    """DeepSeek's latent attention."""
    keys: dict[str, int | float] = {
        "attention_head_count": 2, "attention_head_count_kv": 1, "attention_key_length": 264, "attention_value_length": 256, "attention_key_length_mla": 24,
        "attention_value_length_mla": 16, "attention_kv_lora_rank": 256, "attention_q_lora_rank": 16, "rope_dimension_count": 8, "leading_dense_block_count": 3,
        "expert_feed_forward_length": 64, "expert_shared_count": 1, "expert_count": 2, "expert_used_count": 1, "expert_weights_scale": 1.0, "vocab_size": WORDS,
    }  # fmt: skip
    made = Model(path, "deepseek2", 3, 64, **keys).write(
        lambda _: {
            "attn_norm.weight": (64,), "attn_kv_a_norm.weight": (256,), "attn_q_a_norm.weight": (16,), "attn_q_a.weight": (16, 64),
            "attn_q_b.weight": (48, 16), "attn_kv_a_mqa.weight": (264, 64), "attn_k_b.weight": (2, 256, 16), "attn_v_b.weight": (2, 16, 256),
            "attn_output.weight": (64, 32),
        } | feed_forward(64)
    )  # fmt: skip
    return made, {"model_type": "deepseek_v3", "num_hidden_layers": 3, "num_attention_heads": 2, "kv_lora_rank": 256, "qk_rope_head_dim": 8, "hidden_size": 64}


def states(path: Path) -> tuple[Path, dict[str, Any]]:
    """Mamba, which keeps a state and no keys."""
    keys = {"ssm_conv_kernel": 4, "ssm_inner_size": 1024, "ssm_state_size": 64, "ssm_time_step_rank": 4, "attention_head_count": 0}
    made = Model(path, "mamba", 4, 512, **keys).write(
        lambda _: {
            "attn_norm.weight": (512,), "ssm_in.weight": (2048, 512), "ssm_conv1d.weight": (1024, 4), "ssm_conv1d.bias": (1024,), "ssm_x.weight": (132, 1024),
            "ssm_dt.weight": (1024, 4), "ssm_dt.bias": (1024,), "ssm_a": (1024, 64), "ssm_d": (1024,), "ssm_out.weight": (512, 1024),
        }
    )  # fmt: skip
    return made, {"model_type": "mamba", "num_hidden_layers": 4, "hidden_size": 512, "expand": 2, "state_size": 64, "conv_kernel": 4}


def grouped_states(path: Path) -> tuple[Path, dict[str, Any]]:
    """Mamba 2."""
    keys = {
        "ssm_conv_kernel": 4, "ssm_inner_size": 1024, "ssm_state_size": 64, "ssm_time_step_rank": 16, "ssm_group_count": 2, "attention_head_count": 0,
    }  # fmt: skip
    made = Model(path, "mamba2", 4, 512, **keys).write(
        lambda _: {
            "attn_norm.weight": (512,), "ssm_in.weight": (2320, 512), "ssm_conv1d.weight": (1280, 4), "ssm_conv1d.bias": (1280,), "ssm_dt.bias": (16,),
            "ssm_a": (16, 1), "ssm_d": (16, 1), "ssm_norm.weight": (2, 512), "ssm_out.weight": (512, 1024),
        }
    )  # fmt: skip
    return made, {"model_type": "mamba2", "num_hidden_layers": 4, "hidden_size": 512, "expand": 2, "state_size": 64, "conv_kernel": 4, "n_groups": 2}


def delta_nets(path: Path) -> tuple[Path, dict[str, Any]]:
    """Qwen3.5: three gated delta nets, then one layer of attention."""
    keys = {
        "attention_head_count": 2, "attention_head_count_kv": 1, "attention_key_length": 32, "attention_value_length": 32, "ssm_conv_kernel": 4,
        "ssm_inner_size": 512, "ssm_state_size": 128, "ssm_time_step_rank": 4, "ssm_group_count": 2, "full_attention_interval": 4, "rope_dimension_count": 16,
    }  # fmt: skip
    shared = {"attn_norm.weight": (64,), "post_attention_norm.weight": (64,), **{f"ffn_{name}.weight": (64, 64) for name in ("gate", "up", "down")}}
    attention = {
        "attn_q.weight": (128, 64), "attn_k.weight": (32, 64), "attn_v.weight": (32, 64), "attn_output.weight": (64, 64), "attn_q_norm.weight": (32,),
        "attn_k_norm.weight": (32,),
    }  # fmt: skip
    net = {
        "attn_qkv.weight": (1024, 64), "attn_gate.weight": (512, 64), "ssm_conv1d.weight": (1024, 4), "ssm_dt.bias": (4,), "ssm_a": (4,),
        "ssm_beta.weight": (4, 64), "ssm_alpha.weight": (4, 64), "ssm_norm.weight": (128,), "ssm_out.weight": (64, 512),
    }  # fmt: skip
    model = Model(path, "qwen35", 8, 64, **keys)
    model.writer.add_array("qwen35.rope.dimension_sections", [2, 3, 3, 0])
    made = model.write(lambda layer: shared | (attention if layer % 4 == 3 else net))
    text = {
        "model_type": "qwen3_5_text", "num_hidden_layers": 8, "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 32, "linear_num_key_heads": 2, "linear_key_head_dim": 128, "linear_num_value_heads": 4,
        "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4,
    }  # fmt: skip
    return made, {"model_type": "qwen3_5", "text_config": text}


@pytest.mark.parametrize("make", [grouped, windows, latent, states, grouped_states, delta_nets], ids=lambda make: make.__name__)
@pytest.mark.parametrize("tokens", [1000, 8192])
def test_llama_cpp_says_the_same(tmp_path: Path, make: Callable[[Path], tuple[Path, dict[str, Any]]], tokens: int) -> None:
    path, config = make(tmp_path / "model.gguf")
    assert cache_bytes(config, tokens) == pytest.approx(told(path, tokens), rel=CLOSE)


def test_a_real_model_of_known_size() -> None:
    llama = {"model_type": "llama", "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096, "sliding_window": 4096}
    assert cache_bytes(llama, 8192) == 2**30, "1 GiB at 8k for Llama 3 8B; and a window that llama.cpp does not use counts for nothing"
    assert cache_bytes(llama, 1) == cache_bytes(llama, 256), "caches are whole blocks of 256 tokens"


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"num_hidden_layers": -4, "num_attention_heads": 2, "hidden_size": 64},
        {"num_hidden_layers": True},
        {"num_hidden_layers": "32"},
        {"num_hidden_layers": 2, "num_attention_heads": 0, "hidden_size": 64},
        {"num_hidden_layers": 2, "num_attention_heads": float("nan"), "hidden_size": 64},
        {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 64, "layer_types": ["full_attention", "something_new"]},
        {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 64, "layer_types": ["full_attention", "mamba"]},
        {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 64, "layer_types": [["mamba"], {}]},
        {"num_hidden_layers": 32, "num_attention_heads": 2, "hidden_size": 64, "attn_layer_period": 8},
    ],
)
def test_where_config_json_does_not_tell_nothing_is_claimed(config: dict[str, Any]) -> None:
    assert cache_bytes(config, 8192) is None


def test_the_context_is_read_wherever_it_stands() -> None:
    assert context_length({"max_position_embeddings": 2048}) == 2048
    assert context_length({"text_config": {"max_position_embeddings": 131072}, "max_position_embeddings": 7}) == 131072
    assert context_length({"n_positions": 1024}) == 1024
    assert context_length({"max_position_embeddings": "many"}) is None
