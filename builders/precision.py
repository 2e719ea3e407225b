"""Reads every weight of a model before it is converted: is each a number, and in which type does a GGUF file hold all of them exactly?"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from gguf import MODEL_TENSOR
from gguf.tensor_mapping import TensorNameMap

from builders.weights import Tensor, read_header, weight_files
from config.errors import UpstreamError

EXACT = ("BF16", "F16", "F32")  # types of a file that everything is made from, the preferred one first
SHOWN = 3  # tensors that a sentence names

# what llama.cpp's converter keeps in 32 bits whatever the file's type is (`prepare_tensors` in conversion/base.py), so that it asks for none
_KEPT = (
    "FFN_GATE_INP", "FFN_GATE_INP_SHEXP", "POS_EMBD", "TOKEN_TYPES", "SSM_A", "SSM_D", "SSM_CONV1D", "SSM_CONV1D_Q", "SSM_CONV1D_K", "SSM_CONV1D_V",
    "SHORTCONV_CONV", "TIME_MIX_FIRST", "TIME_MIX_W1", "TIME_MIX_W2", "TIME_MIX_DECAY_W1", "TIME_MIX_DECAY_W2", "TIME_MIX_LERP_FUSED", "POSNET_NORM1",
    "POSNET_NORM2", "ALTUP_CORRECT_COEF", "ALTUP_PREDICT_COEF", "INDEXER_PROJ",
)  # fmt: skip
_OTHER = re.compile(r"(?:^|\.)(?:visual|vision_tower|vision_model|audio_tower|multi_modal_projector|embed_vision|embed_audio)\.")  # no part of the text model


def stated(tensors: Iterable[Tensor]) -> str:
    """The type as far as headers tell: one of 16 bits where all matrices are stored in that, else F32, which the values may turn out not to need."""
    found = {tensor.dtype for tensor in _matrices(tensors)}
    return found.pop() if len(found) == 1 and found <= {"BF16", "F16"} else "F32" if found else EXACT[0]


def exact(model: Path) -> str:
    """The type, one of EXACT, in which a GGUF file holds each matrix of the folder bit for bit; vectors are in 32 bits in all of them.

    Weights that were stored in 32 bits and need only 16 of them (as where somebody saved a bfloat16 model in float32) are held in these 16.
    Raises UpstreamError that names file and tensor when a value is not finite, which spoils whatever is made of it.
    """
    import torch

    from engines import hf

    asked = {tensor.name for file in weight_files(model) for tensor in _matrices(read_header(file))}
    known = stated(tensor for file in weight_files(model) for tensor in read_header(file))
    fitting, wrong = {"BF16": True, "F16": True}, []
    for file, name, values in hf.weights(model):
        if not torch.isfinite(values).all():
            wrong.append(f"{name} in {file.name}")
        if known == "F32" and name in asked and not wrong:
            for type, dtype in (("BF16", torch.bfloat16), ("F16", torch.float16)):
                fitting[type] = fitting[type] and torch.equal(values.to(dtype).to(values.dtype), values)
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise UpstreamError(
            f"The release holds weights that are not numbers (infinite or NaN): {', '.join(wrong[:SHOWN])}{more}. Nothing sound can be made of them: ask its "
            "owner to upload them again."
        )
    return next((type for type in EXACT if fitting.get(type)), "F32") if known == "F32" else known


def _matrices(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Those that come into the GGUF in its own type."""
    for tensor in tensors:
        if len(tensor.shape) > 1 and tensor.dtype.startswith(("F", "BF")) and not _kept().fullmatch(tensor.name) and not _OTHER.search(tensor.name):
            yield tensor


@cache
def _kept() -> re.Pattern[str]:
    """Names, as in safetensors, of what stays in 32 bits."""
    names = [
        name
        for kind in (getattr(MODEL_TENSOR, word) for word in _KEPT if hasattr(MODEL_TENSOR, word))
        for table in (TensorNameMap.mappings_cfg, TensorNameMap.block_mappings_cfg)
        for name in table.get(kind, ())
    ]
    either = "|".join(re.escape(name).replace(r"\{bid\}", r"\d+").replace(r"\{xid\}", r"\d+") for name in names)
    return re.compile(rf"(?:{either})(?:\.weight)?")
