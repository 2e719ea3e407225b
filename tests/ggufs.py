"""Models that are there as a GGUF file in 16 bits alone: miniatures as llama.cpp's converter writes them, and files with the vocabularies that it collects."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter, TokenType

from builders import convert, fixes
from engines import toolchain, tools
from tests import architectures, predicting, releases

LAYERS, WIDTH, HEADS, KEYS, WIDE, CONTEXT = 2, 32, 4, 2, 64, 512
ROPE = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 512}


def converted(name: str, out: Path, **changes: Any) -> tuple[Path, Path]:
    """The snapshot of a miniature with these changes of its config.json, as rules leave it, and the GGUF file alone in a folder with a card and terms."""
    return made(architectures.MODELS[name], out, **changes)


def made(make: architectures.Make, out: Path, **changes: Any) -> tuple[Path, Path]:
    """The same of a model that is in no table."""
    snapshot = make(out / "snapshot")
    releases.edit(snapshot / "config.json", **changes)
    (out / "model").mkdir()
    fixes.repair(out / "model", snapshot=snapshot, repo="makers/miniature", fixes=True)
    return out / "model", alone(out / "model", out / "alone")


def phi_of_bytes(out: Path) -> Path:
    """A miniature as Phi-4 is when transformers 5 has saved it: a vocabulary of bytes, and a class of the tokenizer that says nothing of it."""
    tokenizer = predicting.byte_level(out)
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer)}
    architectures.saved("Phi3", out, architectures.sizes(**{**ids, "hidden_size": 32}))
    releases.edit(out / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    return out


def alone(model: Path, out: Path) -> Path:
    """A folder with nothing but the model's GGUF file, a card and terms."""
    out.mkdir()
    convert.convert(out, model=model, name="miniature")
    (out / "README.md").write_text("---\nlicense: mit\nbase_model: makers/miniature\n---\n# A miniature in GGUF\n", encoding="utf-8")
    (out / "LICENSE").write_text("Do what you like.", encoding="utf-8")
    return out


def file(folder: Path) -> str:
    """The name of the GGUF file in a folder."""
    (found,) = folder.glob("*.gguf")
    return found.name


def sources(*paths: str) -> list[dict[str, str]]:
    """The parameter of `rebuild` that names files."""
    return [{"path": path, "sha256": "0" * 64} for path in paths]


def split(folder: Path) -> list[str]:
    """Divide the file in a folder into parts, as llama.cpp does; their names."""
    whole = folder / file(folder)
    tools.run("llama-gguf-split", "--split", "--split-max-tensors", "8", whole, folder / whole.stem)
    whole.unlink()
    return sorted(path.name for path in folder.glob("*.gguf"))


def rewritten(source: Path, target: Path, *, without: Iterable[str] = (), tensors: Mapping[str, Any] | None = None, **said: Any) -> Path:
    """A copy of a GGUF file with other fields, by key without the dots (`llama__rope__freq_base`), and other tensors."""
    reader = GGUFReader(source)
    changed = {key.replace("__", "."): value for key, value in said.items()}
    writer = GGUFWriter(target, changed.get("general.architecture", reader.fields["general.architecture"].contents()))
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture" or key in without or key in changed:
            continue
        writer.add_key_value(key, field.contents(), field.types[0], field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None)
    for key, value in changed.items():
        if key == "general.architecture":
            continue
        many = isinstance(value, list)
        kind = GGUFValueType.get_type(value[0] if many else value)
        kind = GGUFValueType.UINT32 if kind == GGUFValueType.INT32 and not many else kind
        writer.add_key_value(key, value, GGUFValueType.ARRAY if many else kind, kind if many else None)
    for tensor in reader.tensors:
        values = (tensors or {}).get(tensor.name, tensor.data)
        if values is not None:
            writer.add_tensor(tensor.name, values, raw_dtype=tensor.tensor_type if values is tensor.data else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def of_tokenizer(tokenizer: Mapping[str, Any], target: Path, *, cut: str) -> Path:
    """The vocabulary alone of a tokenizer.json that merges bytes, with the name of a rule by which llama.cpp cuts text: the converter knows real ones only."""
    model = tokenizer["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    writer = GGUFWriter(target, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL] * len(tokens))
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def with_vocabulary(name: str, architecture: str, target: Path, *, cut: str | None = None) -> Path:
    """A random network in float16 with a vocabulary of llama.cpp's collection, `ggml-vocab-NAME.gguf`; `cut`: by which other rule its text is cut."""
    fields = GGUFReader(toolchain.sources() / "models" / f"ggml-vocab-{name}.gguf").fields
    writer = GGUFWriter(target, architecture)
    writer.add_name("miniature")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEYS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    for key, field in fields.items():
        if key.startswith("tokenizer."):
            value = cut if cut is not None and key == "tokenizer.ggml.pre" else field.contents()
            writer.add_key_value(key, value, field.types[0], field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None)
    for tensor, values in _random(len(fields["tokenizer.ggml.tokens"].contents()), biased=architecture == "qwen2").items():
        writer.add_tensor(tensor, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _random(tokens: int, *, biased: bool) -> dict[str, Any]:
    random, keys = np.random.default_rng(0), WIDTH // HEADS * KEYS
    shapes = {"attn_q": (WIDTH, WIDTH), "attn_k": (keys, WIDTH), "attn_v": (keys, WIDTH), "attn_output": (WIDTH, WIDTH)}
    shapes |= {"ffn_gate": (WIDE, WIDTH), "ffn_up": (WIDE, WIDTH), "ffn_down": (WIDTH, WIDE)}
    made: dict[str, Any] = {"token_embd.weight": (random.standard_normal((tokens, WIDTH)) / 8).astype(np.float16)}
    made["output_norm.weight"] = np.ones(WIDTH, dtype=np.float32)
    for layer in range(LAYERS):
        for part, shape in shapes.items():
            made[f"blk.{layer}.{part}.weight"] = (random.standard_normal(shape) / 8).astype(np.float16)
        for part in ("attn_norm", "ffn_norm"):
            made[f"blk.{layer}.{part}.weight"] = (1 + random.standard_normal(WIDTH) / 8).astype(np.float32)
        for part in ("attn_q", "attn_k", "attn_v") if biased else ():
            made[f"blk.{layer}.{part}.bias"] = (random.standard_normal(shapes[part][0]) / 8).astype(np.float32)
    return made
