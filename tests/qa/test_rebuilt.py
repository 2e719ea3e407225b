"""The proof that a model rebuilt from GGUF is the one in the file: it passes what is the same, and names what is not."""

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

from builders.rebuilt import rebuild
from config.errors import ProgramError, UpstreamError
from qa import rebuilt
from tests import architectures, ggufs, releases


def again(alone: Path, out: Path) -> Path:
    """The model that the file in a folder gives."""
    out.mkdir()
    rebuild.rebuild(out, snapshot=alone, files=ggufs.sources(ggufs.file(alone)))
    return out


def proved(model: Path, alone: Path, out: Path) -> dict[str, Any]:
    return rebuilt.prove(out, model=model, snapshot=alone, files=[ggufs.file(alone)])


@pytest.mark.parametrize("name", ["Llama", "Qwen3", "Gemma 2", "Gemma 3", "Mistral", "Phi-3", "Granite", "SmolLM3", "Qwen3-MoE", "Mixtral", "Granite MoE"])
def test_each_architecture_is_proved(name: str, tmp_path: Path) -> None:
    _, alone = ggufs.converted(name, tmp_path)
    found = proved(again(alone, tmp_path / "again"), alone, tmp_path)
    assert found["tensors"] == len(GGUFReader(alone / ggufs.file(alone)).tensors)
    assert found["fields"] >= 15
    assert found["texts"] > 150
    assert not list(tmp_path.glob("*.gguf")), "what was converted back is gone"


def test_a_vocabulary_that_transformers_reads_by_other_rules_is_refused(tmp_path: Path) -> None:
    """The bundled one in a Qwen 2: transformers reads it as that family's, whatever tokenizer.json says. Qwen's own is proved below."""
    _, alone = ggufs.made(architectures.small("Qwen2"), tmp_path)
    with pytest.raises(UpstreamError, match="its tokenizer reads a text otherwise than llama.cpp does by the file: .*transformers departs from tokenizer.json"):
        proved(again(alone, tmp_path / "again"), alone, tmp_path)


@pytest.mark.parametrize(
    "scaling",
    [ggufs.ROPE, {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 256, "attention_factor": 1.25}],
)
def test_scaled_positions_are_proved(tmp_path: Path, scaling: dict[str, Any]) -> None:
    _, alone = ggufs.converted("Llama", tmp_path, rope_parameters=scaling)
    assert proved(again(alone, tmp_path / "again"), alone, tmp_path)["tensors"] > 20


def test_factors_for_long_texts_and_heads_that_are_rotated_in_part_are_proved(tmp_path: Path) -> None:
    """As of Phi-3 with 128k tokens and of Phi-4 mini."""
    factors = {"short_factor": [1.0, 1.05, *[1.1] * 4], "long_factor": [1.0, *[number / 0.7 for number in range(1, 6)]]}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 256, **factors}
    _, alone = ggufs.converted("Phi-3", tmp_path, rope_parameters=rope, original_max_position_embeddings=256, partial_rotary_factor=0.75)
    assert {"rope_factors_long.weight", "rope_factors_short.weight"} < {tensor.name for tensor in GGUFReader(alone / ggufs.file(alone)).tensors}
    assert proved(again(alone, tmp_path / "again"), alone, tmp_path)["tensors"] > 10


def test_special_tokens_that_swallow_white_space_are_told_by_the_name(tmp_path: Path) -> None:
    """Which is how llama.cpp knows Phi-3; its makers' file is called Phi3."""
    model, _ = ggufs.converted("Phi-3", tmp_path)
    stay = {"<unk>", "<s>", "<|endoftext|>"}
    tokens = releases.read(model / "tokenizer.json")["added_tokens"]
    listed = [token | {"rstrip": token["content"] not in stay} for token in ({**tokens[0], "id": 0, "content": "<unk>"}, *tokens)]
    releases.edit(model / "tokenizer.json", added_tokens=listed)
    decoder = {str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in listed}
    releases.edit(model / "tokenizer_config.json", added_tokens_decoder=decoder)
    shutil.rmtree(tmp_path / "alone")
    alone = ggufs.alone(model, tmp_path / "alone")
    made = again(alone, tmp_path / "again")
    kept = {token["content"]: token["rstrip"] for token in releases.read(made / "tokenizer.json")["added_tokens"]}
    assert kept == {token["content"]: token["rstrip"] for token in listed}
    assert proved(made, alone, tmp_path)["texts"] > 150
    (tmp_path / "renamed").mkdir()
    ggufs.rewritten(alone / ggufs.file(alone), tmp_path / "renamed" / "m-BF16.gguf", general__name="Mine")
    assert not any(token["rstrip"] for token in releases.read(again(tmp_path / "renamed", tmp_path / "other") / "tokenizer.json")["added_tokens"])


