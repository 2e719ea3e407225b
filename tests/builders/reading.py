"""What the transformers of an environment of its own makes of model folders: a program that the tests start, with requests on its standard input.

Requests and answers are lines of JSON: of each folder what its config says, the ids of a text, and logits beside it; or the sentence that it failed with.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

CAUSAL = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
SEEING = transformers.models.auto.modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
# gone from transformers 5, with other keys, no text at all, of proteins, the eyes of others, or of two further parts that are not said
OTHERS = {"open-llama", "modernbert-decoder", "musicgen", "musicgen_melody", "evolla", "pixtral", "vision-encoder-decoder"}
NEWER = {"Glm4vMoe_text": "glm4v_moe_text"}  # what transformers 5 calls the types
ROPE = ("rope_theta", "rope_scaling", "partial_rotary_factor", "rope_local_base_freq")


def read(folder: str, text: str | None, dtype: str | None) -> dict[str, Any]:
    """`text`: for the tokenizer; `dtype`: in which to compute logits, None computes none."""
    whole = AutoConfig.from_pretrained(folder)
    config = whole.get_text_config()
    found: dict[str, Any] = {"rope": {name: getattr(config, name) for name in ROPE if hasattr(config, name)}, "dtype": str(config.dtype)}
    if text is not None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        found["ids"] = tokenizer(text)["input_ids"]
        found["special"] = sorted(set(tokenizer.all_special_tokens))
    if dtype is not None:
        made = AutoModelForImageTextToText if whole.model_type in SEEING else AutoModelForCausalLM
        network = made.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="eager").eval()
        ids = torch.tensor([[(7 * place * place + 3 * place) % (config.vocab_size - 3) + 3 for place in range(48)]])
        with torch.inference_mode():
            np.save(Path(folder) / f"{transformers.__version__}.npy", network(ids).logits[0].float().numpy())
    return found


def saved(folder: str) -> str | None:
    """What saving the generation settings anew says; None when nothing."""
    try:
        transformers.GenerationConfig.from_pretrained(folder).save_pretrained(Path(folder) / "again")
    except ValueError as error:
        return str(error)
    return None


def templates(folder: str) -> list[str | None]:
    """The tokenizer's chat template of a conversation without tools, and of one with them; None where it has none."""
    tokenizer, tools = AutoTokenizer.from_pretrained(folder), [{"type": "function", "function": {"name": "paint"}}]
    return [None if tokenizer.chat_template is None else tokenizer.get_chat_template(tools=offered) for offered in (None, tools)]


def defaults() -> dict[str, dict[str, Any]]:
    """What each type of language models, and of the text parts of those that read images, takes for rotary embeddings when it is told nothing."""
    found = {}
    for name in {*CAUSAL, *SEEING} - OTHERS:
        config = transformers.CONFIG_MAPPING[name]().get_text_config()
        kind = NEWER.get(config.model_type, config.model_type)
        if kind in {name, f"{name}_text", f"{name}_text_model"} and getattr(config, "rope_theta", None) is not None:
            found[kind] = {key: getattr(config, key, None) for key in ROPE}
    return found


def answered(request: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"version": transformers.__version__}
    if request.get("defaults"):
        answer["defaults"] = defaults()
    for folder in request.get("folders", ()):
        try:
            answer[folder] = read(folder, request.get("text"), request.get("dtype"))
        except Exception as error:  # noqa: BLE001 (it is told to the test)
            answer[folder] = {"failed": f"{type(error).__name__}: {error}"}
        if request.get("save"):
            answer[folder]["saved"] = saved(folder)
        if request.get("templates"):
            answer[folder]["templates"] = templates(folder)
    return answer


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answered(json.loads(line))) + "\n")
        sys.stdout.flush()
