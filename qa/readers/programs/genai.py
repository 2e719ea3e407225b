"""What OpenVINO GenAI makes of a GGUF file."""

from collections.abc import Mapping
from typing import Any

from told import answered


def read(request: Mapping[str, Any]) -> dict[str, Any]:
    """What it says of a request."""
    import numpy as np
    import openvino
    import openvino_genai as genai

    pipeline = genai.LLMPipeline(request["file"], "CPU", INFERENCE_PRECISION_HINT="f32")
    tokens = np.array([request["tokens"]], dtype=np.int64)
    settings = genai.GenerationConfig()
    settings.max_new_tokens, settings.do_sample, settings.ignore_eos = request["most"], False, True
    inputs = genai.TokenizedInputs(openvino.Tensor(tokens), openvino.Tensor(np.ones_like(tokens)))
    chosen = pipeline.generate(inputs, settings).tokens[0]
    ids = pipeline.get_tokenizer().encode(request["text"]).input_ids.data.reshape(-1)
    return {"ids": [int(token) for token in ids], "answer": [int(token) for token in chosen]}


if __name__ == "__main__":
    answered(read)
