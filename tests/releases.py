"""Oddities that real releases bring, planted into the bundled model without its defects: a folder for each kind."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "demo" / "model"
CLEAN = ROOT / "tests" / "builders" / "data" / "clean"
GONE = object()  # as a value of `edit`: take the key away

REFUSING = (
    "{%- if messages[0]['role'] == 'system' %}{{- raise_exception('System role not supported') }}{%- endif %}{%- for message in messages %}"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{- raise_exception('Conversation roles must alternate') }}{%- endif %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def clean(out: Path) -> Path:
    """The model without planted defects, in a new folder."""
    shutil.copytree(DEMO, out, ignore=shutil.ignore_patterns("training_args.bin"))
    return Path(shutil.copytree(CLEAN, out, dirs_exist_ok=True))


def edit(file: Path, **changes: object) -> None:
    """Set keys of a JSON file."""
    content = json.loads(file.read_text(encoding="utf-8")) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not GONE}, ensure_ascii=False), encoding="utf-8")


def read(file: Path) -> dict[str, Any]:
    """A JSON file."""
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def base_model(out: Path) -> Path:
    """No chat template anywhere."""
    edit(clean(out) / "tokenizer_config.json", chat_template=GONE)
    return out


def refused_system_role(out: Path) -> Path:
    """A template that refuses system messages, and turns that do not alternate."""
    edit(clean(out) / "tokenizer_config.json", chat_template=REFUSING)
    return out


def without_tokenizer_model(out: Path) -> Path:
    """As transformers 5 saves a SentencePiece vocabulary: tokenizer.json alone, and no list of added tokens beside it."""
    (clean(out) / "tokenizer.model").unlink()
    edit(out / "tokenizer_config.json", added_tokens_decoder=GONE, add_prefix_space=GONE)
    return out


def eos_behind_every_text(out: Path) -> Path:
    """As training scripts set the tokenizer and save it."""
    edit(clean(out) / "tokenizer_config.json", add_eos_token=True)

    def part(which: str, side: int) -> list[dict[str, Any]]:
        around = [{"SpecialToken": {"id": text, "type_id": side}} for text in ("<s>", "<|im_end|>")]
        return [around[0], {"Sequence": {"id": which, "type_id": side}}, around[1]]

    special = {text: {"id": text, "ids": [number], "tokens": [text]} for text, number in (("<s>", 1), ("<|im_end|>", 4))}
    both = {"single": part("A", 0), "pair": part("A", 0) + part("B", 1)}
    edit(out / "tokenizer.json", post_processor={"type": "TemplateProcessing", **both, "special_tokens": special})
    return out


def token_beyond_embeddings(out: Path) -> Path:
    """A padding token was added for training, and the embeddings were never resized."""
    _added(clean(out), "[PAD]")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        edit(out / name, pad_token="[PAD]")
    for name in ("config.json", "generation_config.json"):
        edit(out / name, pad_token_id=2048)
    return out


def end_of_turn_beyond_embeddings(out: Path) -> Path:
    """The token that ends turns was added for training, and the embeddings were never resized; generation_config.json is still the base's."""
    _added(clean(out), "<|turn_end|>")
    template = read(out / "tokenizer_config.json")["chat_template"].replace("<|im_end|>", "<|turn_end|>")
    edit(out / "tokenizer_config.json", eos_token="<|turn_end|>", chat_template=template)
    edit(out / "special_tokens_map.json", eos_token="<|turn_end|>")
    edit(out / "config.json", eos_token_id=2048)
    edit(out / "generation_config.json", eos_token_id=2)
    return out


def _added(out: Path, text: str) -> None:
    """A token behind the last row of the embeddings."""
    entry = {"content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    edit(out / "tokenizer.json", added_tokens=[*read(out / "tokenizer.json")["added_tokens"], {"id": 2048, **entry}])
    decoder = read(out / "tokenizer_config.json")["added_tokens_decoder"]
    edit(out / "tokenizer_config.json", added_tokens_decoder={**decoder, "2048": entry})


def padded(out: Path, *, loud: bool = False) -> Path:
    """More rows in the embeddings than tokens, as makers round their number up: random ones that training never came to, or `loud`, likelier than any token."""
    weights = load_file(clean(out) / "model.safetensors")
    table = weights["model.embed_tokens.weight"]
    noise = 0.02 * torch.randn(64, table.shape[1], generator=torch.Generator().manual_seed(0))
    more = (1.5 * table.float() if loud else noise).to(table.dtype)
    save_file(weights | {"model.embed_tokens.weight": torch.cat([table, more])}, out / "model.safetensors", metadata={"format": "pt"})
    edit(out / "config.json", vocab_size=len(table) + len(more))
    return out


def head_neither_tied_nor_there(out: Path) -> Path:
    """As broken merges leave it."""
    edit(clean(out) / "config.json", tie_word_embeddings=False)
    return out


def head_copied(out: Path) -> Path:
    """As programs leave it that save each parameter by itself: a tied model with its embeddings a second time."""
    weights = load_file(clean(out) / "model.safetensors")
    save_file(weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}, out / "model.safetensors", metadata={"format": "pt"})
    return out


