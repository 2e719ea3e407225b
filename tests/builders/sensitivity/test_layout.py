import time

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

from builders.sensitivity import layout
from config.errors import MeasurementError
from engines import hf

RANDOM = torch.Generator().manual_seed(0)


def written(path, **tensors):
    """A GGUF of bfloat16 matrices, and its tensors."""
    writer = GGUFWriter(path, "llama")
    for name, values in tensors.items():
        data = values.to(torch.bfloat16).contiguous().view(torch.int16).numpy().view(np.uint8)
        writer.add_tensor(name.replace("_weight", ".weight"), data, raw_dtype=GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GGUFReader(path).tensors


def network(**parameters):
    module = torch.nn.Module()
    for name, values in parameters.items():
        module.register_parameter(name, torch.nn.Parameter(values))
    return module


def test_every_row_of_the_bundled_model_is_found_and_the_permutation_of_q_and_k_is_seen(gguf, fixed):
    model = hf.load_model(fixed)
    stored = layout.quantizable(gguf)
    found = {placement.tensor.name: placement for placement in layout.find(stored, model)}
    assert len(found) == len(stored) == 29
    for name, placement in found.items():
        (segment,) = placement.segments
        assert not segment.transposed
        assert sorted(segment.sources) == sorted(segment.targets) == list(range(placement.tensor.rows))
        assert (segment.sources == segment.targets).all() == ("attn_q" not in name and "attn_k" not in name)
    assert found["token_embd.weight"].segments[0].parameter == "model.embed_tokens.weight"


def test_stacked_split_and_transposed_matrices_are_found(tmp_path):
    gate_up = torch.randn(3, 16, 32, generator=RANDOM)  # experts: gate above up
    down = torch.randn(3, 8, 32, generator=RANDOM)  # stands the other way round than the GGUF's
    qkv = torch.randn(24, 32, generator=RANDOM)
    alone = [torch.randn(4, 32, generator=RANDOM) for _ in range(2)]  # experts of their own, which the GGUF stacks
    model = network(gate_up=gate_up, down=down, qkv=qkv, one=alone[0], two=alone[1])
    tensors = written(
        tmp_path / "m.gguf",
        up_weight=gate_up[:, 8:],
        gate_weight=gate_up[:, :8],
        down_weight=down.transpose(1, 2),
        q_weight=qkv[:8],
        v_weight=qkv[16:].flip(0),
        stacked_weight=torch.stack(alone),
    )
    found = {placement.tensor.name: placement for placement in layout.find(tensors, model)}
    assert found["up.weight"].tensor.experts == 3
    assert found["up.weight"].segments[0].sources.tolist() == [16 * expert + row for expert in range(3) for row in range(8, 16)]
    assert found["gate.weight"].segments[0].sources[8] == 16
    assert found["down.weight"].segments[0].transposed
    assert found["v.weight"].segments[0].targets.tolist() == list(range(7, -1, -1))
    assert {(segment.parameter, *segment.targets) for segment in found["stacked.weight"].segments} == {("one", 0, 1, 2, 3), ("two", 4, 5, 6, 7)}


def test_keys_of_latent_attention_are_found_head_by_head(tmp_path):
    """As DeepSeek's kv_b_proj comes into the file: of each head the rows of keys turned, and those of values as they are."""
    both = torch.randn(4, 16 + 8, 32, generator=RANDOM)  # heads, keys and values, rank
    tensors = written(tmp_path / "m.gguf", k_b_weight=both[:, :16].transpose(1, 2), v_b_weight=both[:, 16:])
    keys, values = layout.find(tensors, network(kv_b=both.reshape(-1, 32)))
    (of_keys,), (of_values,) = keys.segments, values.segments
    assert (of_keys.view, of_values.view) == (layout.View(transposed=True, heads=4, first=16), layout.View(transposed=False))
    found = layout.part(both.reshape(-1, 32), of_keys, torch.from_numpy(of_keys.sources))
    assert torch.equal(found[torch.from_numpy(np.argsort(of_keys.targets))], both[:, :16].transpose(1, 2).reshape(-1, 16))
    assert of_values.sources[8] == 16 + 24


def test_equal_rows_are_told_apart_by_order(tmp_path):
    values = torch.zeros(6, 32)
    values[2] = 1
    tensors = written(tmp_path / "m.gguf", a_weight=values, b_weight=values)
    first, second = layout.find(tensors, network(a=values.clone(), b=values.clone()))
    assert first.segments[0].parameter == "a"
    assert second.segments[0].parameter == "b"
    assert first.segments[0].sources.tolist() == first.segments[0].targets.tolist() == list(range(6))


def test_a_tensor_that_is_not_in_the_model_is_named(tmp_path):
    values = torch.randn(4, 32, generator=RANDOM)
    changed = values.clone()
    changed[3] *= 2
    with pytest.raises(MeasurementError, match=r"1 of the 4 rows of a\.weight .* the first is row 3"):
        layout.find(written(tmp_path / "m.gguf", a_weight=changed), network(a=values))


def test_routers_norms_and_vectors_are_not_quantizable(tmp_path):
    tensors = {"blk.0.ffn_gate_inp_weight": torch.ones(4, 32), "blk.0.attn_norm_weight": torch.ones(2, 32), "blk.0.attn_q_weight": torch.ones(4, 32)}
    written(tmp_path / "m.gguf", **tensors)
    assert [tensor.name for tensor in layout.quantizable(tmp_path / "m.gguf")] == ["blk.0.attn_q.weight"]


def test_matrices_are_found_without_asking_every_parameter_for_each(tmp_path):
    """As many tensors as a large model has: each asking all parameters takes the square of their number."""
    values = {f"m{number}": torch.randn(8, 32, generator=RANDOM).to(torch.bfloat16) for number in range(600)}
    tensors = written(tmp_path / "m.gguf", **{f"{name}_weight": matrix for name, matrix in values.items()})
    model = network(**{name: matrix.float() for name, matrix in values.items()})
    began = time.process_time()
    found = layout.find(tensors, model)
    assert time.process_time() - began < 8
    assert [placement.segments[0].parameter for placement in found] == list(values)
