"""What reads images in a model, under the names by which the converter of the pinned llama.cpp (0.3.36) looks for it, where files have it under others."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from builders.names import INDEX, SINGLE
from builders.weights import read_header, weight_files

_TABLE = r"(?:model\.)?language_model\.(?:model\.)?(?=embed_tokens\.weight$)"
_EYES = r"(?=vision_tower\.|multi_modal_projector\.)"
# in each name what is replaced: the converter passes over all of `language_model`, in which the embedding of Pixtral's [IMG_BREAK] is, and knows of the towers
# that transformers has renamed either the older or the newer names (https://github.com/ggml-org/llama.cpp/issues/22901 and 24235)
_NAMES: Mapping[str, Mapping[str, str]] = {
    "llava": {rf"^{_TABLE}": "model.", rf"^model\.{_EYES}": ""},
    "mistral3": {rf"^{_TABLE}": "model.", rf"^model\.{_EYES}": ""},
    "internvl": {rf"^{_EYES}": "model."},
}


def name(kind: object, tensor: str) -> str:
    """A tensor's name as the converter wants it, in a model of that `model_type`."""
    for pattern, put in _NAMES.get(str(kind), {}).items():
        tensor = re.sub(pattern, put, tensor)
    return tensor


def respell(folder: Path) -> None:
    """In a folder of links to a model's files put a file of the renamed tensors in place of its weights, where any is to be renamed."""
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    files = weight_files(folder)
    renamed = {tensor.name: put for file in files for tensor in read_header(file) if (put := name(kind, tensor.name)) != tensor.name}
    if not renamed:
        return
    from safetensors import safe_open
    from safetensors.torch import save_file

    wanted = re.compile(rf"^(?:model\.)?{_EYES}")
    tensors = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for tensor in opened.keys():  # noqa: SIM118 (it is no dict)
                if tensor in renamed or wanted.search(tensor):
                    tensors[renamed.get(tensor, tensor)] = opened.get_tensor(tensor)
    for file in (*files, folder / INDEX):
        file.unlink(missing_ok=True)  # a link
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
