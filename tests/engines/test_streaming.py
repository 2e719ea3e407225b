"""A model whose layers come one at a time: the same figures as the whole one's."""

from pathlib import Path

import pytest
import torch

from engines import hf, streaming

ROOT = Path(__file__).parents[2]
TOKENS = torch.arange(5, 69)[None]


@pytest.fixture(scope="module", params=["demo/model", "bench/models/gemma3", "bench/models/mixtral"])
def folder(request):
    return ROOT / request.param


@pytest.fixture(scope="module")
def streamed(folder):
    network = hf.load_model(folder, dtype=hf.stored_dtype(folder))
    streaming.stream(network, torch.device("cpu"), dict(hf.outline(folder).named_buffers()))
    return network


def gradients(network):
    """Of one window, each taken when it is complete, as a sensitivity pass does."""
    taken = {}

    def take(parameter, name):
        taken[name], parameter.grad = parameter.grad, None

    hooks = [parameter.register_post_accumulate_grad_hook(lambda p, name=name: take(p, name)) for name, parameter in network.named_parameters()]
    network(input_ids=TOKENS, use_cache=False).logits.log_softmax(-1)[..., 7].sum().backward()
    for hook in hooks:
        hook.remove()
    return taken


def test_logits_and_gradients_are_those_of_the_whole_model(folder, streamed):
    whole = hf.load_model(folder)
    with torch.inference_mode():
        assert torch.equal(streamed(input_ids=TOKENS, use_cache=False).logits, whole(input_ids=TOKENS, use_cache=False).logits)
    ours, theirs = gradients(streamed), gradients(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_one_layer_is_at_work_and_the_others_are_as_stored(folder, streamed):
    gradients(streamed)
    dtypes = [{parameter.dtype for parameter in layer.parameters()} for layer in streaming.layers(streamed)]
    assert dtypes[0] == {torch.float32}  # where the backward pass ended
    assert all(found == {torch.bfloat16} for found in dtypes[1:])
    about = streaming.size(streamed)
    assert about.outside + sum(about.layers) == sum(parameter.numel() for parameter in streamed.parameters())


def test_buffers_are_those_of_a_model_in_float32(folder, streamed):
    whole = hf.load_model(folder)
    ours, theirs = dict(streamed.named_buffers()), dict(whole.named_buffers())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in theirs)


def test_only_weights_that_are_all_in_16_bits_stay_so(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    assert hf.stored_dtype(folder) is torch.bfloat16
    found = load_file(folder / "model.safetensors")
    name = next(iter(found))
    save_file({**found, name: found[name].float()}, tmp_path / "model.safetensors")
    assert hf.stored_dtype(tmp_path) is torch.float32  # one that is not would be rounded


def test_an_unknown_architecture_is_refused_without_weights(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no-such-thing"}', encoding="utf-8")
    with pytest.raises(hf.UnsupportedModel, match="no code for language models of the architecture 'no-such-thing'"):
        hf.outline(tmp_path)
