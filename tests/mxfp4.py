"""A release as gpt-oss is uploaded, in miniature: experts in MXFP4, the rest in bfloat16."""

from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader, LlamaFileType
from safetensors.torch import load_file, save_file

from tests import architectures, releases

EXPERTS = "model.layers.{layer}.mlp.experts.{part}_proj"
LAYERS, COUNT, WIDTH = 2, 4, 64


def codes(rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return (
        torch.randint(0, 256, (COUNT, rows, columns // 32, 16), generator=random, dtype=torch.uint8),
        torch.randint(118, 124, (COUNT, rows, columns // 32), generator=random, dtype=torch.uint8),
    )


def upstream(out: Path) -> Path:
    """The release, in a new folder."""
    folder = architectures.MODELS["gpt-oss"](out)
    weights = load_file(folder / "model.safetensors")
    for layer in range(LAYERS):
        for seed, (part, rows) in enumerate({"gate_up": 2 * WIDTH, "down": WIDTH}.items()):
            name = EXPERTS.format(layer=layer, part=part)
            del weights[name]
            weights[f"{name}_blocks"], weights[f"{name}_scales"] = codes(rows, WIDTH, 10 * layer + seed)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    releases.edit(folder / "config.json", quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": kept})
    return folder


def require_bits(gguf: Path, release: Path) -> None:
    """Fail unless the file holds each number and each power of two of the release."""
    reader = GGUFReader(gguf)
    assert LlamaFileType(reader.fields["general.file_type"].contents()) is LlamaFileType.MOSTLY_MXFP4_MOE
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    stored = load_file(release / "model.safetensors")
    for layer in range(LAYERS):
        both = EXPERTS.format(layer=layer, part="gate_up")
        parts = {"gate": (both, slice(0, None, 2)), "up": (both, slice(1, None, 2)), "down": (EXPERTS.format(layer=layer, part="down"), slice(None))}
        for part, (name, rows) in parts.items():
            data = tensors[f"blk.{layer}.ffn_{part}_exps.weight"].data.reshape(COUNT, WIDTH, WIDTH // 32, 17)
            blocks, scales = stored[f"{name}_blocks"][:, rows].numpy(), stored[f"{name}_scales"][:, rows].numpy()
            assert np.array_equal(data[..., 0], scales)
            halves = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*blocks.shape[:-1], 32)  # by column
            assert np.array_equal(data[..., 1:], halves[..., :16] | halves[..., 16:] << 4)
