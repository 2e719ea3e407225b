"""A model rebuilt from its GGUF file alone: weights, config, tokenizer, template and terms are those that the file was made of, or it is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from builders import front_matter
from builders.rebuilt import architectures, headers, layout, rebuild
from config.errors import UpstreamError
from engines import hf, toolchain, tools
from tests import ggufs, releases

MIXTURES = ("Qwen3-MoE", "Mixtral", "Granite MoE")
NAMES = ("Llama", "Qwen2", "Qwen3", "Gemma 2", "Gemma 3", "Mistral", "Phi-3", "Granite", "SmolLM3", *MIXTURES)
SAME = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "max_position_embeddings", "rms_norm_eps"),
    *("tie_word_embeddings", "vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "sliding_window", "query_pre_attn_scalar", "layer_types"),
    *("attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling", "attn_logit_softcapping", "final_logit_softcapping"),
    *("no_rope_layers", "original_max_position_embeddings", "hidden_act", "hidden_activation"),
)

Made = tuple[Path, Path, Path]
"""A model, the folder with its GGUF file alone, and what is rebuilt from that."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Each miniature, made when it is first asked for."""
    found: dict[str, Made] = {}

    def make(name: str) -> Made:
        if name not in found:
            out = tmp_path_factory.mktemp(name.replace(" ", ""))
            model, alone = ggufs.converted(name, out)
            (out / "again").mkdir()
            rebuild.rebuild(out / "again", snapshot=alone, files=ggufs.sources(ggufs.file(alone)))
            found[name] = model, alone, out / "again"
        return found[name]

    return make


def content(folder: Path, name: str = "config.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_bytes())
    return found


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_the_same_bits_and_config_says_the_same(name: str, made: Callable[[str], Made]) -> None:
    model, _, again = made(name)
    before, after = load_file(model / "model.safetensors"), load_file(again / "model.safetensors")
    assert before.keys() == after.keys()
    assert [key for key in before if before[key].dtype != after[key].dtype or not torch.equal(before[key], after[key])] == []
    one, other = content(model), content(again)
    expected = {key: one[key] for key in SAME if key in one and key in other}
    assert {key: other.get(key) for key in expected} == expected
    assert other["dtype"] == other["torch_dtype"] == "bfloat16"
    assert other["architectures"] == (["LlamaForCausalLM"] if name == "Mistral" else one["architectures"])


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_of_experts_is_the_same_to_transformers(name: str, made: Callable[[str], Made]) -> None:
    """But for how it would be trained on, and what stands where its heads are as wide as all usual ones."""
    model, _, again = made(name)
    one, other = (AutoConfig.from_pretrained(folder).to_dict() for folder in (model, again))
    differing = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
    assert differing <= {"_name_or_path", "initializer_range", "head_dim", "sliding_window"}
    tokens = torch.arange(3, 67)[None]
    logits, expected = (hf.load_model(folder)(tokens).logits for folder in (again, model))
    assert torch.equal(logits, expected)


def test_what_sends_tokens_to_experts_stays_in_32_bits_where_16_do_not_hold_it(tmp_path: Path) -> None:
    model, _ = ggufs.converted("Mixtral", tmp_path)
    name = "model.layers.1.block_sparse_moe.gate.weight"
    weights = load_file(model / "model.safetensors")
    weights[name] = weights[name].float() + 1e-5
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    shutil.rmtree(tmp_path / "alone")
    alone = ggufs.alone(model, tmp_path / "alone")
    (tmp_path / "again").mkdir()
    rebuild.rebuild(tmp_path / "again", snapshot=alone, files=ggufs.sources(ggufs.file(alone)))
    after = load_file(tmp_path / "again" / "model.safetensors")
    assert {name for name, value in after.items() if value.dtype != torch.bfloat16} == {name}
    assert torch.equal(after[name], weights[name])


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("Mixtral", (2, 64, 64), r"holds {} of the shape \(2, 64, 64\), which are not the matrices of 4 experts"),
        ("Mixtral", (4, 64), r"holds {} of the shape \(4, 64\), which are not the matrices of 4 experts"),
        ("Granite MoE", (4, 32, 64), r"holds blk.1.ffn_gate_exps.weight in BF16 of the shape \(4, 64, 64\), but {} in F32 of \(4, 32, 64\)"),
    ],
)
def test_experts_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...], said: str, made: Callable[[str], Made], tmp_path: Path) -> None:
    _, alone, _ = made(name)
    tensor = "blk.1.ffn_up_exps.weight"
    ggufs.rewritten(alone / ggufs.file(alone), tmp_path / "m.gguf", tensors={tensor: np.zeros(shape, dtype=np.float32)})
    with pytest.raises(UpstreamError, match=f"^m.gguf {said.format(tensor)}"):
        layout.tensors(headers.read(tmp_path, ["m.gguf"]), "m.gguf")


