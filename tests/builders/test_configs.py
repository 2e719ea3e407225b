"""Repairs of configurations: what each sets, what it leaves alone, what it says of what it cannot mend; and twenty sound models that stay as they are."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import SpecialVocab
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, GenerationConfig
from transformers.generation.configuration_utils import ALL_CACHE_IMPLEMENTATIONS

from builders import fixes
from builders.fixes import architecture, dtype_forms, older_names, rope_forms, sampling_flags, strip_remote_code, token_ids, weight_shapes
from builders.fixes.edits import Edit, Files, applied
from builders.weights import Tensor
from config.errors import UpstreamError
from config.rules import FIXES, load_rules
from tests import miniatures, releases
from tests.releases import edit, read

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
PLAIN = {"rope_type": "default"}


def changed(files: Files, edits: list[Edit]) -> dict[str, Any]:
    """What the edits set, by file and key; None for what they take away."""
    return {f"{edit.file.removesuffix('.json')}:{edit.dotted}": None if edit.remove else edit.after for edit in edits}


def rope(**config: Any) -> dict[str, Any]:
    """What the repair of rotary embeddings sets in such a config; a second time nothing."""
    files = {"config.json": {"model_type": "llama"} | config}
    edits = rope_forms.repair(files, None)
    assert rope_forms.repair(applied(files, edits), None) == []
    return {name.partition(":")[2]: value for name, value in changed(files, edits).items()}


def test_a_base_is_written_where_transformers_4_would_take_another() -> None:
    assert rope(rope_parameters={**PLAIN, "rope_theta": 5e5}) == {"rope_theta": 5e5}
    assert rope(rope_parameters={**PLAIN, "rope_theta": 10_000}) == {}, "its default for this type"
    assert rope(model_type="mixtral", rope_parameters={**PLAIN, "rope_theta": 10_000}) == {"rope_theta": 10_000}
    assert rope(model_type="gpt_neox", rope_parameters={**PLAIN, "rope_theta": 5e5, "partial_rotary_factor": 1.0}) == {
        "rotary_emb_base": 5e5,
        "rotary_pct": 1.0,
    }
    assert rope(model_type="of-tomorrow", rope_parameters={**PLAIN, "rope_theta": 5e5}) == {}, "transformers 4 does not know the type"
    assert rope(rope_theta=5e5, rope_scaling=None) == {} == rope(rope_theta=5e5, rope_scaling=YARN), "newer readers read the older form"


def test_a_scaling_is_written_in_the_older_form() -> None:
    assert rope(rope_parameters={**YARN, "rope_theta": 1e6}) == {"rope_scaling": YARN, "rope_theta": 1e6}
    assert rope(rope_parameters={**YARN, "rope_theta": 10_000}) == {"rope_scaling": YARN, "rope_theta": 10_000}, "beside it, transformers 5 looks for a base"
    assert rope(model_type="gpt_oss", rope_parameters={**PLAIN, "rope_theta": 150_000}) == {"rope_scaling": None}
    factors = {"short_factor": [1.0], "long_factor": [2.0]}
    written = rope(
        model_type="phi3", rope_parameters={"rope_type": "longrope", **factors, "factor": 32.0, "original_max_position_embeddings": 4096, "rope_theta": 1e4}
    )
    assert written == {"rope_scaling": {"type": "longrope", **factors}, "rope_theta": 1e4, "original_max_position_embeddings": 4096}


def test_bases_by_layer_are_written_under_their_older_names() -> None:
    full, sliding = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}, {**PLAIN, "rope_theta": 20_000.0}
    nested = {"full_attention": full, "sliding_attention": sliding}
    wanted = {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_theta": 1e6, "rope_local_base_freq": 20_000.0}
    assert rope(model_type="gemma3_text", rope_parameters=nested) == wanted
    inner = rope(model_type="gemma3", text_config={"model_type": "gemma3_text", "rope_parameters": nested})
    assert inner == {f"text_config.{name}": value for name, value in wanted.items()}
    assert rope(model_type="of-tomorrow", rope_parameters=nested, rope_theta=5.0) == {}, "what an unknown type's keys mean is not known"


def test_sections_of_positions_are_written_for_models_that_read_images() -> None:
    """transformers 4 ends with an error of Python's where it does not find them."""
    told = {"type": "mrope", "rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 54_321.0}
    older = {"rope_type": "default", "mrope_section": [2, 3, 3]}
    assert rope(model_type="qwen2_5_vl_text", rope_parameters=told) == {"rope_scaling": older, "rope_theta": 54_321.0}
    interleaved = rope(model_type="qwen3_vl_text", rope_parameters={**older, "mrope_interleaved": True, "rope_theta": 5e6})
    assert interleaved == {"rope_scaling": {**older, "mrope_interleaved": True}, "rope_theta": 5e6}
    untold = rope(model_type="qwen3_vl_text", rope_parameters={**PLAIN, "rope_theta": 5e5})
    assert untold == {"rope_scaling": {**PLAIN, "mrope_section": [24, 20, 20]}, "rope_theta": 5e5}, "what transformers 5 takes"
    assert rope(model_type="qwen2_vl_text", rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]}, rope_theta=1e6) == {}


