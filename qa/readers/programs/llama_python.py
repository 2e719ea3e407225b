"""What llama-cpp-python's own class makes of a GGUF file."""

from collections.abc import Mapping
from typing import Any

from told import answered


def read(request: Mapping[str, Any]) -> dict[str, Any]:
    """What it says of a request."""
    import numpy as np
    from llama_cpp import Llama

    model = Llama(model_path=request["file"], n_ctx=512, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False)
    found = {"ids": model.tokenize(request["text"].encode(), add_bos=True, special=True)}
    tokens = request["tokens"]
    model.eval(tokens)
    last = np.asarray(model.scores[len(tokens) - request["last"] : len(tokens)], dtype=np.float32)
    model.reset()
    chosen = []
    for token in model.generate(tokens, temp=0.0, top_k=1, repeat_penalty=1.0):
        chosen.append(int(token))
        if len(chosen) == request["most"]:
            break
    return found | {"answer": chosen, "rows": len(last), "logits": last.tobytes().hex()}


if __name__ == "__main__":
    answered(read)
