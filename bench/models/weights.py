"""Weights of a real trained model from a GGUF file in 4 bits, taken off the grid of their types and written as safetensors in transformers' names.

Weights that lie on the grid of a 4-bit type would make 4-bit types free. They are taken off it without changing the function: columns that enter a product are
scaled against the norm before it, and rows of one product against columns of the next; the embedding, which has no such partner, is moved by up to half a step.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import save_file

from config.errors import ToolError
from engines.model import Floats
from service.release.shapes import Model

GRID = 32  # columns that share a scale of the table's grid
SPREAD = 0.3  # of the scales' logarithms
SEED = 7

_OUTSIDE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def read(reader: GGUFReader) -> dict[str, Floats]:
    """Every tensor by its name in the GGUF, in float32 and the order of axes that transformers has."""
    return {tensor.name: dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(tensor.shape.tolist()[::-1]) for tensor in reader.tensors}


def take_off_grid(weights: dict[str, Floats], model: Model) -> None:
    """Change weights of these GGUF names in place, from the grid of their types to values around it; the function stays the same."""
    random = np.random.default_rng(SEED)

    def scales(count: int) -> Floats:
        return np.exp(random.normal(0, SPREAD, count)).astype(np.float32)

    for layer in range(model.layers):
        at = f"blk.{layer}."
        for norm, readers in (("attn_norm", ("attn_q", "attn_k", "attn_v")), ("ffn_norm", ("ffn_gate", "ffn_up"))):
            scale = scales(model.hidden)
            weights[f"{at}{norm}.weight"] *= scale
            for reader in readers:
                weights[f"{at}{reader}.weight"] /= scale
        scale = scales(model.wide)
        weights[f"{at}ffn_up.weight"] *= scale[:, None]
        weights[f"{at}ffn_down.weight"] /= scale
        scale = scales(model.groups * model.width)
        weights[f"{at}attn_v.weight"] *= scale[:, None]
        # each head of values is read by as many heads of queries
        weights[f"{at}attn_output.weight"] /= np.repeat(scale.reshape(model.groups, 1, model.width), model.heads // model.groups, axis=1).reshape(-1)
    table = weights["token_embd.weight"]
    blocks = table.reshape(len(table), -1, GRID)
    step = np.abs(blocks).max(-1, keepdims=True) / 127  # the table is in 8 bits
    weights["token_embd.weight"] = (blocks + random.uniform(-0.5, 0.5, blocks.shape).astype(np.float32) * step).reshape(table.shape)


def save(out: Path, weights: Mapping[str, Floats], layer: Mapping[str, str], source: Path) -> None:
    """Write model.safetensors in bfloat16. `layer` says what this architecture calls the parts of a layer, by the GGUF's name.

    Raises ToolError when the GGUF file, `source`, holds a tensor that the model does not have.
    """
    tensors = {_renamed(name, layer, source): torch.from_numpy(np.ascontiguousarray(values)).to(torch.bfloat16) for name, values in weights.items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


def _renamed(name: str, layer: Mapping[str, str], source: Path) -> str:
    if (outside := _OUTSIDE.get(name)) is not None:
        return outside
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if match is None or match[2] not in layer:
        raise ToolError(f"{source} holds a tensor {name}, which this model does not have: its package was changed on the index. Do not use it.")
    return f"model.layers.{match[1]}.{layer[match[2]]}.weight"


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file as releases have it."""
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
