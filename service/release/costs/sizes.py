"""How large the files of variants become."""

from typing import get_args

from builders.quantize import BLOCKS_OF_32
from config.plans import StoredType
from config.recipe import Dynamic
from config.words import Variant
from service.release.costs.outline import Outline, outline
from service.release.kinds import kind_of
from service.release.prospect import Prospect

# Bits per weight of llama.cpp's stock mixes for Llama 3.1 8B, from tools/quantize/README.md and llama-quantize --help: other shapes differ by some per cent.
STOCK_BITS = {
    "BF16": 16.0, "F16": 16.0, "F32": 32.0,
    "Q8_0": 8.5, "Q6_K": 6.56, "Q5_K_M": 5.7, "Q5_K_S": 5.57, "Q5_1": 6.04, "Q5_0": 5.57, "Q4_K_M": 4.89, "Q4_K_S": 4.67, "Q4_1": 5.11,
    "Q4_0": 4.64, "IQ4_NL": 4.68, "IQ4_XS": 4.46, "Q3_K_L": 4.3, "Q3_K_M": 4.0, "Q3_K_S": 3.64, "IQ3_M": 3.76, "IQ3_S": 3.66, "IQ3_XS": 3.5, "IQ3_XXS": 3.25,
    "Q2_K": 3.16, "Q2_K_S": 2.97, "IQ2_M": 2.93, "IQ2_S": 2.74, "IQ2_XS": 2.59, "IQ2_XXS": 2.38, "IQ1_M": 2.15, "IQ1_S": 2.0,
}  # fmt: skip
NF4_BITS = 4.127  # 4-bit codes, a scale of 8 bits for 64 of them, and one of 32 bits for 256 scales
TABLE_BITS = 6.5625  # of the table of the vocabulary at the output, in mixes of fewer bits
TABLE_SHARE = 0.065  # that it has in Llama 3.1 8B
UNFIT = {"Q2": 4.5, "Q3": 4.5, "Q4": 5.5, "Q5": 6.0, "Q6": 8.5, "IQ": 4.5}  # bits of what stands in where rows do not fit blocks of 256, by how mixes begin
PREDICTING_BITS = 8.5  # of layers for multi-token prediction in every quantized file: Q8_0


def bits(prospect: Prospect, variant: Variant) -> float:
    """Bits per weight of a variant of this model."""
    return kind_of(variant).bits(prospect, variant)


def weight(prospect: Prospect, variant: Variant) -> int:
    """Bytes of the weights."""
    known = kind_of(variant).bytes
    return round(prospect.parameters * bits(prospect, variant) / 8) if known is None else known(prospect, variant)


# ---- GGUF -------------------------------------------------------------------------------------------------------------------------------------


def nominal(prospect: Prospect, variant: Variant) -> float:
    """Bits per weight in a model like the one that STOCK_BITS are of; of a planned mix at most its budget."""
    entry = prospect.recipe.variants.mix(variant.tag)
    return STOCK_BITS[variant.tag] if entry is None else _budget(entry, prospect)


def gguf_bits(prospect: Prospect, variant: Variant) -> float:
    """Bits per weight in this model, whose vocabulary may be a larger part of it, and whose rows may not fit the blocks of the mix."""
    if variant.tag in get_args(StoredType):
        return 8 * sum(tensor.bytes for tensor in prospect.stored.values()) / max(1, prospect.parameters) or 16.0
    entry = prospect.recipe.variants.mix(variant.tag)
    like = variant.tag if entry is None else entry.like
    model = outline(prospect)
    share, seeing = (part / model.parameters if model.parameters else 0.0 for part in (model.predicting, model.seeing))
    if like is None:
        return nominal(prospect, variant) * (1.0 if entry is None or entry.bpw is None else 1 - seeing)
    whole = _stock(model, like)
    predicting = 0.0 if not prospect.recipe.variants.multi_token_prediction else whole if whole >= 16 else PREDICTING_BITS
    return whole * (1 - share - seeing) + predicting * share


def _budget(entry: Dynamic, prospect: Prospect) -> float:
    """The most that a planned mix may have; of a memory to fit into all of it, for the cache's share is not known before the model is."""
    most = entry.bytes if entry.bytes is not None else entry.fit.memory if entry.fit is not None else None
    if most is not None:
        return min(16.0, 8 * most / max(1, prospect.parameters))
    return STOCK_BITS[entry.like] if entry.like else entry.bpw or 16.0


def _stock(model: Outline, tag: str) -> float:
    """Bits per weight of all that is run."""
    whole, parameters = STOCK_BITS[tag], model.parameters - model.predicting - model.seeing
    if whole >= TABLE_BITS or not parameters:
        return whole
    body = (whole - TABLE_SHARE * TABLE_BITS) / (1 - TABLE_SHARE)
    unfit = max(body, UNFIT.get(tag[:2], body))
    table = 8.5 if model.hidden % 256 and tag not in BLOCKS_OF_32 else TABLE_BITS
    total = 0.0
    for tensor in model.tensors[:-1]:
        fits = tensor.columns % 256 == 0 or tag in BLOCKS_OF_32
        total += tensor.parameters * (body if fits else unfit)
    rest = parameters - sum(tensor.parameters for tensor in model.tensors)  # vectors, in 32 bits
    return min(16.0, (total + table * model.tensors[-1].parameters + 32 * max(0, rest)) / parameters)


# ---- NF4 --------------------------------------------------------------------------------------------------------------------------------------


def nf4_bits(prospect: Prospect, variant: Variant) -> float:
    """Bits per weight of NF4; of planned ones at most their budget."""
    plain = nf4(outline(prospect))
    entry = prospect.recipe.variants.nf4_mix(variant.tag)
    if entry is None:
        return plain
    if entry.bytes is not None:
        return min(16.0, 8 * entry.bytes / max(1, prospect.parameters))
    return min(16.0, entry.bpw or plain * (1 + (entry.above or 0.0)))


def nf4(model: Outline) -> float:
    """Bits per weight of plain NF4: the tables of the vocabulary, all vectors and what reads images stay in 16 bits, and layers for multi-token prediction are
    not loaded by transformers.
    """
    packed = sum(tensor.parameters for tensor in model.matrices)
    return (NF4_BITS * packed + 16 * (model.parameters - model.predicting - packed)) / model.parameters if model.parameters else 16.0
