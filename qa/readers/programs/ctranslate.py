"""What CTranslate2 makes of a folder of safetensors, converted by its own converter."""

import tempfile
from collections.abc import Mapping
from typing import Any

from told import answered


def read(request: Mapping[str, Any]) -> dict[str, Any]:
    """What it says of a request."""
    import ctranslate2
    import numpy as np

    tokens = request["tokens"]
    with tempfile.TemporaryDirectory() as folder:
        ctranslate2.converters.TransformersConverter(request["folder"]).convert(f"{folder}/model")
        model = ctranslate2.Generator(f"{folder}/model", device="cpu", compute_type="float32", intra_threads=1)
        last = np.array(model.forward_batch([tokens]).to_device(ctranslate2.Device.cpu))[0, -request["last"] :].astype(np.float32)
        chosen, row = [], last[-1]
        while len(chosen) < request["most"]:
            chosen.append(int(row.argmax()))
            row = np.array(model.forward_batch([tokens + chosen]))[0, -1]
    return {"answer": chosen, "rows": len(last), "logits": last.tobytes().hex()}


if __name__ == "__main__":
    answered(read)
