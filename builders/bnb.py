"""Quantizes the fixed model to bitsandbytes NF4 safetensors that transformers and vLLM load."""

import shutil
from pathlib import Path
from typing import Any

from builders.names import CONFIGURATION, is_legal
from builders.weights import parameters, weight_files
from config.errors import UpstreamError

VERSION = 1  # raise when outputs change


def quantize(out: Path, *, model: Path, threads: int) -> dict[str, Any]:
    """Write a transformers folder: linear layers in NF4 (blocks of 64, scales quantized again), embeddings, output layer and norms as they were.

    Tokenizer, template and generation_config.json are the fixed model's, byte for byte. Returns `bytes` of the weight files, `parameters` (of the 16-bit model)
    and `bpw`. Raises UpstreamError when transformers cannot load the model.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    torch.set_num_threads(threads)
    recipe = BitsAndBytesConfig(  # type: ignore[no-untyped-call] # the library annotates nothing here
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )
    try:
        network = AutoModelForCausalLM.from_pretrained(
            model,
            quantization_config=recipe,
            dtype=torch.bfloat16,
            device_map="cpu",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except Exception as error:  # the files are a stranger's: loading may raise anything
        raise UpstreamError(f"transformers cannot load the fixed model for 4-bit quantization: {error}. Remove bnb_4bit from the recipe's variants.") from error
    network.save_pretrained(out)
    for path in sorted(model.iterdir()):
        if (path.name in CONFIGURATION and path.name != "config.json") or is_legal(path.name):
            shutil.copyfile(path, out / path.name)
    if not (model / "generation_config.json").exists():
        (out / "generation_config.json").unlink(missing_ok=True)
    size, count = sum(file.stat().st_size for file in weight_files(out)), parameters(weight_files(model))
    return {"bytes": size, "parameters": count, "bpw": size * 8 / count}
