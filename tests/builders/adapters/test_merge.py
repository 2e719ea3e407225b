"""Adapters are merged as PEFT merges them, and what does not fit is refused in one sentence that says what to do."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel

from builders.adapters.merge import merge
from builders.weights import read_header
from builders.writing import write_file
from config.errors import StageError, UpstreamError
from tests.releases import edit, read

TINY = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 40}
BOTH = ["q_proj", "down_proj"]


def llama(out: Path, *, tied: bool = False, dtype: torch.dtype = torch.bfloat16) -> Path:
    return _saved(LlamaConfig(**TINY, tie_word_embeddings=tied), out, dtype)


def gpt2(out: Path) -> Path:
    return _saved(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=40, n_positions=32), out, torch.float32)


def _saved(config: Any, out: Path, dtype: torch.dtype) -> Path:
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).to(dtype).save_pretrained(out)
    return out


def trained(base: Path, out: Path, *, rows: int | None = None, **settings: Any) -> Path:
    """An adapter with random values in every matrix, as PEFT saves it."""
    model = _read(base)
    if rows is not None:
        model.resize_token_embeddings(rows, mean_resizing=False)
    with warnings.catch_warnings():  # PEFT's advice to trainers
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(model, peft.LoraConfig(**{"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM", "target_modules": BOTH} | settings))
    torch.manual_seed(2)
    for name, values in wrapped.named_parameters():
        if values.requires_grad:
            values.data += 0.1 * torch.randn_like(values) if "magnitude" in name else 0.3 * torch.randn_like(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped.save_pretrained(out)
    edit(out / "adapter_config.json", base_model_name_or_path="upstream/base")
    return out


def _read(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model


def merged(base: Path, adapter: Path, out: Path) -> dict[str, Any]:
    out.mkdir()
    return merge(out, adapter=adapter, base=base, repo="upstream/adapter", below="upstream/base")


CASES: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "plain": (llama, {}),
    "stabilized, by patterns": (
        llama,
        {"use_rslora": True, "rank_pattern": {"model.layers.0.self_attn.q_proj": 2, "down_proj": 3}, "alpha_pattern": {r"layers.1\..*_proj": 11}},
    ),
    "weight-decomposed": (llama, {"use_dora": True}),
    "weights held whole": (llama, {"modules_to_save": ["lm_head", "input_layernorm"]}),
    "embeddings": (llama, {"target_modules": ["embed_tokens", "q_proj", "lm_head"]}),
    "columns": (gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "columns, weight-decomposed": (gpt2, {"target_modules": ["c_proj"], "use_dora": True, "fan_in_fan_out": True}),
}


@pytest.mark.filterwarnings("ignore")  # PEFT's advice to trainers
@pytest.mark.parametrize("case", CASES)
def test_what_comes_out_is_what_peft_makes(tmp_path: Path, case: str) -> None:
    make, settings = CASES[case]
    base = make(tmp_path / "base")
    adapter = trained(base, tmp_path / "adapter", **settings)
    found = merged(base, adapter, tmp_path / "out")
    theirs = peft.PeftModel.from_pretrained(_read(base), adapter).merge_and_unload(safe_merge=True).state_dict()
    before, ours = load_file(base / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert ours.keys() == before.keys()
    changed = {name for name in ours if not torch.equal(ours[name], before[name])}
    for name in ours:
        inside = name if name in theirs else f"transformer.{name}"
        assert ours[name].dtype == before[name].dtype
        torch.testing.assert_close(ours[name], theirs[inside].to(ours[name].dtype), rtol=8e-3 if ours[name].dtype is torch.bfloat16 else 1e-5, atol=1e-6)
        assert name in changed or torch.equal(theirs[inside].float(), before[name].float())
    assert (found["changed"], found["unchanged"], found["tensors"]) == (len(changed), 0, len(before))
    assert (found["rounded"] < 1e-6) == (make is gpt2)
    assert found["rounded"] < 0.02


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("settings", "untied"),
    [
        ({"target_modules": ["embed_tokens", "q_proj"]}, True),
        ({"modules_to_save": ["lm_head"]}, True),
        ({"modules_to_save": ["embed_tokens"]}, True),
        ({"target_modules": ["q_proj"], "rows": 43}, False),
        ({"target_modules": ["lm_head", "q_proj"]}, True),
    ],
)
def test_a_tied_base_answers_as_it_was_trained(tmp_path: Path, settings: dict[str, Any], untied: bool) -> None:
    """While it is trained, one of the two matrices is adapted and the other is not."""
    base = llama(tmp_path / "base", tied=True, dtype=torch.float32)
    adapter = trained(base, tmp_path / "adapter", **settings)
    assert merged(base, adapter, tmp_path / "out")["untied"] is untied
    model = _read(base)
    if rows := settings.get("rows"):
        model.resize_token_embeddings(rows, mean_resizing=False)
    theirs, tokens = peft.PeftModel.from_pretrained(model, adapter), torch.arange(12)[None]
    config = read(tmp_path / "out" / "config.json")
    assert (config["tie_word_embeddings"], config["vocab_size"]) == (not untied, rows or 40)
    with torch.no_grad():
        torch.testing.assert_close(_read(tmp_path / "out")(tokens).logits, theirs(tokens).logits, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base in one file, and an adapter of it."""
    base = llama(tmp_path_factory.mktemp("models") / "base")
    return base, trained(base, base.with_name("adapter"))