def test_a_file_in_parts_and_one_in_32_bits_are_proved(tmp_path: Path) -> None:
    model, alone = ggufs.converted("Qwen3", tmp_path)
    made = again(alone, tmp_path / "again")
    parts = ggufs.split(alone)
    assert rebuilt.prove(tmp_path, model=made, snapshot=alone, files=parts)["tensors"] > 20
    weights = {name: value.float() + 1e-4 for name, value in load_file(model / "model.safetensors").items()}
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    releases.edit(model / "config.json", dtype="float32")
    wide = ggufs.alone(model, tmp_path / "wide")
    assert ggufs.file(wide).endswith("F32.gguf")
    assert proved(again(wide, tmp_path / "wide again"), wide, tmp_path)["tensors"] > 20


VOCABULARIES = [
    *(("gpt-2", "llama", None), ("llama-bpe", "llama", None), ("qwen2", "qwen2", None), ("llama-spm", "llama", None), ("refact", "llama", None)),
    *(("starcoder", "llama", None), ("llama-bpe", "smollm3", "smaug-bpe")),  # the last is Llama 3's of which words are merged from their parts: SmolLM3's
]


@pytest.mark.slow
@pytest.mark.parametrize(("vocabulary", "architecture", "cut"), VOCABULARIES)
def test_the_vocabularies_of_the_families_are_proved(vocabulary: str, architecture: str, cut: str | None, tmp_path: Path) -> None:
    """Those that llama.cpp collects, by what their files say alone."""
    (tmp_path / "alone").mkdir()
    ggufs.with_vocabulary(vocabulary, architecture, tmp_path / "alone" / "m-F16.gguf", cut=cut)
    found = proved(again(tmp_path / "alone", tmp_path / "again"), tmp_path / "alone", tmp_path)
    assert found["texts"] > 150


def test_a_phi_with_a_vocabulary_of_bytes_is_converted_and_proved(tmp_path: Path) -> None:
    """Phi-4, which the converter knows by the class of its tokenizer, whatever that is called."""
    alone = ggufs.alone(ggufs.phi_of_bytes(tmp_path / "model"), tmp_path / "alone")
    assert GGUFReader(alone / ggufs.file(alone)).fields["tokenizer.ggml.model"].contents() == "gpt2"
    assert proved(again(alone, tmp_path / "again"), alone, tmp_path)["texts"] > 150


def _other_value(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["model.layers.1.self_attn.k_proj.weight"][0, 0] += 1
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def _rows_exchanged(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    save_file(weights | {name: weights[name].flip(0)}, model / "model.safetensors", metadata={"format": "pt"})


def _lost(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def _words(model: Path, **changes: Any) -> None:
    releases.edit(model / "tokenizer_config.json", **changes)


def _unbegun(model: Path) -> None:
    """In both places: what is put around a text outweighs the flag, in the converter as in transformers."""
    _words(model, add_bos_token=False)
    releases.edit(model / "tokenizer.json", post_processor=None)


def _other_normalizer(model: Path) -> None:
    releases.edit(model / "tokenizer.json", normalizer={"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": " "}, "content": "_"}]})


def _other_piece(model: Path) -> None:
    path = model / "tokenizer.model"
    data = path.read_bytes()
    at = data.index("▁the".encode())
    path.write_bytes(data[:at] + "▁thx".encode() + data[at + len("▁the".encode()) :])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_other_value, r"blk.1.attn_k.weight has other values when it is converted back"),
        (_rows_exchanged, r"blk.0.attn_q.weight has other values"),
        (_lost, r"the tensor output.weight is lost"),
        (lambda model: releases.edit(model / "config.json", rms_norm_eps=1e-5), r"llama.attention.layer_norm_rms_epsilon is 9.99.*e-07 there and 9.99.*e-06"),
        (lambda model: releases.edit(model / "config.json", rope_theta=5000.0), r"llama.rope.freq_base is 10000.0 there and 5000.0"),
        (lambda model: _words(model, eos_token="</s>"), r"the token that ends a text is 4 there and 2"),
        (_unbegun, r"whether a text begins with it is True there and False"),
        (lambda model: _words(model, add_prefix_space=True), r"tokenizer.ggml.add_space_prefix is False there and True"),
        (lambda model: (model / "chat_template.jinja").write_text("other"), r"tokenizer.chat_template is .* there and 'other'"),
        (_other_piece, r"tokenizer.ggml.tokens is a list of 2048 there and a list of 2048 converted back, from entry \d+ on \('▁the\w*', '▁thx\w*'\)"),
        (_other_normalizer, r"its tokenizer reads a text otherwise than llama.cpp does by the file: "),
        (lambda model: (model / "config.json").write_text("{}"), r"llama.cpp's converter, whose file it would have to be, does not take the model"),
    ],
)
def test_what_differs_is_named(spoil: Callable[[Path], None], said: str, tmp_path: Path, sound: tuple[Path, Path]) -> None:
    alone, model = sound[0], Path(shutil.copytree(sound[1], tmp_path / "model"))
    spoil(model)
    with pytest.raises(UpstreamError, match=f"^{ggufs.file(alone)} was rebuilt, and the proof failed: {said}.*Release the repo that it was made from"):
        proved(model, alone, tmp_path)
    assert not list(tmp_path.glob("*.gguf"))


