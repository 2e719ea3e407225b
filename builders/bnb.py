"""Quantizes the fixed model to bitsandbytes NF4 safetensors that transformers and vLLM load."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders.fixes import dtype_forms, older_names, rope_forms
from builders.fixes.edits import applied
from builders.names import CONFIGURATION, EMBEDDINGS, held_in, is_legal, is_named_template
from builders.weights import PLAIN, parameters, read_header, weight_files
from config.errors import UpstreamError
from engines import nf4

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VERSION = 4  # raise when outputs change

CONFIG = "config.json"
_EXPERT = re.compile(r"(\.experts)\.\d+\..*")


def quantize(out: Path, *, model: Path, threads: int, skip: Sequence[str] = ()) -> dict[str, Any]:
    """Write a transformers folder: linear layers in NF4 (blocks of 64, scales quantized again), embeddings, output layer and norms as they were.

    Of a model that reads images it is the whole model, whose vision tower and projector stay in 16 bits. The modules named in `skip` do so as well; config.json
    lists them, so that transformers and vLLM load the folder without being told.
    Tokenizer, template and generation_config.json are the fixed model's, byte for byte, and config.json is its too, with what describes these weights, in the
    words of transformers 4 and 5. Returns `bytes` of the weight files, `parameters` (of the 16-bit model)
    and `bpw`. Raises UpstreamError when transformers cannot load the model.
    """
    import torch
    from transformers import BitsAndBytesConfig

    from engines import hf

    torch.set_num_threads(threads)
    try:
        recipe = BitsAndBytesConfig(  # type: ignore[no-untyped-call] # the library annotates nothing here
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=_kept(model, skip),
        )
        made = hf.maker(hf.load_config(model))
        with hf.counting():
            network = made.from_pretrained(
                model,
                quantization_config=recipe,
                dtype=torch.bfloat16,
                device_map="cpu",
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
    except Exception as error:  # the files are a stranger's: loading may raise anything
        raise UpstreamError(
            f"transformers cannot load the fixed model for 4-bit quantization: {error}. Remove bnb_4bit and dynamic_bnb_4bit from the recipe's variants."
        ) from error
    with hf.counting():
        network.save_pretrained(out)
    _describe(out, model, network)
    for name, path in held_in(model):
        if (name in CONFIGURATION and name != CONFIG) or is_legal(name) or is_named_template(name):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / name)
    if not (model / "generation_config.json").exists():
        (out / "generation_config.json").unlink(missing_ok=True)
    size, count = sum(file.stat().st_size for file in weight_files(out)), parameters(weight_files(model))
    return {"bytes": size, "parameters": count, "bpw": size * 8 / count}


def _describe(out: Path, model: Path, network: "PreTrainedModel") -> None:
    """Write config.json anew: what the model's own says, and of what transformers saved only how the weights are stored.

    transformers 5 saves it in words of its own, which transformers 4 does not read. Where it saved another kind of model than the original's, the text part of
    a larger one for instance, they are kept, and those of transformers 4 put beside them.
    """
    from transformers.quantizers.base import get_keys_to_not_convert

    theirs, ours = (json.loads((folder / CONFIG).read_text(encoding="utf-8")) for folder in (out, model))
    config = theirs
    if theirs.get("model_type") == ours.get("model_type"):
        config = ours | {name: theirs[name] for name in ("architectures", "quantization_config")}
    config |= dict.fromkeys(dtype_forms.KEYS, theirs["dtype"])
    if kept := _linear_elsewhere(out, network):  # or they would be looked for in NF4
        named = config["quantization_config"]["llm_int8_skip_modules"] or get_keys_to_not_convert(network)
        config["quantization_config"]["llm_int8_skip_modules"] = sorted({*named, *kept})
    files = {CONFIG: config}
    for repair in (rope_forms.repair, older_names.repair):
        files = applied(files, repair(files, None))
    (out / CONFIG).write_text(json.dumps(files[CONFIG], indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _linear_elsewhere(out: Path, network: "PreTrainedModel") -> set[str]:
    """Matrices in 16 bits that are linear layers in other readers and none here: experts, which transformers 5 keeps fused, and what routes to them."""
    import torch

    tables = {name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear | torch.nn.Embedding)}
    matrices = {tensor.name for file in weight_files(out) for tensor in read_header(file) if len(tensor.shape) == 2 and tensor.dtype in PLAIN}
    modules = {name.removesuffix(".weight") for name in matrices if name.endswith(".weight") and not name.endswith(EMBEDDINGS)}
    return {_EXPERT.sub(r"\1", module) for module in modules - tables}


def quantizable(network: "PreTrainedModel") -> list[str]:
    """The linear layers that become NF4 unless they are skipped, by their names and in the model's order; experts that transformers keeps fused are none."""
    import torch
    from transformers.quantizers.base import HfQuantizer
    from transformers.quantizers.quantizers_utils import should_convert_module

    from engines import hf

    kept = HfQuantizer.get_modules_to_not_convert(network, keep_in_fp32_modules=list(network._keep_in_fp32_modules or ()))
    kept += hf.seeing(network)
    return [name for name, module in network.named_modules() if type(module) is torch.nn.Linear and should_convert_module(name, kept)]


def _kept(model: Path, skip: Sequence[str]) -> list[str] | None:
    """What reads images, `skip`, what vLLM calls the layers that it fuses of these, and what transformers keeps by itself, which it does only when nothing else
    is named; None where it would keep all of that by itself.

    Raises UpstreamError for names that are no linear layers of the model.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.quantizers.base import get_keys_to_not_convert

    from engines import hf

    described = hf.load_config(model)
    made = hf.maker(described)
    if not skip and made is AutoModelForCausalLM:
        return None
    with torch.device("meta"):
        network = made.from_config(described)
    known = quantizable(network)
    if unknown := sorted(set(skip) - set(known)):
        raise UpstreamError(f"The plan keeps modules in 16 bits that the model does not have: {', '.join(unknown)}. Plan it anew.")
    fused = {nf4.fused(name) for name in skip} - {nf4.fused(name) for name in known if name not in skip}
    return sorted({*skip, *hf.seeing(network), *fused, *get_keys_to_not_convert(network)})
