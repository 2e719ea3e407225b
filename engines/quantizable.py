"""Which matrices of a GGUF file llama-quantize would quantize, and which of them an importance matrix says nothing about.

llama-imatrix has an entry for every matrix of the layers that it saw multiplied. Layers for multi-token prediction (NextN: GLM 4.5, DeepSeek V3, Qwen3-Next)
stand in the file for those who draft with them, no ordinary answer runs them, and so they have none; see `engines.graph`.
"""

from collections.abc import Iterator
from pathlib import Path

from engines import gguf_table
from engines.gguf_table import Entry

# llama.cpp, llama-quant.cpp, tensor_allows_quantization: what llama-quantize keeps as it is, by parts of names
KEPT = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj", "ssm_conv1d", "shortconv.conv.weight",
    "indexer.k_proj.weight", "indexer.q_proj.weight", "time_mix_first.weight", "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight",
    "time_mix_v0.weight", "time_mix_v1.weight", "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight", "time_mix_g1.weight",
    "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight", "attn_rel_b.weight", "position_embd",
    "token_types.weight", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd", ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
)  # fmt: skip
BLOCK = "blk."  # how the names of tensors in layers begin; llama-imatrix looks at no others
SUMS = ".in_sum2"  # how the names of an importance matrix's entries end
UNMEASURED = "Q8_0"  # the type of matrices without importances: it takes none, and is as good as 16 bits


def allowed(name: str) -> bool:
    """Whether llama-quantize would quantize a matrix of this name."""
    return name.endswith("weight") and not any(part in name for part in KEPT)


def without_importances(gguf: Path, imatrix: Path) -> tuple[str, ...]:
    """The matrices of the layers that an importance matrix has no entry for, in the file's order. Raises ValueError when either is no GGUF file.

    What lies outside of layers, the tables of the vocabulary, never has one, and is not among them.
    """
    known = {entry.name.removesuffix(SUMS) for entry in gguf_table.read(imatrix).entries if entry.name.endswith(SUMS)}
    return tuple(entry.name for entry in in_layers(gguf) if entry.name not in known)


def in_layers(gguf: Path) -> Iterator[Entry]:
    """The matrices of the layers that llama-quantize would quantize, in the file's order. Raises ValueError when it is no GGUF file."""
    return (entry for entry in gguf_table.read(gguf).entries if entry.name.startswith(BLOCK) and entry.dimensions > 1 and allowed(entry.name))