def test_what_it_says_of_itself(made: Callable[[str], Made], tmp_path: Path) -> None:
    _, alone, again = made("Llama")
    assert (again / "LICENSE").read_bytes() == (alone / "LICENSE").read_bytes()
    assert (again / "README.md").read_bytes() == (alone / "README.md").read_bytes(), "which says all that there is to say"
    file = ggufs.file(alone)
    told = rebuild.rebuild(tmp_path, snapshot=alone, files=[{"path": file, "sha256": "a" * 64}], over=["other-F16.gguf"])
    assert told["gguf"] == [{"path": file, "sha256": "a" * 64}]
    assert (told["architecture"], told["tensors"]) == ("llama", 21)
    assert told["remark"] == f"from {file}, the widest of the files in 16 bits or more (the others: other-F16.gguf)"


def test_what_the_header_says_of_terms_and_origin_is_told_where_the_card_does_not(made: Callable[[str], Made], tmp_path: Path) -> None:
    _, alone, _ = made("Llama")
    (tmp_path / "there").mkdir()
    said: dict[str, Any] = {
        "general__license": "apache-2.0",
        "general__languages": ["en", "de"],
        "general__base_model__count": 1,
        "general__base_model__0__repo_url": "https://huggingface.co/makers/base",
    }
    ggufs.rewritten(alone / ggufs.file(alone), tmp_path / "there" / "m-BF16.gguf", **said)
    for number, (card, expected) in enumerate(
        [
            (None, {"license": "apache-2.0", "language": ["en", "de"], "base_model": ["makers/base"]}),
            ("---\nlicense: mit\ntags: [fine]\n---\n# Mine\n", {"license": "mit", "tags": ["fine"], "language": ["en", "de"], "base_model": ["makers/base"]}),
        ]
    ):
        (tmp_path / "there" / "README.md").unlink(missing_ok=True)
        if card is not None:
            (tmp_path / "there" / "README.md").write_text(card, encoding="utf-8")
        out = tmp_path / str(number)
        out.mkdir()
        rebuild.rebuild(out, snapshot=tmp_path / "there", files=ggufs.sources("m-BF16.gguf"))
        assert front_matter.read(out / "README.md") == expected
        assert (out / "README.md").read_text(encoding="utf-8").endswith("# Mine\n" if card else "---\n")