def changed_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def done(adapter: Path) -> None:
        weights = load_file(adapter / "adapter_model.safetensors")
        change(weights)
        save_file(weights, adapter / "adapter_model.safetensors")

    return done


def described(**values: object) -> Callable[[Path], object]:
    return lambda adapter: edit(adapter / "adapter_config.json", **values)


Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "another kind": (described(peft_type="IA3"), r"adapter of the kind IA3 \(adapter_config\.json, `peft_type`\), and only LoRA .* release the result"),
    "prompt tuning": (described(peft_type="PROMPT_TUNING"), "of the kind PROMPT_TUNING"),
    "a base that was changed": (described(init_lora_weights="pissa"), "`init_lora_weights` is 'pissa'.*path_initial_model_for_weight_conversion"),
    "a form that nobody knows": (described(use_new_thing=True), "`use_new_thing` in its adapter_config.json, which cannot be merged"),
    "no base": (described(base_model_name_or_path=None), "does not name the base model"),
    "no rank": (described(r="8"), "no usable `r`"),
    "another rank": (described(r=8), r"lora_A.weight of \[4, 24\] in F32, which does not fit .*down_proj.weight of \[16, 24\] in upstream/base and the rank"),
    "a pattern that takes hours": (described(rank_pattern={"(a*)*b": 4}), "no usable"),
    "no description": (lambda adapter: (adapter / "adapter_config.json").write_text("["), "adapter_config.json of upstream/adapter is not JSON"),
    "another model": (
        changed_weights(lambda weights: weights.update({Q: torch.ones(4, 20)})),
        r"of \[4, 20\] in F32, which does not fit .*name the right base",
    ),
    "modules that are not there": (
        changed_weights(
            lambda weights: weights.update({Q.replace("q_proj", "qkv"): torch.ones(4, 16), Q.replace("q_proj.lora_A", "qkv.lora_B"): torch.ones(4, 4)})
        ),
        "upstream/base has no tensor model.layers.0.self_attn.qkv.weight that it belongs to",
    ),
    "half of a pair": (changed_weights(lambda weights: weights.pop(Q)), "without what belongs to it"),
    "values that are none": (changed_weights(lambda weights: weights[Q].fill_(float("inf"))), "infinite or no numbers"),
    "nothing": (changed_weights(lambda weights: [values.zero_() for name, values in weights.items() if "lora_B" in name]), "changes nothing of upstream/base"),
    "no tensor": (changed_weights(lambda weights: weights.clear()), "holds no tensor"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_merged_is_refused(tmp_path: Path, pair: tuple[Path, Path], case: str) -> None:
    change, said = REFUSED[case]
    adapter = Path(shutil.copytree(pair[1], tmp_path / "adapter"))
    change(adapter)
    with pytest.raises(UpstreamError, match=said):
        merged(pair[0], adapter, tmp_path / "out")


def test_files_without_targets_are_the_base_s_and_an_index_stays_true(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    base = tmp_path / "base"
    shutil.copytree(pair[0], base, ignore=shutil.ignore_patterns("model.safetensors"))
    weights = load_file(pair[0] / "model.safetensors")
    where = {name: f"model-0000{1 + ('embed' in name)}-of-00002.safetensors" for name in weights}
    for file in set(where.values()):
        save_file({name: values for name, values in weights.items() if where[name] == file}, base / file, metadata={"format": "pt"})
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": where}))
    merged(base, pair[1], tmp_path / "out")
    assert (tmp_path / "out" / "model-00002-of-00002.safetensors").samefile(base / "model-00002-of-00002.safetensors")
    index = read(tmp_path / "out" / "model.safetensors.index.json")
    assert (index["weight_map"], index["metadata"]["total_size"]) == (where, sum(values.numel() * 2 for values in weights.values()))
    merged(pair[0], pair[1], tmp_path / "whole")
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    assert all(torch.equal(values, whole[name]) for file in set(where.values()) for name, values in load_file(tmp_path / "out" / file).items())
    (tmp_path / "hollow").mkdir()
    merge(tmp_path / "hollow", adapter=pair[1], base=base, repo="upstream/adapter", below="upstream/base", headers=True)
    for file in set(where.values()):
        assert read_header(tmp_path / "hollow" / file) == read_header(tmp_path / "out" / file)


def test_names_that_are_nested_otherwise_are_found(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    base = Path(shutil.copytree(pair[0], tmp_path / "base"))
    nested = {f"language_model.{name}": values for name, values in load_file(base / "model.safetensors").items()}
    save_file(nested, base / "model.safetensors", metadata={"format": "pt"})
    assert merged(base, pair[1], tmp_path / "out") == merged(*pair, tmp_path / "plain")
    plain = load_file(tmp_path / "plain" / "model.safetensors")
    assert all(torch.equal(values, plain[name.removeprefix("language_model.")]) for name, values in load_file(tmp_path / "out" / "model.safetensors").items())


def test_what_another_hand_writes_is_found(tmp_path: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(target: Path, tensors: Any, values: Any) -> None:
        write_file(target, tensors, (bytes(len(data)) if tensor.name == "model.norm.weight" else data for tensor, data in zip(tensors, values, strict=True)))

    monkeypatch.setattr("builders.adapters.merge.write_file", wrong)
    with pytest.raises(StageError, match=r"wrote other tensors than it should have, among them model\.norm\.weight"):
        merged(*pair, tmp_path / "out")