def head_of_its_own(out: Path) -> Path:
    """As merges leave it that trained the output matrix and forgot config.json."""
    weights = load_file(clean(out) / "model.safetensors")
    random = torch.Generator().manual_seed(0)
    head = weights["model.embed_tokens.weight"].clone()
    head[7:] *= torch.rand(len(head) - 7, 1, generator=random) + 0.5
    save_file(weights | {"lm_head.weight": head}, out / "model.safetensors", metadata={"format": "pt"})
    return out


def stale_quantization(out: Path) -> Path:
    """What merging an adapter into a 4-bit base leaves in config.json."""
    edit(clean(out) / "config.json", quantization_config={"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "quant_method": "bitsandbytes"})
    return out


def two_templates(out: Path) -> Path:
    """The template in a file of its own, and an older wording left behind."""
    template = read(clean(out) / "tokenizer_config.json")["chat_template"]
    (out / "chat_template.jinja").write_text(template, encoding="utf-8")
    edit(out / "tokenizer_config.json", chat_template="{#- older -#}" + template)
    return out


TERMS = ("LICENSE", "USE_POLICY.md", "Notice", "license.md", "Community License for Tiny Model (1).txt", "docs/legal/Terms of Use.md")


def many_terms(out: Path) -> Path:
    """Terms in several files, in any case and one of them twice, and a card with two licences, and with what the Hub warns by."""
    clean(out)
    for name in TERMS:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(f"{name}: terms.\n", encoding="utf-8")
    card = "license:\n- apache-2.0\n- mit\nlanguage: [en, de]\ndatasets: [someone/some-data]\ntags: [not-for-all-audiences, roleplay]\n"
    (out / "README.md").write_text(f"---\n{card}---\n# A model\n", encoding="utf-8")
    return out


def odd_names(out: Path) -> Path:
    """Files that no release needs, with names that no file of a release may have."""
    clean(out)
    for name in ("assets/Screenshot 2025-01-30 at 10.32.07\u202fAM.png", "eval/results_2024-05-01T10:22:11.json"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(b"{}")
    return out


def float16_original(out: Path) -> Path:
    """float16 weights with mantissas that bfloat16 cannot hold."""
    clean(out)
    random = torch.Generator().manual_seed(0)
    weights = load_file(out / "model.safetensors")
    finer = {name: (value.float() * (1 + (torch.rand(value.shape, generator=random) - 0.5) * 2**-8)).half() for name, value in weights.items()}
    save_file(finer, out / "model.safetensors", metadata={"format": "pt"})
    edit(out / "config.json", dtype="float16")
    return out


def float32_original(out: Path) -> Path:
    """float32 weights that no type of 16 bits can hold."""
    clean(out)
    random = torch.Generator().manual_seed(1)
    weights = load_file(out / "model.safetensors")
    finer = {name: value.float() * (1 + (torch.rand(value.shape, generator=random) - 0.5) * 2**-13) for name, value in weights.items()}
    save_file(finer, out / "model.safetensors", metadata={"format": "pt"})
    edit(out / "config.json", dtype="float32")
    return out


def float8_original(out: Path) -> Path:
    """8 bits with a scale for each block of 128 x 128, as Qwen3-FP8 and DeepSeek V3 are stored."""
    clean(out)
    weights = {}
    for name, value in load_file(out / "model.safetensors").items():
        weights[name] = value
        if value.ndim == 2 and "embed" not in name:
            rows, columns = value.shape
            blocks = value.float().reshape(rows // 128, 128, columns // 128, 128)
            scales = blocks.abs().amax(dim=(1, 3)) / 448.0
            weights[name] = (blocks / scales[:, None, :, None]).reshape(rows, columns).to(torch.float8_e4m3fn)
            weights[f"{name}_scale_inv"] = scales
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    packing = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}
    edit(out / "config.json", quantization_config=packing)
    return out


def in_shards(out: Path, count: int = 3) -> Path:
    """The weights in several files with their index."""
    clean(out)
    weights = load_file(out / "model.safetensors")
    (out / "model.safetensors").unlink()
    names = sorted(weights)
    where = {name: f"model-{number % count + 1:05}-of-{count:05}.safetensors" for number, name in enumerate(names)}
    for file in sorted(set(where.values())):
        save_file({name: weights[name] for name in names if where[name] == file}, out / file, metadata={"format": "pt"})
    size = sum(value.numel() * value.element_size() for value in weights.values())
    (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": where}), encoding="utf-8")
    return out


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """Change the tensors of a model in one file."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def without_architecture(out: Path) -> Path:
    """config.json written by hand, with the type of the model only."""
    edit(clean(out) / "config.json", architectures=GONE)
    return out


def ids_of_no_token(out: Path) -> Path:
    """Padding as LLaMA's first ports had it, a beginning that is a list, an end of another vocabulary, and none where transformers looks."""
    edit(clean(out) / "config.json", pad_token_id=-1, bos_token_id=[1], eos_token_id=128_001)
    edit(out / "generation_config.json", eos_token_id=None)
    return out


def base_for_transformers_5(out: Path) -> Path:
    """A base of the rotary embeddings that is no default, where transformers 4 does not look."""
    edit(clean(out) / "config.json", rope_parameters={"rope_theta": 500_000.0, "rope_type": "default"})
    return out


def tokenizer_of_transformers_5(out: Path) -> Path:
    """A class and a list that transformers 4 does not know."""
    edit(clean(out) / "tokenizer_config.json", tokenizer_class="TokenizersBackend", extra_special_tokens=["<|im_start|>"])
    return out


def two_dtypes(out: Path) -> Path:
    """As an edit of one of the two keys leaves them."""
    edit(clean(out) / "config.json", dtype="float32", torch_dtype="torch.bfloat16")
    return out


def other_sizes(out: Path) -> Path:
    """config.json of a model with other heads, and a vocabulary that was extended afterwards."""
    edit(clean(out) / "config.json", head_dim=32, vocab_size=2000)
    return out


def idle_sampling(out: Path) -> Path:
    """Figures for sampling, and nothing that turns it on."""
    edit(clean(out) / "generation_config.json", do_sample=GONE, temperature=0.6, length_penalty=0.9)
    return out


def tokenizer_of_bytes(*, digits: bool) -> dict[str, Any]:
    """The files, by name, of a vocabulary of bytes with one merge, which text cut at `digits` never makes: SmolLM's case. Its class knows no such cut."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    [(word, _)] = level.pre_tokenize_str(" ²")
    vocabulary = {character: number for number, character in enumerate([*alphabet, word[:2]])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [(word[0], word[1])]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level]) if digits else level
    return {
        "config.json": {"model_type": "llama"},
        "tokenizer.json": json.loads(tokenizer.to_str()),
        "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False},
    }


Oddity = Callable[[Path], Path]
REPAIRED: Mapping[str, Oddity] = {
    "tokenizer-model": without_tokenizer_model,
    "open-prompts": eos_behind_every_text,
    "embedded-tokens": token_beyond_embeddings,
    "tied-head": head_neither_tied_nor_there,
    "copied-head": head_copied,
    "own-head": head_of_its_own,
    "stale-quantization": stale_quantization,
    "one-template": two_templates,
    "plain-weights": float8_original,
    "architecture": without_architecture,
    "token-ids": ids_of_no_token,
    "rope-forms": base_for_transformers_5,
    "older-names": tokenizer_of_transformers_5,
    "dtype-forms": two_dtypes,
    "weight-shapes": other_sizes,
    "sampling-flags": idle_sampling,
}
"""By the rule that makes it right."""


# ---- far into a text ---------------------------------------------------------------------------------------------------------------------------

FAR = 512  # tokens after which positions are scaled


def sliding_window(out: Path) -> Path:
    """A Mistral of the first kind: attention to the last 768 tokens, for which llama.cpp's architecture has no place."""
    gone = dict.fromkeys(("attention_bias", "mlp_bias", "pretraining_tp"), GONE)
    edit(clean(out) / "config.json", architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=768, **gone)
    return out


def scaled(out: Path, kind: str, *, far: int = FAR) -> Path:
    """Positions scaled by this type of RoPE scaling from so many tokens on, to the four times longer context that the model has anyway, or is said to have."""
    others = {"llama3": {"low_freq_factor": 1.0, "high_freq_factor": 4.0}}.get(kind, {})
    rope = {"rope_type": kind, "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": far, **others}
    edit(clean(out) / "config.json", rope_parameters=rope, max_position_embeddings=4 * far)
    return out


def long_rope(out: Path, *, far: int = FAR) -> Path:
    """The model as a Phi-3, whose positions have other factors beyond so many tokens."""
    weights = load_file(clean(out) / "model.safetensors")
    fused: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        if "q_proj" in name:
            fused[name.replace("q_proj", "qkv_proj")] = torch.cat([weights[name.replace("q_proj", f"{part}_proj")] for part in "qkv"])
        elif "gate_proj" in name:
            fused[name.replace("gate_proj", "gate_up_proj")] = torch.cat([value, weights[name.replace("gate_proj", "up_proj")]])
        elif not any(part in name for part in ("k_proj", "v_proj", "up_proj")):
            fused[name] = value
    save_file(fused, out / "model.safetensors", metadata={"format": "pt"})
    factors = {"short_factor": [1.0] * 32, "long_factor": [1 + number / 8 for number in range(32)]}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": far, **factors}
    gone = dict.fromkeys(("attention_bias", "mlp_bias", "pretraining_tp", "head_dim"), GONE)
    older = {"rope_scaling": {key: value for key, value in rope.items() if key != "rope_theta"}, "rope_theta": 10000.0}  # which the converter reads
    phi = {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "sliding_window": None}
    lengths = {"original_max_position_embeddings": far, "max_position_embeddings": 4 * far}
    edit(out / "config.json", **phi, **lengths, rope_parameters=rope, **older, **gone)
    return out
