"""Tiny random models that read images, of families that transformers knows as no language models, as a snapshot of them would lie in a folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from tests.architectures import HIDDEN, Make, bundled, byte_level, saved, scattered, sizes
from tests.releases import edit, read

# with fewer layers than the numbers in the names of projectors, the converter does not know these names
EYES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
BREAKS = {"[IMG_BREAK]": 2048, "[IMG_END]": 2049, "[IMG]": 2050}
EVEN = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
MANY = {"size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}}
MROPE = {"type": "mrope", "mrope_section": [2, 3, 3]}
IDS = {"image_token_id": 50260, "video_token_id": 50261, "vision_start_token_id": 50258, "vision_end_token_id": 50259}  # that stand in no text


def _seeing(kind: str, out: Path, config: Mapping[str, Any], processor: Mapping[str, Any]) -> Path:
    """The model with nothing in its eyes that is nought or one everywhere, and with what prepares pictures for it."""
    made = saved(kind, out, config, f"{kind}ForConditionalGeneration")
    weights = load_file(made / "model.safetensors")
    save_file({name: scattered(name, value) for name, value in weights.items()}, made / "model.safetensors", metadata={"format": "pt"})
    (made / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return made


def _tiled(kind: str) -> Make:
    """Idefics 3 and SmolVLM, which cut large pictures into tiles and show them one by one, and the whole picture after them."""

    def make(out: Path) -> Path:
        text = sizes(**bundled(out, spaced=False), model_type="llama", architectures=["LlamaForCausalLM"])
        config = {"text_config": text, "vision_config": EYES, "scale_factor": 2, "tie_word_embeddings": True, "image_token_id": 11, "pad_token_id": 5}
        edges = {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 56}}
        return _seeing(kind, out, config, {"image_processor_type": f"{kind}ImageProcessor", "do_image_splitting": True, **EVEN, **edges})

    return make


def _qwen(kind: str, eyes: Mapping[str, Any], processor: Mapping[str, Any], **others: Any) -> Make:
    def make(out: Path) -> Path:
        text = sizes(**byte_level(out), **others)
        config = {"text_config": text, "vision_config": {"depth": 3, "num_heads": 2, **eyes}, "tie_word_embeddings": True, **IDS}
        return _seeing(kind, out, config, {"image_processor_type": "Qwen2VLImageProcessor", **processor})

    return make


def _broken_by_rows(kind: str) -> Make:
    """With Pixtral's eyes, which say where a row of a picture ends."""

    def make(out: Path) -> Path:
        ids = bundled(out, spaced=False) | {"vocab_size": 2056}
        for place in ("tokenizer.json", "tokenizer_config.json"):
            with_tokens(out / place, BREAKS)
        text = sizes(**ids, model_type="mistral" if kind == "Mistral3" else "llama", head_dim=16, sliding_window=None, tie_word_embeddings=False)
        eyes = EYES | {
            "num_hidden_layers": 3,
            "model_type": "pixtral",
            "head_dim": 16,
            "hidden_act": "silu" if kind == "Mistral3" else "gelu",
            "image_size": 1540,
        }
        config = {"text_config": text, "vision_config": eyes, "image_token_index": BREAKS["[IMG]"], "tie_word_embeddings": False, "vision_feature_layer": -1}
        if kind == "Mistral3":
            config["spatial_merge_size"] = 2
        else:
            config["vision_feature_select_strategy"] = "full"
        side = 28 if kind == "Mistral3" else 14
        processor = {"image_processor_type": "PixtralImageProcessor", "size": {"longest_edge": 1540}, "patch_size": {"height": side, "width": side}, **EVEN}
        return _seeing(kind, out, config, processor)

    return make


def with_tokens(path: Path, named: Mapping[str, int]) -> None:
    """Add special tokens to tokenizer.json or tokenizer_config.json."""
    tokens = {
        str(token): {"content": name, "special": True, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
        for name, token in named.items()
    }
    if path.name == "tokenizer.json":
        edit(path, added_tokens=[*read(path)["added_tokens"], *({"id": int(token), **about} for token, about in tokens.items())])
    else:
        edit(path, added_tokens_decoder=read(path)["added_tokens_decoder"] | tokens)


def _clip(out: Path) -> Path:
    """LLaVA 1.5, whose eyes are CLIP's."""
    text = sizes(**bundled(out, spaced=False), model_type="llama")
    eyes = EYES | {"model_type": "clip_vision_model", "projection_dim": 32}
    config = {"text_config": text, "vision_config": eyes, "image_token_index": 11, "image_seq_length": 16, "tie_word_embeddings": True}
    processor = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}, **EVEN}
    return _seeing("Llava", out, config, processor)


def _intern(out: Path) -> Path:
    text = sizes(**byte_level(out), model_type="qwen2", architectures=["Qwen2ForCausalLM"])
    eyes = EYES | {"num_hidden_layers": 4, "attention_bias": True, "architectures": ["InternVisionModel"], "image_size": [56, 56], "patch_size": [14, 14]}
    config = {"text_config": text, "vision_config": eyes, "image_token_id": IDS["image_token_id"], "image_seq_length": 4, "tie_word_embeddings": True}
    processor = {"image_processor_type": "GotOcr2ImageProcessor", "size": {"height": 56, "width": 56}, "crop_to_patches": False, **EVEN}
    return _seeing("InternVL", out, config, processor)


MODELS: Mapping[str, Make] = {
    "Idefics 3": _tiled("Idefics3"),
    "SmolVLM": _tiled("SmolVLM"),
    "Qwen2-VL": _qwen("Qwen2VL", {"embed_dim": 32, "hidden_size": HIDDEN, "mlp_ratio": 2}, {**EVEN, **MANY}, rope_parameters=MROPE),
    "Qwen2.5-VL": _qwen(
        "Qwen2_5_VL",
        {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": HIDDEN, "fullatt_block_indexes": [1]},
        {**EVEN, **MANY},
        rope_parameters=MROPE,
    ),
    "Qwen3-VL": _qwen(
        "Qwen3VL",
        {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": HIDDEN, "deepstack_visual_indexes": [0], "num_position_embeddings": 196},
        {**EVEN, "patch_size": 16, "size": {"shortest_edge": 64 * 64, "longest_edge": 1024 * 1024}},
        head_dim=16,
        rope_parameters={"rope_type": "default", "mrope_section": [3, 3, 2], "mrope_interleaved": True, "rope_theta": 5000000.0},
    ),
    "Mistral 3": _broken_by_rows("Mistral3"),
    "Pixtral": _broken_by_rows("Llava"),
    "LLaVA": _clip,
    "InternVL": _intern,
}
