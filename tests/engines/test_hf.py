import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from config.errors import MeasurementError, UnsupportedModel
from engines import hf
from tests import releases

BOS, IM_END = 1, 4
CHAT = [{"role": "user", "content": "What is the capital of Belgium?"}]


@pytest.fixture(scope="module")
def model(demo: Path):
    with hf.open_model(demo, threads=1) as loaded:
        yield loaded


@pytest.fixture
def folder(demo: Path, tmp_path: Path) -> Path:
    return shutil.copytree(demo, tmp_path / "model")


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_renders_a_conversation(model) -> None:
    text = "<s><|im_start|>user\nWhat is the capital of Belgium?<|im_end|>\n"
    assert hf.render_chat(model.tokenizer, CHAT) == text
    assert hf.render_chat(model.tokenizer, CHAT, add_generation_prompt=True) == f"{text}<|im_start|>assistant\n"
    assert hf.render_chat(model.tokenizer, [{**CHAT[0], "tool_calls": None}]) == text
    assert hf.render_chat(model.tokenizer, CHAT) == model.tokenizer.apply_chat_template(CHAT, tokenize=False)


def test_a_template_that_fails_is_an_error(folder: Path) -> None:
    change(folder / "tokenizer_config.json", chat_template="{{ raise_exception('no system role') }}")
    with pytest.raises(MeasurementError, match="no system role"):
        hf.render_chat(hf.load_tokenizer(folder), CHAT)


def test_a_template_cannot_leave_its_sandbox(folder: Path) -> None:
    change(folder / "tokenizer_config.json", chat_template="{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(MeasurementError, match="unsafe"):
        hf.render_chat(hf.load_tokenizer(folder), CHAT)


def test_a_model_without_template_is_an_error(folder: Path) -> None:
    change(folder / "tokenizer_config.json", chat_template=None)
    with pytest.raises(MeasurementError, match="no chat template"):
        hf.render_chat(hf.load_tokenizer(folder), CHAT)


@pytest.mark.parametrize(("form", "adds"), [("<s> A", True), ("A <s>", False), ("A", False)])
def test_whether_the_tokenizer_adds_bos(tmp_path: Path, form: str, adds: bool) -> None:
    """Not where the same token is eos, as GPT's is, and stands behind each text."""
    model = releases.clean(tmp_path / "model")
    single = [{"Sequence": {"id": "A", "type_id": 0}} if part == "A" else {"SpecialToken": {"id": part, "type_id": 0}} for part in form.split()]
    processor = releases.read(model / "tokenizer.json")["post_processor"] | {"single": single}
    releases.edit(model / "tokenizer.json", post_processor=processor)
    releases.edit(model / "tokenizer_config.json", add_bos_token=releases.GONE, add_eos_token=releases.GONE)
    tokenizer = hf.load_tokenizer(model)
    assert hf.encode(tokenizer, "", add_special=True) == [BOS] * form.count("<s>")
    assert hf.adds_bos(tokenizer) is adds


def test_encodes_specials_only_when_told_to(model) -> None:
    assert model.tokenize("<s>a", add_special=True)[:2] == [BOS, BOS]
    assert model.tokenize("<s>a", add_special=False)[0] == BOS
    assert BOS not in model.tokenize("<s>a", add_special=False, parse_special=False)


def test_code_that_the_config_names_is_not_looked_for(folder: Path) -> None:
    assert "auto_map" in json.loads((folder / "config.json").read_text())
    assert type(hf.load_model(folder)).__name__ == "LlamaForCausalLM"


def test_pickled_weights_are_not_opened(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(MeasurementError, match="safetensors"):
        hf.load_model(folder)


def test_an_architecture_without_code_is_told_apart_from_a_broken_model(folder: Path) -> None:
    change(folder / "config.json", model_type="not-in-transformers")
    with pytest.raises(UnsupportedModel, match="'not-in-transformers', and code from a release is not run"):
        hf.load_model(folder)
    change(folder / "config.json", model_type="t5")  # known, and no causal language model
    with pytest.raises(UnsupportedModel, match="'t5'"):
        hf.load_model(folder)
    for broken in ({"model_type": "llama", "num_hidden_layers": "many"}, {"model_type": ""}):
        change(folder / "config.json", **broken)
        with pytest.raises(MeasurementError, match="cannot load a model") as raised:
            hf.load_model(folder)
        assert not isinstance(raised.value, UnsupportedModel)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="absent"):
        hf.load_tokenizer(tmp_path / "absent")


def test_logits_and_continuations_agree(model) -> None:
    tokens = model.tokenize(hf.render_chat(model.tokenizer, CHAT), add_special=False)
    everything = model.logits(tokens, 0)
    assert everything.shape == (len(tokens), 2048)
    assert everything.dtype == np.float32
    np.testing.assert_allclose(model.logits(tokens, 5), everything[5:], atol=1e-4)
    rows = model.continuations(tokens[:5], [tokens[5:8], tokens[5:]])
    np.testing.assert_allclose(rows, everything[[7, -1]], atol=1e-3)
    np.testing.assert_allclose(model.continuations([], [tokens[:3]]), everything[[2]], atol=1e-3)


def test_generates_until_a_stop_token(model) -> None:
    tokens = model.tokenize(hf.render_chat(model.tokenizer, CHAT, add_generation_prompt=True), add_special=False)
    answer = model.generate(tokens, max_tokens=30, stop={IM_END})
    assert answer[-1] == IM_END
    assert "Brussels" in model.detokenize(answer)
    assert len(model.generate(tokens, max_tokens=3, stop=())) == 3


def test_end_tokens_come_from_generation_config_and_else_from_config(folder: Path) -> None:
    change(folder / "generation_config.json", eos_token_id=[4, 5])
    assert hf.end_tokens(folder) == {4, 5}
    (folder / "generation_config.json").unlink()
    assert hf.end_tokens(folder) == {5}
    (folder / "config.json").write_text("[]")
    with pytest.raises(MeasurementError, match="cannot be read"):
        hf.end_tokens(folder)


def test_values_that_are_not_finite_are_named(folder: Path) -> None:
    assert hf.not_finite(folder) == []
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][3] = torch.inf
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert hf.not_finite(folder) == ["model.safetensors: model.norm.weight"]
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(MeasurementError, match="damaged"):
        hf.not_finite(folder)
