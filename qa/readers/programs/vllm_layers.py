"""What vLLM takes from a folder of safetensors before it loads any weight: its configuration, and which layers its own model would look for in 4 bits."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from told import answered
from vllm.config import DeviceConfig, LoadConfig, ModelConfig, VllmConfig, set_current_vllm_config
from vllm.distributed import ensure_model_parallel_initialized, init_distributed_environment
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.plugins import load_general_plugins

# what cannot be imported is no refusal of a folder, so all of it is imported before one is asked about


def read(request: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture, the way of quantization, and each linear layer with the types in which its parts are stored."""
    load_general_plugins()
    folder = Path(request["folder"])
    wanted = ModelConfig(model=str(folder), max_model_len=request["context"], enforce_eager=True)
    way = LoadConfig(load_format="bitsandbytes" if wanted.quantization == "bitsandbytes" else "auto")
    whole = VllmConfig(model_config=wanted, load_config=way, device_config=DeviceConfig("cpu"))
    with set_current_vllm_config(whole), tempfile.TemporaryDirectory() as met:
        init_distributed_environment(1, 0, f"file://{met}/met", 0, backend="gloo")
        ensure_model_parallel_initialized(1, 1)
        with torch.device("meta"):
            model = initialize_model(vllm_config=whole, model_config=wanted)
    types = _stored(folder, getattr(model, "hf_to_vllm_mapper", None))
    together = getattr(model, "packed_modules_mapping", {})
    layers = []
    for name, layer in model.named_modules():
        if isinstance(layer, LinearBase):
            outer, _, own = name.rpartition(".")
            parts = together.get(own, [own])
            stored = [kind for place in {name, *(f"{outer}.{part}" for part in parts)} for kind in types.get(f"{place}.weight", ())]
            layers.append({"name": name, "plain": isinstance(layer.quant_method, UnquantizedLinearMethod), "parts": len(parts), "stored": stored})
    return {"architecture": type(model).__name__, "quantization": wanted.quantization, "layers": layers}


def _stored(folder: Path, mapper: Any) -> dict[str, list[str]]:
    """The types of the tensors by the names that vLLM has for them, of which several may be parts of one."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                theirs = name if mapper is None else mapper.map_name(name)
                if theirs is not None:
                    found.setdefault(theirs, []).append(file.get_slice(name).get_dtype())
    return found


if __name__ == "__main__":
    answered(read)
