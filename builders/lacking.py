"""Looks by the headers of its files whether a model holds every weight that its architecture has: what is not there, transformers would make up."""

import json
from pathlib import Path
from typing import Any

from builders import hollow, packed
from builders.names import INDEX
from builders.weights import read_header, weight_files
from builders.writing import write_index
from config.errors import MeasurementError, UnsupportedModel

VERSION = 1  # raise when outputs change


def check(out: Path, *, model: Path, weights: Path) -> dict[str, Any]:
    """Raise UpstreamError when weights are missing of the model whose config.json is in the folder `model` and whose weight files, which may be all header,
    are in `weights`, and UnsupportedModel when transformers cannot run such a model; nothing where it cannot tell, which is for others to judge.

    Weights of 8 bits and MXFP4 are looked at as they are once a release has multiplied them out. Returns nothing.
    """
    from engines import hf  # torch

    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    for part in (config, config.get("text_config")):
        if isinstance(part, dict):
            part.pop(packed.KEY, None)
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = packed.plain({tensor.name: tensor for file in weight_files(weights) for tensor in read_header(file)})
    for file in weight_files(weights):
        hollow.of([tensor for tensor in tensors.values() if tensor.file == file.name], out / file.name)
    if (weights / INDEX).is_file():
        write_index(out, tensors)
    try:
        hf.require_all(out)
    except UnsupportedModel:
        raise
    except MeasurementError:
        pass
    return {}
