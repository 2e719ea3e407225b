"""What the transformers of this process makes of a folder of safetensors, or of a GGUF file."""

from collections.abc import Mapping
from typing import Any

from told import answered


def read(request: Mapping[str, Any]) -> dict[str, Any]:
    """What it says of a request."""
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    where = {"gguf_file": request["gguf_file"]} if request.get("gguf_file") else {}
    tokenizer = transformers.AutoTokenizer.from_pretrained(request["folder"], **where)
    network = _maker(request["folder"], where).from_pretrained(request["folder"], dtype=getattr(torch, request["dtype"]), **where).eval()
    found = {"ids": tokenizer(request["text"])["input_ids"], "version": transformers.__version__}
    tokens = request["tokens"] or found["ids"]
    with torch.inference_mode():
        seen = network(torch.tensor([tokens]), use_cache=True)
        last = seen.logits[0, -request["last"] :].float()
        row, memory, chosen, steps = seen.logits[0, -1], seen.past_key_values, [], []
        while len(chosen) < request["most"]:
            chosen.append(int(row.argmax()))
            steps.append(row.float())
            seen = network(torch.tensor([[chosen[-1]]]), past_key_values=memory, use_cache=True)
            row, memory = seen.logits[0, -1], seen.past_key_values
    found |= {"answer": chosen, "rows": len(last), "logits": last.numpy().tobytes().hex()}
    return found | {"steps": torch.stack(steps).numpy().tobytes().hex()}


def _maker(folder: str, where: Mapping[str, str]) -> Any:
    """The class for whole models that read images too, and are given text alone here, or for language models."""
    import transformers

    whole = transformers.AutoModelForImageTextToText
    return whole if not where and type(transformers.AutoConfig.from_pretrained(folder)) in whole._model_mapping else transformers.AutoModelForCausalLM


if __name__ == "__main__":
    answered(read)