def test_sampling_templates_and_ids_come_from_the_header(made: Callable[[str], Made], tmp_path: Path) -> None:
    _, alone, _ = made("Llama")
    (tmp_path / "there").mkdir()
    template = "{% for m in messages %}{{ m.content }}\r\n{% endfor %}ä"
    said: dict[str, Any] = {"general__sampling__temp": 0.6, "general__sampling__top_k": 20, "general__sampling__top_p": 0.95}
    said |= {"general__sampling__penalty_repeat": 1.1, "general__sampling__sequence": "top_k;temperature"}
    ggufs.rewritten(alone / ggufs.file(alone), tmp_path / "there" / "m.gguf", tokenizer__chat_template=template, **said)
    rebuild.rebuild(tmp_path, snapshot=tmp_path / "there", files=ggufs.sources("m.gguf"))
    assert (tmp_path / "chat_template.jinja").read_bytes() == template.encode()
    ids = {"bos_token_id": 1, "eos_token_id": 4, "pad_token_id": 5}
    penalties = {"penalty_repeat": 1.1, "repetition_penalty": 1.1, "sequence": "top_k;temperature"}
    assert content(tmp_path, "generation_config.json") == {**ids, "do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, **penalties}


def test_several_templates_keep_their_names(made: Callable[[str], Made], tmp_path: Path) -> None:
    _, alone, _ = made("Llama")
    (tmp_path / "there").mkdir()
    named: dict[str, Any] = {"tokenizer__chat_template": "A", "tokenizer__chat_templates": ["tool_use"], "tokenizer__chat_template__tool_use": "B"}
    ggufs.rewritten(alone / ggufs.file(alone), tmp_path / "there" / "m.gguf", **named)
    rebuild.rebuild(tmp_path, snapshot=tmp_path / "there", files=ggufs.sources("m.gguf"))
    assert content(tmp_path, "tokenizer_config.json")["chat_template"] == [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]
    assert not (tmp_path / "chat_template.jinja").exists()


def test_a_llama_that_speaks_as_mistral_does_is_one_of_its_family(made: Callable[[str], Made], tmp_path: Path) -> None:
    _, alone, _ = made("Mistral")
    (tmp_path / "there").mkdir()
    template = (toolchain.sources() / "models" / "templates" / "mistralai-Mistral-Nemo-Instruct-2407.jinja").read_text(encoding="utf-8")
    ggufs.rewritten(alone / ggufs.file(alone), tmp_path / "there" / "m.gguf", tokenizer__chat_template=template)
    rebuild.rebuild(tmp_path, snapshot=tmp_path / "there", files=ggufs.sources("m.gguf"))
    found = content(tmp_path)
    assert (found["architectures"], found["model_type"], found["sliding_window"]) == (["MistralForCausalLM"], "mistral", None)


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        (ggufs.ROPE, ggufs.ROPE),
        ({"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}, None),
        ({"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 256}, None),
    ],
)
def test_scaled_positions_are_told_from_what_is_there(tmp_path: Path, scaling: dict[str, Any], expected: dict[str, Any] | None) -> None:
    _, alone = ggufs.converted("Llama", tmp_path, rope_parameters=scaling)
    (tmp_path / "again").mkdir()
    rebuild.rebuild(tmp_path / "again", snapshot=alone, files=ggufs.sources(ggufs.file(alone)))
    found = content(tmp_path / "again")
    assert {**found["rope_scaling"], "rope_theta": found["rope_theta"]} == (expected or scaling)


LONG_ROPE: dict[str, Any] = {"short_factor": [1.0, 1.05, *[1.1] * 6], "long_factor": [1.0, *[number / 0.7 for number in range(1, 8)]]}


def test_factors_that_stand_in_config_json_themselves_are_the_same_numbers(tmp_path: Path) -> None:
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, **LONG_ROPE}
    _, alone = ggufs.converted("Phi-3", tmp_path, rope_parameters={**rope, "original_max_position_embeddings": 256}, original_max_position_embeddings=256)
    (tmp_path / "again").mkdir()
    rebuild.rebuild(tmp_path / "again", snapshot=alone, files=ggufs.sources(ggufs.file(alone)))
    found = content(tmp_path / "again")
    assert found["rope_scaling"].keys() == {"type", *LONG_ROPE}, "which is all that transformers 4 takes"
    assert {name: np.float32(found["rope_scaling"][name]).tolist() for name in LONG_ROPE} == {name: np.float32(LONG_ROPE[name]).tolist() for name in LONG_ROPE}
    assert found["original_max_position_embeddings"] == 256
    ggufs.rewritten(alone / ggufs.file(alone), tmp_path / "m.gguf", tensors={"rope_factors_short.weight": None})
    with pytest.raises(
        UpstreamError, match=r"^m.gguf holds rope_factors_long.weight of the two tensors rope_factors_long.weight and rope_factors_short.weight"
    ):
        rebuild.rebuild(tmp_path / "again", snapshot=tmp_path, files=ggufs.sources("m.gguf"))


def test_heads_that_are_rotated_in_part_are_told_by_the_share(made: Callable[[str], Made], tmp_path: Path) -> None:
    _, alone, _ = made("Phi-3")
    ggufs.rewritten(alone / ggufs.file(alone), tmp_path / "m.gguf", phi3__rope__dimension_count=12)
    assert architectures.config(headers.read(tmp_path, ["m.gguf"]), "m.gguf")["partial_rotary_factor"] == 0.75


def test_queries_of_the_largest_gemma_2_are_divided_by_what_its_width_says(made: Callable[[str], Made], tmp_path: Path) -> None:
    """As llama.cpp knows it, by its number of layers."""
    _, alone, again = made("Gemma 2")
    assert content(again)["query_pre_attn_scalar"] == content(again)["head_dim"] == 32
    ggufs.rewritten(alone / ggufs.file(alone), tmp_path / "m.gguf", gemma2__block_count=46)
    assert architectures.config(headers.read(tmp_path, ["m.gguf"]), "m.gguf")["query_pre_attn_scalar"] == 64 // 4


@pytest.mark.parametrize(
    ("name", "changes", "without", "said"),
    [
        ("Granite", {}, "granite.attention.scale", "states None as granite.attention.scale, where a number has to be"),
        ("Granite", {"granite__attention__key_length": 16}, "", "states granite.attention.key_length, which none of the models does"),
        ("Gemma 2", {}, "gemma2.attn_logit_softcapping", "states None as gemma2.attn_logit_softcapping, where a number has to be"),
        ("Phi-3", {"phi3__rope__dimension_count": 0}, "", "states 0 as phi3.rope.dimension_count, where a number has to be"),
    ],
)
def test_what_an_architecture_has_to_state_is_asked_for(
    name: str, changes: dict[str, Any], without: str, said: str, made: Callable[[str], Made], tmp_path: Path
) -> None:
    _, alone, _ = made(name)
    ggufs.rewritten(alone / ggufs.file(alone), tmp_path / "m.gguf", without=[without], **changes)
    with pytest.raises(UpstreamError, match=f"^m.gguf {said}"):
        architectures.config(headers.read(tmp_path, ["m.gguf"]), "m.gguf")


def test_factors_of_its_own_are_refused(tmp_path: Path) -> None:
    _, alone = ggufs.converted("Llama", tmp_path, rope_parameters=ggufs.ROPE)
    factors = np.linspace(1, 3, 32, dtype=np.float32)
    (tmp_path / "there").mkdir()
    ggufs.rewritten(alone / ggufs.file(alone), tmp_path / "there" / "m.gguf", tensors={"rope_freqs.weight": factors})
    (tmp_path / "again").mkdir()
    with pytest.raises(UpstreamError, match=r"^m.gguf scales positions by factors of its own \(rope_freqs.weight\)"):
        rebuild.rebuild(tmp_path / "again", snapshot=tmp_path / "there", files=ggufs.sources("m.gguf"))


def test_a_file_in_parts_is_the_same_model(made: Callable[[str], Made], tmp_path: Path) -> None:
    _, alone, again = made("Gemma 3")
    there = Path(shutil.copytree(alone, tmp_path / "there"))
    parts = ggufs.split(there)
    (tmp_path / "again").mkdir()
    told = rebuild.rebuild(tmp_path / "again", snapshot=there, files=ggufs.sources(*parts))
    assert told["remark"] == f"from {parts[0]} and {len(parts) - 1} more parts"
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == {path.name: path.read_bytes() for path in again.iterdir()}


def test_many_weights_go_into_several_files(made: Callable[[str], Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, alone, again = made("Qwen3")
    monkeypatch.setattr(rebuild, "SHARD", 150_000)
    rebuild.rebuild(tmp_path, snapshot=alone, files=ggufs.sources(ggufs.file(alone)))
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    index = content(tmp_path, "model.safetensors.index.json")
    found = {name: value for shard in shards for name, value in load_file(tmp_path / shard).items()}
    whole = load_file(again / "model.safetensors")
    assert index["weight_map"].keys() == whole.keys() == found.keys()
    assert all(torch.equal(found[name], whole[name]) for name in whole)
    assert all(name in load_file(tmp_path / shard) for name, shard in index["weight_map"].items())


def test_norms_that_16_bits_do_not_hold_stay_in_32(tmp_path: Path) -> None:
    model, _ = ggufs.converted("Gemma 3", tmp_path)
    weights = load_file(model / "model.safetensors")
    norm = weights["model.norm.weight"]
    save_file(weights | {"model.norm.weight": torch.full(norm.shape, 0.12345678)}, model / "model.safetensors", metadata={"format": "pt"})
    shutil.rmtree(tmp_path / "alone")
    alone = ggufs.alone(model, tmp_path / "alone")
    (tmp_path / "again").mkdir()
    rebuild.rebuild(tmp_path / "again", snapshot=alone, files=ggufs.sources(ggufs.file(alone)))
    after = load_file(tmp_path / "again" / "model.safetensors")
    assert {name for name, value in after.items() if value.dtype != torch.bfloat16} == {"model.norm.weight"}
    assert torch.equal(after["model.norm.weight"] + 1, torch.full(norm.shape, 0.12345678) + 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"general__architecture": "mamba"}, "is of the architecture 'mamba'; of llama, qwen2, qwen3, gemma2, gemma3, phi3, granite, smollm3"),
        ({"general__type": "adapter"}, "holds no model but what GGUF calls 'adapter'"),
        ({"general__architecture": "qwen2moe"}, "is of the architecture 'qwen2moe'; of .* Sluice can rebuild config and tensors, so no release"),
        ({"llama__expert_count": 8}, "states None as llama.expert_used_count, where a number has to be"),
        ({"llama__expert_count": 8, "llama__expert_used_count": 9}, "sends a token to 9 of 8 experts, of which llama.cpp knows 512 at most"),
        ({"llama__expert_count": 8, "llama__expert_used_count": 2}, "holds the tensor blk.0.ffn_down.weight, which none .* knows as mixtral"),
        ({"llama__attention__head_count": [4, 4]}, r"states \[4, 4\] as llama.attention.head_count, where a number has to be"),
        ({"llama__attention__head_count_kv": 0}, "states 0 as llama.attention.head_count_kv"),
        ({"llama__attention__layer_norm_rms_epsilon": "small"}, "states small as llama.attention.layer_norm_rms_epsilon"),
        ({"tokenizer__ggml__model": "bert"}, "has a vocabulary of the kind 'bert'; of 'gpt2' and 'llama'"),
        ({"tokenizer__ggml__model": "gpt2", "tokenizer__ggml__pre": "unheard-of"}, "cuts its text by 'unheard-of'"),
        ({"tokenizer__ggml__scores": [0.0]}, "has a vocabulary of 2048 tokens, and the scores of 1"),
        ({"tokenizer__ggml__tokens": ["a"] * 2048}, "holds a token twice"),
        ({"llama__rope__scaling__type": "longrope", "llama__rope__scaling__factor": 2.0}, "scales positions by 'longrope'"),
    ],
)
def test_what_is_not_known_is_refused_by_name(made: Callable[[str], Made], tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    _, alone, _ = made("Llama")
    (tmp_path / "there").mkdir()
    ggufs.rewritten(alone / ggufs.file(alone), tmp_path / "there" / "m.gguf", **changes)
    with pytest.raises(UpstreamError, match=f"^m.gguf {said}"):
        rebuild.rebuild(tmp_path, snapshot=tmp_path / "there", files=ggufs.sources("m.gguf"))


def test_quantized_tensors_are_refused_whatever_the_name_says(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(releases.DEMO, tmp_path / "model"))
    alone = ggufs.alone(folder, tmp_path / "alone")
    tools.run("llama-quantize", alone / ggufs.file(alone), alone / "model.gguf", "Q8_0", "1")
    with pytest.raises(UpstreamError, match=r"^model.gguf is quantized already \(.* is Q8_0\)"):
        rebuild.rebuild(tmp_path, snapshot=alone, files=ggufs.sources("model.gguf"))


def test_damaged_and_lacking_files_are_told(made: Callable[[str], Made], tmp_path: Path) -> None:
    _, alone, _ = made("Llama")
    whole = (alone / ggufs.file(alone)).read_bytes()
    for name, data, said in (("a.gguf", whole[:-1000], "its tensors end at"), ("b.gguf", b"no such thing", "does not begin as a GGUF file does")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UpstreamError, match=f"^{name} cannot be read as a GGUF file: .*{said}"):
            rebuild.rebuild(tmp_path, snapshot=tmp_path, files=ggufs.sources(name))


@pytest.mark.parametrize("name", ["Llama", *MIXTURES])
def test_headers_alone_tell_names_and_shapes(name: str, made: Callable[[str], Made], tmp_path: Path) -> None:
    _, alone, again = made(name)
    header = headers.read(alone, [ggufs.file(alone)])
    found = layout.tensors(header, "m.gguf")
    whole = load_file(again / "model.safetensors")
    assert {name: tensor.shape for name, tensor in found.items()} == {name: tuple(value.shape) for name, value in whole.items()}
    rebuild.describe_all(tmp_path, alone, header, ggufs.file(alone))
    told = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".safetensors"}
    assert told == {path.name: path.read_bytes() for path in again.iterdir() if path.suffix != ".safetensors"}


def test_the_file_s_own_reader_agrees(made: Callable[[str], Made]) -> None:
    """What gguf's reader says is in the file, and is all in what was rebuilt."""
    _, alone, again = made("Qwen3")
    reader = GGUFReader(alone / ggufs.file(alone))
    assert len(load_file(again / "model.safetensors")) == len(reader.tensors)
    assert content(again, "tokenizer.json")["model"]["vocab"].keys() == {*reader.fields["tokenizer.ggml.tokens"].contents()}
