"""Adapters of the bundled model, as PEFT saves them: small, and different enough from nothing to change every weight that they are about."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

RANK = 2
SHAPES = {"self_attn.q_proj": (256, 256), "mlp.down_proj": (256, 768)}  # outputs, inputs


def lora(out: Path, base: str, *, strength: float = 0.02, **described: Any) -> Path:
    """A LoRA on two kinds of matrices of the bundled model, in a new folder, with a card of its own."""
    out.mkdir()
    random, weights = torch.Generator().manual_seed(3), {}
    for layer in range(4):
        for name, (outputs, inputs) in SHAPES.items():
            module = f"base_model.model.model.layers.{layer}.{name}"
            weights[f"{module}.lora_A.weight"] = torch.randn(RANK, inputs, generator=random) / inputs**0.5
            weights[f"{module}.lora_B.weight"] = strength * torch.randn(outputs, RANK, generator=random)
    save_file(weights, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "base_model_name_or_path": base, "revision": None, "r": RANK, "lora_alpha": 4, "target_modules": [*SHAPES]}
    (out / "adapter_config.json").write_text(json.dumps(config | described), encoding="utf-8")
    (out / "README.md").write_text("---\nlicense: mit\nlibrary_name: peft\n---\n# An adapter\n", encoding="utf-8")
    return out