@pytest.mark.usefixtures("killed_converter")
def test_a_converter_that_is_killed_says_nothing_against_the_file(sound: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"^convert_hf_to_gguf\.py was ended by SIGKILL"):
        proved(sound[1], sound[0], tmp_path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A GGUF file alone, and what it gives."""
    out = tmp_path_factory.mktemp("sound")
    model, _ = ggufs.converted("Llama", out)
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}", encoding="utf-8")
    shutil.rmtree(out / "alone")
    alone = ggufs.alone(model, out / "alone")
    return alone, again(alone, out / "again")


def test_what_a_header_need_not_say_is_no_difference(sound: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    gone = ("llama.vocab_size", "llama.rope.dimension_count", "llama.attention.key_length", "llama.attention.value_length", "llama.rope.freq_base")
    ggufs.rewritten(sound[0] / ggufs.file(sound[0]), tmp_path / "alone" / "m-BF16.gguf", without=gone)
    assert proved(again(tmp_path / "alone", tmp_path / "again"), tmp_path / "alone", tmp_path)["tensors"] == 21


def test_what_the_model_cannot_say_is_refused(sound: tuple[Path, Path], tmp_path: Path) -> None:
    """Keys that are known, with values that no config.json leads to, and a tensor that lost some bits on the way."""
    file = sound[0] / ggufs.file(sound[0])
    for number, (changes, said) in enumerate(
        [
            ({"llama__rope__dimension_count": 32}, "llama.rope.dimension_count is 32 there and 64"),
            ({"tokenizer__ggml__token_type": [1] * 2048}, "tokenizer.ggml.token_type is a list of 2048 there and a list of 2048 converted back, from entry 0"),
            ({"tokenizer__ggml__token_type": [2] * 2048}, "without a piece for what is unknown, or with several"),
        ]
    ):
        alone = tmp_path / f"alone {number}"
        alone.mkdir()
        ggufs.rewritten(file, alone / "m-BF16.gguf", **changes)
        with pytest.raises(UpstreamError, match=said):
            proved(again(alone, tmp_path / f"again {number}"), alone, tmp_path)


def test_experts_that_changed_places_are_told_and_nought_shared_ones_are_none(tmp_path: Path) -> None:
    """Qwen3-Coder's header says that its shared experts are nought wide."""
    _, alone = ggufs.converted("Qwen3-MoE", tmp_path)
    (tmp_path / "there").mkdir()
    ggufs.rewritten(alone / ggufs.file(alone), tmp_path / "there" / "m-BF16.gguf", qwen3moe__expert_shared_feed_forward_length=0)
    made = again(tmp_path / "there", tmp_path / "again")
    assert proved(made, tmp_path / "there", tmp_path)["tensors"] > 20
    weights = load_file(made / "model.safetensors")
    one, other = (f"model.layers.1.mlp.experts.{number}.up_proj.weight" for number in (0, 3))
    save_file(weights | {one: weights[other], other: weights[one]}, made / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UpstreamError, match="blk.1.ffn_up_exps.weight has other values when it is converted back"):
        proved(made, tmp_path / "there", tmp_path)


def test_norms_of_other_programs_are_told(tmp_path: Path) -> None:
    """Gemma's norms without the one that the converter adds: the model would be another."""
    _, alone = ggufs.converted("Gemma 3", tmp_path)
    (tmp_path / "there").mkdir()
    file = alone / ggufs.file(alone)
    norm = next(tensor for tensor in GGUFReader(file).tensors if tensor.name == "output_norm.weight")
    odd = np.full(norm.shape.tolist(), 3e-8, dtype=np.float32)  # less one, and one more again, is nought
    ggufs.rewritten(file, tmp_path / "there" / "m-BF16.gguf", tensors={"output_norm.weight": odd})
    with pytest.raises(UpstreamError, match="output_norm.weight has other values when it is converted back"):
        proved(again(tmp_path / "there", tmp_path / "again"), tmp_path / "there", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["SmolLM2-135M-Instruct", "gemma-3-270m"])
def test_real_models_are_the_same_after_all(name: str, tmp_path: Path) -> None:
    """Their makers' folders, converted, and rebuilt from the file alone."""
    from bench.models.fetched import MODELS

    MODELS[name](tmp_path / "model")
    alone = ggufs.alone(tmp_path / "model", tmp_path / "alone")
    made = again(alone, tmp_path / "again")
    before, after = load_file(tmp_path / "model" / "model.safetensors"), load_file(made / "model.safetensors")
    assert before.keys() == after.keys()
    assert [key for key in before if before[key].dtype != after[key].dtype or not torch.equal(before[key], after[key])] == []
    assert proved(made, alone, tmp_path)["texts"] > 150
    kept = ("rope_theta", "rms_norm_eps", "head_dim", "sliding_window", "layer_types", "query_pre_attn_scalar", "eos_token_id", "tie_word_embeddings")
    one, other = (json.loads((folder / "config.json").read_bytes()) for folder in (tmp_path / "model", made))
    assert {key: one[key] for key in kept if key in one and key in other} == {key: other[key] for key in kept if key in one and key in other}