def test_forms_that_disagree_are_made_one() -> None:
    """Qwen's card says to add a rope_scaling for long texts: llama.cpp's converter does not see it beside rope_parameters."""
    added = rope(model_type="qwen3", rope_parameters={**PLAIN, "rope_theta": 1e6}, rope_scaling=YARN)
    assert added == {"rope_parameters": {"rope_theta": 1e6, **YARN}, "rope_theta": 1e6}
    assert rope(model_type="qwen3", rope_parameters={**PLAIN, "rope_theta": 1e6}, rope_theta=10_000) == {"rope_theta": 1e6}
    assert rope(rope_parameters=None, rope_scaling=YARN, rope_theta=1e6) == {"rope_parameters": None}
    assert rope(rope_parameters={**YARN, "rope_theta": 1e6}, rope_scaling={"type": "yarn", **YARN}, rope_theta=1e6) == {}


@pytest.mark.parametrize("base", ["1e6", 0, -1.0, True, [1e6]])
def test_a_base_that_is_none_is_told(base: Any) -> None:
    with pytest.raises(UpstreamError, match=r"config\.json of the release says that rope_theta is .* which is no positive number"):
        rope_forms.repair({"config.json": {"model_type": "llama", "rope_parameters": {"rope_theta": base}}}, None)
    with pytest.raises(UpstreamError, match="no positive number"):
        rope_forms.repair({"config.json": {"model_type": "llama", "rope_theta": base}}, None)


FIRST = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
SCOUT = FIRST | {"factor": 16.0, "high_freq_factor": 1.0}  # as Llama 4's makers corrected it


def repaired_rope(proof: str, out: Path, config: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Which rules changed a sound miniature whose config.json says that besides, and what it says then; a second time none does."""
    (out / "fixed").mkdir(parents=True)
    (out / "again").mkdir()
    made = miniatures.sound(proof, out / "made")
    edit(made / "config.json", **config)
    rules = [patch["fix"] for patch in fixes.repair(out / "fixed", snapshot=made, repo="someone/renamed", fixes=True)["patches"]]
    assert fixes.repair(out / "again", snapshot=out / "fixed", repo="someone/renamed", fixes=True)["patches"] == []
    return rules, read(out / "fixed" / "config.json")


@pytest.mark.parametrize("form", ["rope_scaling", "rope_parameters"])
def test_the_scaling_that_llama_4_was_published_with_is_the_corrected_one(form: str, tmp_path: Path) -> None:
    """In copies and tunes of the first days, in either form and in a config of the text part alone; what every reader finds is the same then."""
    stated = FIRST if form == "rope_scaling" else FIRST | {"rope_theta": 5e5}
    base = {"rope_theta": 5e5} if form == "rope_scaling" else {}
    inner = {"model_type": "llama4_text", form: stated, **base}
    for name, config in {"whole": {"text_config": inner}, "text": {"architectures": ["Llama4ForCausalLM"], **inner}}.items():
        rules, after = repaired_rope("llama4 llama4:latest", tmp_path / name, config)
        assert rules.count("corrected-rope") == 2, rules
        assert set(rules) <= {"corrected-rope", "rope-forms"}
        section = after["text_config"] if name == "whole" else after
        assert section["rope_scaling"] == SCOUT
        assert section[form] == stated | SCOUT


def test_a_scaling_that_is_meant_stays(tmp_path: Path) -> None:
    """That of Llama 4 after the correction, and the same figures in Llama 3.1, which was trained with them."""
    inner = {"model_type": "llama4_text", "rope_scaling": SCOUT, "rope_theta": 5e5}
    assert repaired_rope("llama4 llama4:latest", tmp_path / "corrected", {"text_config": inner})[0] == []
    other = {"model_type": "llama4_text", "rope_scaling": FIRST | {"factor": 32.0}, "rope_theta": 5e5}
    assert repaired_rope("llama4 llama4:latest", tmp_path / "own", {"text_config": other})[0] == []
    llama = repaired_rope("llama3 meta-llama-Llama-3.1-8B-Instruct.jinja", tmp_path / "llama", {"rope_scaling": FIRST, "rope_theta": 5e5})
    assert (llama[0], llama[1]["rope_scaling"]) == ([], FIRST)


IDS = {"config.json": {"vocab_size": 8}, "tokenizer_config.json": {"eos_token": "</s>", "pad_token": "<pad>"}, "added_tokens.json": {"</s>": 2, "<pad>": 7}}


def ids(**config: Any) -> dict[str, Any]:
    files = {**IDS, "config.json": {"vocab_size": 8} | config}
    edits = token_ids.repair(files, None, tensors={})
    assert token_ids.repair(applied(files, edits), None, tensors={}) == []
    return changed(files, edits)


def test_ids_of_no_token_become_those_of_the_tokenizer() -> None:
    assert ids(pad_token_id=-1, eos_token_id=9, bos_token_id=-1) == {"config:pad_token_id": 7, "config:eos_token_id": 2, "config:bos_token_id": None}
    assert ids(eos_token_id=[2, -1, None, 3], bos_token_id=[1], pad_token_id="7") == {
        "config:eos_token_id": [2, 3],
        "config:bos_token_id": 1,
        "config:pad_token_id": 7,
    }
    assert ids(eos_token_id=[2, 3], bos_token_id=None, pad_token_id=None) == {}, "several ends are sound, and nothing need begin or pad a text"
    assert ids(eos_token_id=None) == {"config:eos_token_id": 2}


def test_the_end_is_named_where_transformers_looks_for_it() -> None:
    files = {**IDS, "config.json": {"vocab_size": 8, "eos_token_id": 3}, "generation_config.json": {"temperature": 1.0}}
    assert changed(files, token_ids.repair(files, None, tensors={})) == {"generation_config:eos_token_id": 3}
    assert token_ids.repair({"config.json": {"vocab_size": 8}, "generation_config.json": {}}, None, tensors={}) == [], "nobody names one"


def test_the_embeddings_decide_what_is_a_token() -> None:
    rows = {"model.embed_tokens.weight": tensor("model.embed_tokens.weight", 4, 2)}
    files = {**IDS, "config.json": {"vocab_size": 8, "pad_token_id": 7}}
    assert changed(files, token_ids.repair(files, None, tensors=rows)) == {"config:pad_token_id": None}


def test_an_end_that_nobody_knows_is_told() -> None:
    with pytest.raises(UpstreamError, match=r"config\.json of the release says that eos_token_id is -1, which is no token of its vocabulary of 8"):
        token_ids.repair({"config.json": {"vocab_size": 8, "eos_token_id": -1}}, None, tensors={})


@pytest.mark.parametrize("key", ["unk_token_id", "sep_token_id", "cls_token_id", "mask_token_id"])
def test_ids_that_the_converter_reads_beside_these_are_tokens_too(key: str, tmp_path: Path) -> None:
    """It ends at a negative one, and takes True for 1."""
    for wrong, right in ((-1, None), (9, None), ([3], 3), (["3", -1], 3), (True, None), (3.0, 3), ("x", None)):
        assert ids(**{key: wrong}) == {f"config:{key}": right}, wrong
    assert ids(**{key: 3}) == ids(**{key: None}) == {}
    texts = {**IDS["tokenizer_config.json"], key.removesuffix("_id"): {"content": "<pad>"}}
    files = {**IDS, "tokenizer_config.json": texts, "config.json": {"vocab_size": 8, "text_config": {key: -1}}}
    edits = token_ids.repair(files, None, tensors={})
    assert changed(files, edits) == {f"config:text_config.{key}": 7}
    for place, number in (("before", -1), ("after", 7)):
        (tmp_path / place).mkdir()
        (tmp_path / place / "config.json").write_text(json.dumps({key: number}))
    with pytest.raises(ValueError, match="invalid value for special token type"):
        SpecialVocab(tmp_path / "before")
    assert SpecialVocab(tmp_path / "after").special_token_ids == {key.partition("_")[0]: 7}


def test_what_an_answer_is_forced_to_begin_or_end_with_is_a_token_or_nothing() -> None:
    def forced(**stated: Any) -> dict[str, Any]:
        files = {**IDS, "config.json": {"vocab_size": 8}, "generation_config.json": {"eos_token_id": 2} | stated}
        return changed(files, token_ids.repair(files, None, tensors={}))

    assert forced(forced_bos_token_id=-1, forced_eos_token_id=[2, 9], decoder_start_token_id=8) == {
        "generation_config:forced_bos_token_id": None,
        "generation_config:forced_eos_token_id": 2,
        "generation_config:decoder_start_token_id": None,
    }
    assert forced(forced_bos_token_id=[3]) == {"generation_config:forced_bos_token_id": 3}
    assert forced(forced_bos_token_id=3, forced_eos_token_id=[2, 3], decoder_start_token_id=[0, 1]) == {}
    assert ids(forced_eos_token_id=-1, eos_token_id=2) == {"config:forced_eos_token_id": None}


IMAGES = {**IDS, "tokenizer.json": {"added_tokens": [{"content": "<image>", "id": 5, "special": True}, {"content": "<far>", "id": 9, "special": True}]}}


@pytest.mark.parametrize(
    "key",
    [
        "image_token_id",
        "image_token_index",
        "video_token_id",
        "audio_token_index",
        "vision_start_token_id",
        "image_end_token_id",
        "boi_token_index",
        "eoa_token_id",
    ],
)
def test_tokens_that_stand_in_for_images_and_sound_are_the_tokenizers(key: str) -> None:
    role = key.rpartition("_")[0]

    def set_by(stated: Any, name: str = "processor_config.json", **named: Any) -> dict[str, Any]:
        files = {**IMAGES, name: {**IMAGES.get(name, {}), **named}, "config.json": {"vocab_size": 8, key: stated}}
        edits = token_ids.repair(files, None, tensors={})
        assert token_ids.repair(applied(files, edits), None, tensors={}) == []
        return changed(files, edits)

    assert set_by(-1, **{role: "<image>"}) == set_by(8, **{role: {"content": "<image>"}}) == {f"config:{key}": 5}
    assert set_by(-1, "tokenizer_config.json", extra_special_tokens={role: "<image>"}) == {f"config:{key}": 5}
    assert set_by([6]) == set_by("6") == {f"config:{key}": 6}
    assert set_by(6, **{role: "<image>"}) == set_by(None) == {}, "a token, whatever another file says"
    assert set_by(9, **{role: "<far>"}) == set_by(-1) == {}, "nobody names another"
    with pytest.raises(UpstreamError, match=rf"config\.json of the release says that {key} is \[\], which is no id, and neither tokenizer nor"):
        set_by([])


def test_the_token_at_the_beginning_of_an_image_is_known_by_its_own_text() -> None:
    tokens = [{"content": f"<|{name}|>", "id": number, "special": True} for number, name in enumerate(("vision_start", "vision_end", "image", "vision"))]
    files = {**IDS, "tokenizer.json": {"added_tokens": tokens}}
    stated = {"vision_start_token_id": 9, "vision_end_token_id": -1, "image_token_id": 9, "vision_token_id": 9, "video_start_token_id": 9}
    files["config.json"] = {"vocab_size": 8, "text_config": dict(stated)} | stated
    edits = token_ids.repair(files, None, tensors={})
    own = {"vision_start_token_id": 0, "vision_end_token_id": 1}
    assert changed(files, edits) == {f"config:{place}{key}": number for place in ("", "text_config.") for key, number in own.items()}, "an image's may be any"
    assert token_ids.repair(applied(files, edits), None, tensors={}) == []


def test_a_list_of_images_is_what_transformers_refuses() -> None:
    for key in ("image_token_id", "vision_start_token_id"):
        with pytest.raises(StrictDataclassFieldValidationError, match=key):
            CONFIG_MAPPING["qwen2_5_vl"].from_dict({key: [5]})
    CONFIG_MAPPING["qwen2_5_vl"].from_dict({"image_token_id": -1})


def test_codes_of_sound_are_no_tokens_of_the_text() -> None:
    assert ids(codec_eos_token_id=2150, codebook_pad_token_id=-1, audio_eos_token_id=4000) == {}


def tensor(name: str, *shape: int) -> Tensor:
    return Tensor(name=name, dtype="BF16", shape=shape, bytes=2 * shape[0] * shape[-1])


def test_sizes_follow_the_weights() -> None:
    weights = {item.name: item for item in (tensor("m.layers.0.self_attn.q_proj.weight", 512, 256), tensor("m.layers.0.self_attn.k_proj.weight", 256, 256))}
    config = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}

    def set_by(**own: Any) -> dict[str, Any]:
        files = {"config.json": config | own}
        return changed(files, weight_shapes.repair(files, None, tensors=weights))

    assert set_by() == set_by(head_dim=64) == set_by(head_dim=None) == {"config:head_dim": 128}
    assert set_by(head_dim=128) == {}
    assert set_by(num_attention_heads=3) == {}, "no whole number of rows for each head"
    gated = {**weights, "m.layers.0.self_attn.q_proj.weight": tensor("m.layers.0.self_attn.q_proj.weight", 1024, 256)}
    assert weight_shapes.repair({"config.json": config | {"head_dim": 128}}, None, tensors=gated) == [], "a gate beside each head"
    table = {"model.embed_tokens.weight": tensor("model.embed_tokens.weight", 300, 8)}
    files = {"config.json": {"vocab_size": 256}}
    assert changed(files, weight_shapes.repair(files, None, tensors=table)) == {"config:vocab_size": 300}
    wider = {**table, "lm_head.weight": tensor("lm_head.weight", 256, 8)}
    assert weight_shapes.repair(files, None, tensors=wider) == [], "some architectures embed more tokens than they predict"


@pytest.mark.parametrize(
    ("fused", "output"),
    [("self_attn.qkv_proj", "self_attn.o_proj"), ("attention.query_key_value", "attention.dense"), ("self_attention.query_key_value", "self_attention.dense")],
)
def test_the_width_of_heads_follows_fused_projections_too(fused: str, output: str) -> None:
    def set_by(rows: int, columns: int, **own: Any) -> dict[str, Any]:
        shapes = {fused: (rows, 256), output: (256, columns)}
        weights = {f"m.layers.0.{name}.weight": tensor(f"m.layers.0.{name}.weight", *shape) for name, shape in shapes.items()}
        files = {"config.json": {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2} | own}
        edits = weight_shapes.repair(files, None, tensors=weights)
        assert weight_shapes.repair(applied(files, edits), None, tensors=weights) == []
        return changed(files, edits)

    assert set_by(8 * 128, 4 * 128) == set_by(8 * 128, 4 * 128, head_dim=32) == {"config:head_dim": 128}
    assert set_by(8 * 64, 4 * 64) == set_by(8 * 128, 4 * 128, head_dim=128) == {}, "as it is said, or as is usual"
    assert set_by(3 * 256, 256, num_key_value_heads=None) == {}, "as many keys as queries"
    assert set_by((4 + 2) * 64, 4 * 64, num_key_value_heads=None, multi_query=True) == {}, "Falcon's, which has one head of keys"
    assert set_by((4 + 2 * 2) * 64, 4 * 64, num_key_value_heads=None, num_kv_heads=2) == {}, "Falcon's groups"
    assert set_by(8 * 128, 4 * 96) == {}, "the two do not agree"


def test_phi_3_is_loaded_by_the_width_of_its_fused_heads(tmp_path: Path) -> None:
    config = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
    made = CONFIG_MAPPING["phi3"](**config, vocab_size=64, pad_token_id=None, bos_token_id=1, eos_token_id=2)
    AutoModelForCausalLM.from_config(made).save_pretrained(tmp_path / "made")
    edit(tmp_path / "made" / "config.json", head_dim=16)
    with pytest.raises(RuntimeError, match="mismatch"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "made")
    (tmp_path / "out").mkdir()
    patches = fixes.repair(tmp_path / "out", snapshot=tmp_path / "made", repo="someone/phi", fixes=True)["patches"]
    assert ("weight-shapes", "head_dim", 32) in {(patch["fix"], patch["key"], patch["after"]) for patch in patches if patch["key"] == "head_dim"}
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_types_of_weights_are_named_alike() -> None:
    weights = {"a": tensor("a", 2, 2)}

    def set_by(**config: Any) -> dict[str, Any]:
        files = {"config.json": config}
        return changed(files, dtype_forms.repair(files, None, tensors=weights))

    assert set_by(dtype="bfloat16") == set_by(torch_dtype="bfloat16") == set_by(dtype="float32") == set_by() == {}
    assert set_by(dtype="float32", torch_dtype="bfloat16") == {"config:dtype": "bfloat16"}, "the weights say so"
    assert set_by(dtype="float32", torch_dtype="float16") == {"config:torch_dtype": "float32"}
    assert set_by(torch_dtype="torch.float16") == {"config:torch_dtype": "float16"}
    assert set_by(dtype="int3") == {"config:dtype": "bfloat16"}


def test_which_model_it_is_is_completed_or_told() -> None:
    files = {"config.json": {"model_type": "qwen3"}}
    assert changed(files, architecture.repair(files, None)) == {"config:architectures": ["Qwen3ForCausalLM"]}
    assert changed(files, architecture.repair({"config.json": {"architectures": ["Qwen3ForCausalLM"]}}, None)) == {"config:model_type": "qwen3"}
    assert architecture.repair({"config.json": {"model_type": "of-tomorrow", "architectures": ["Own"]}}, None) == []
    with pytest.raises(UpstreamError, match=r"does not say which architecture the model has \(`architectures`\), and transformers has no .* 'of-tomorrow'"):
        architecture.repair({"config.json": {"model_type": "of-tomorrow", "architectures": None}}, None)


def test_names_of_transformers_5_are_completed_by_older_ones() -> None:
    layers = ["linear_attention", "full_attention"]
    files = {
        "config.json": {"model_type": "granitemoehybrid", "layer_types": layers, "text_config": {"model_type": "qwen3_moe", "num_local_experts": 4}},
        "tokenizer_config.json": {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<a>"], "additional_special_tokens": ["<b>"]},
    }
    edits = older_names.repair(files, None)
    assert changed(files, edits) == {
        "config:layer_types": ["mamba", "attention"],
        "config:text_config.num_experts": 4,
        "tokenizer_config:tokenizer_class": "PreTrainedTokenizerFast",
        "tokenizer_config:extra_special_tokens": None,
    }
    assert older_names.repair(applied(files, edits), None) == []
    named = {"tokenizer_config.json": {"extra_special_tokens": {"image_token": "<image>"}}}
    assert older_names.repair(named, None) == [], "transformers 4 reads names with their tokens"


@pytest.mark.parametrize(
    ("stated", "wanted"),
    [
        ({"temperature": 0.6}, {"do_sample": True}),
        ({"temperature": 0.6, "do_sample": False}, {"do_sample": True}),
        ({"temperature": 0.6, "do_sample": True}, {}),
        ({"temperature": 0.0, "do_sample": True, "top_p": 0.9}, {"do_sample": False, "temperature": None, "top_p": None}),
        ({"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": None, "repetition_penalty": 1.1}, {}),
        ({"length_penalty": 0.8, "early_stopping": True, "output_scores": True}, {"length_penalty": None, "early_stopping": None, "output_scores": None}),
        ({"length_penalty": 0.8, "num_beams": 4}, {}),
        ({"max_new_tokens": 0}, {"max_new_tokens": None}),
        ({"num_return_sequences": 3}, {"num_return_sequences": None}),
        ({"num_return_sequences": 3, "temperature": 0.0, "do_sample": True}, {"num_return_sequences": None, "temperature": None, "do_sample": False}),
        ({"num_return_sequences": 3, "temperature": 0.6}, {"do_sample": True}),
        ({"num_return_sequences": 5, "num_beams": 4}, {"num_return_sequences": None}),
        ({"num_return_sequences": 4, "num_beams": 4}, {}),
        ({"cache_implementation": "mamba"}, {"cache_implementation": None}),
        ({"cache_implementation": "hybrid"}, {}),
        ({"cache_implementation": "hybrid", "cache_config": {"a": 1}, "use_cache": False}, {"cache_implementation": None, "cache_config": None}),
        ({"cache_implementation": "mamba", "use_cache": False}, {"cache_implementation": None}),
        ({"early_stopping": "soon", "num_beams": 4}, {"early_stopping": None}),
        ({"early_stopping": ["soon"]}, {"early_stopping": None}),
        ({"early_stopping": "never", "num_beams": 4}, {}),
        ({"assistant_ensemble_weight": 1}, {"assistant_ensemble_weight": None}),
        ({"compile_config": {"fullgraph": True}, "streamer": None}, {"compile_config": None, "streamer": None}),
        ({"compile_config": None}, {}),
        ({"suppress_tokens": [1, 2], "forced_eos_token_id": 1, "forced_bos_token_id": [2, 3]}, {"forced_eos_token_id": None}),
    ],
)
def test_sampling_settings_that_have_no_effect_or_cannot_be(stated: dict[str, Any], wanted: dict[str, Any]) -> None:
    """transformers itself is content with what is left, and with nothing else."""
    files = {"generation_config.json": stated}
    edits = sampling_flags.repair(files, None)
    assert changed(files, edits) == {f"generation_config:{name}": value for name, value in wanted.items()}
    assert sampling_flags.repair(applied(files, edits), None) == []
    GenerationConfig.from_dict(applied(files, edits)["generation_config.json"]).validate(strict=True)
    if any(value is None for value in wanted.values()) and "temperature" not in wanted:
        with pytest.raises((ValueError, TypeError)):
            GenerationConfig.from_dict(stated).validate(strict=True)


def test_every_cache_that_transformers_knows_is_known() -> None:
    assert {*sampling_flags.CACHES} == {*ALL_CACHE_IMPLEMENTATIONS, "paged"}


def test_padding_by_no_token_does_not_outlast_the_rules() -> None:
    """A number below 0, which transformers refuses to save."""
    files = {"config.json": {"model_type": "llama", "vocab_size": 8, "eos_token_id": 2}, "generation_config.json": {"eos_token_id": 2, "pad_token_id": -1}}
    after, _ = fixes.apply_rules(files, load_rules(FIXES), None)
    GenerationConfig.from_dict(after["generation_config.json"]).validate(strict=True)


def test_an_infinity_is_no_private_key() -> None:
    """As transformers 5 saves the limits of state-space models; without it, they would have none."""
    files = {"config.json": {"time_step_limit": [0.0, {"__float__": "Infinity"}], "_commit_hash": "0"}}
    found = changed(files, strip_remote_code.repair(files, None))
    assert "config:time_step_limit.1.__float__" not in found
    assert "config:_commit_hash" in found


SOUND = (
    "llama", "qwen2", "qwen3", "mistral", "mixtral", "gemma", "gemma2", "gemma3_text", "phi3", "granite", "smollm3", "olmo2", "gpt_oss", "glm4", "glm4_moe",
    "cohere2", "starcoder2", "qwen2_moe", "stablelm", "gpt2",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_model_stays_byte_for_byte(kind: str, tmp_path: Path) -> None:
    """As transformers 5 saves it, with the bundled model's tokenizer and sizes of its own."""
    sizes = {
        "vocab_size": 2048, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_group": 1,
        "topk_group": 1,
    }  # fmt: skip
    names = vars(CONFIG_MAPPING[kind]())
    own = {name: size for name, size in sizes.items() if name in names} if kind != "gpt2" else {"vocab_size": 2048, "n_embd": 64, "n_layer": 2, "n_head": 4}
    config = CONFIG_MAPPING[kind](**own, bos_token_id=1, eos_token_id=4, pad_token_id=5)
    made, out = releases.clean(tmp_path / "made"), tmp_path / "out"
    for name in ("model.safetensors", "generation_config.json"):
        (made / name).unlink()
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(made)
    edit(made / "generation_config.json", do_sample=True, temperature=0.7, top_k=64, top_p=0.95, min_p=0.0, repetition_penalty=1.0)
    out.mkdir()
    assert fixes.repair(out, snapshot=made, repo="someone/miniature", fixes=True)["patches"] == []
    for path in out.iterdir():
        assert path.read_bytes() == (made / path.name).read_bytes(), path.name


def test_a_release_of_several_oddities_is_settled_at_once(tmp_path: Path) -> None:
    made = releases.ids_of_no_token(tmp_path / "made")
    config = read(made / "config.json")
    edit(made / "config.json", architectures=[], head_dim=None, rope_parameters={"rope_type": "yarn", "factor": 2.0, "rope_theta": 5e5}, torch_dtype="half")
    (tmp_path / "out").mkdir()
    patches = fixes.repair(tmp_path / "out", snapshot=made, repo="upstream/tiny-chat", fixes=True)["patches"]
    json.dumps(patches, allow_nan=False)
    assert {patch["fix"] for patch in patches} == {"architecture", "token-ids", "rope-forms", "dtype-forms"}
    settled = read(tmp_path / "out" / "config.json")
    assert (settled["eos_token_id"], settled["bos_token_id"], settled["architectures"]) == (4, 1, config["architectures"])
    assert (settled["dtype"], settled["torch_dtype"]) == ("bfloat16", "bfloat16")
    before = copy.deepcopy(settled)
    (tmp_path / "again").mkdir()
    assert fixes.repair(tmp_path / "again", snapshot=tmp_path / "out", repo="upstream/tiny-chat", fixes=True)["patches"] == []
    assert read(tmp_path / "again" / "config.json") == before
