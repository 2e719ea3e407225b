"""Fix rules and families: what ships is valid, and what an operator gets wrong is said in words."""

from pathlib import Path

import pytest

from builders.fixes import REPAIRS
from config.errors import ConfigurationError
from config.rules import Family, Pieces, families_of, family_of, load_families, load_rules


def test_the_shipped_rules_name_repairs_that_exist_and_stand_in_order() -> None:
    rules = load_rules()
    first = ["shard-index", "plain-weights", "strip-remote-code"]
    whole = ["base-template", "one-template", "architecture", "stale-quantization", "copied-head", "own-head", "tied-head", "weight-shapes"]
    tokens = ["embedded-tokens", "tokenizer-model", "listed-tokens", "open-prompts", "tokenizer-class", "breaking-branches", "token-ids"]
    alike = ["rope-forms", "older-names", "dtype-forms"]
    better = ["distinct-pad", "single-bos", "prompt-end", "default-system-prompt", "sampling-defaults", "sampling-flags"]
    assert [rule.id for rule in rules] == [*first, *whole, *tokens, "end-of-turn-eos", "corrected-rope", "yarn-context", *alike, *better], (
        "what names code or paths is gone before anything is loaded"
    )
    assert {rule.repair for rule in rules} == set(REPAIRS)
    assert [rule.id for rule in rules if rule.always] == ["shard-index", "plain-weights", "strip-remote-code", "stale-quantization"]
    assert {rule.id for rule in rules if rule.asked_by} == {"default-system-prompt"}
    assert all(rule.reason.endswith(".") and "\n" not in rule.reason for rule in rules)


CHATML = "<|im_start|>user<|im_end|>"
THINKING = CHATML + "<think>"


@pytest.mark.parametrize(
    ("repo", "model_type", "template", "name"),
    [
        ("upstream/tiny-chat", "llama", CHATML, "tiny-chat"),
        ("upstream/tiny-chat", "llama", None, "tiny-chat"),  # no other family asks for a name
        ("upstream/other", "llama", CHATML, None),
        ("upstream/other", "llama", None, None),  # a base model of an architecture that several families share
        ("upstream/other", "llama", "<|start_header_id|><|eot_id|>", "llama3"),
        ("upstream/other", "llama", "[INST] <<SYS>>", "llama2"),
        ("upstream/other", "llama", CHATML + "named SmolLM", "smollm2"),
        ("someone/my-tune", "qwen2", THINKING, "qwq"),
        ("Qwen/QwQ-32B", "qwen2", CHATML, None),  # the name alone is nothing
        ("someone/my-tune", "qwen2", CHATML + "You are Qwen, created by Alibaba Cloud.", "qwen2.5"),
        ("Qwen/Qwen3-32B", "qwen3", THINKING, "qwen3"),
        ("Qwen/Qwen3-Coder", "qwen3_moe", CHATML, "qwen3-instruct"),
        ("Qwen/Qwen3.5-4B", "qwen3_5", THINKING, "qwen3.5"),
        ("google/gemma-3-27b-it", "gemma3", "<start_of_turn><end_of_turn>", "gemma3"),
        ("google/gemma-3-27b-pt", "gemma3", None, "gemma3"),
        ("google/gemma-3-27b-it", "gemma3", CHATML, None),  # somebody's tune in another form
        ("microsoft/phi-4", "phi3", "<|im_start|><|im_sep|>", "phi4"),
        ("microsoft/Phi-3-mini-4k-instruct", "phi3", "<|user|><|end|>", "phi3"),
        ("meta-llama/Llama-4-Scout", "llama4", "<|header_start|><|eot|>", "llama4"),
        ("deepseek-ai/any", "qwen2", "<｜User｜><｜Assistant｜><think><｜end▁of▁sentence｜>", "deepseek-r1-distill"),
        ("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", "qwen3", "<｜User｜><｜Assistant｜><｜end▁of▁sentence｜>", None),
        ("someone/unknown", None, CHATML, None),
        ("tiny-chat/unrelated", "gpt2", CHATML, None),
    ],
)
def test_a_release_finds_its_family(repo: str, model_type: str | None, template: str | None, name: str | None) -> None:
    family = family_of(repo, model_type, template, load_families())
    assert (family.name if family else None) == name


def test_documented_sampling_figures() -> None:
    advice = {family.name: family.sampling.stated for family in load_families() if family.sampling}
    assert advice["gemma3"] == {"temperature": 1.0, "top_k": 64, "top_p": 0.95, "min_p": 0.0, "repetition_penalty": 1.0}
    assert advice["qwq"] == {"temperature": 0.6, "top_k": 40, "top_p": 0.95, "min_p": 0.1, "repetition_penalty": 1.0}
    assert advice["tiny-chat"] == {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.0, "repetition_penalty": 1.0}
    assert advice["gpt-oss"] == {"temperature": 1.0, "top_p": 1.0}
    assert "glm4" not in advice, "its makers give others for each release"


def test_only_qwq_asks_for_an_order_of_samplers() -> None:
    assert {family.name: ";".join(family.samplers) for family in load_families() if family.samplers} == {"qwq": "top_k;top_p;min_p;temperature;dry;typ_p;xtc"}


def test_of_two_families_for_one_release_that_says_all_the_other_says_goes_before_it() -> None:
    families = [Family(name=name, model_types=("llama",), template=Pieces(holds=(piece,))) for name, piece in (("one", "<a>"), ("two", "<b>"))]
    assert families_of("upstream/any", "llama", "<a><b>", families) == tuple(families)
    assert family_of("upstream/any", "llama", "<a><b>", families) is None, "neither goes before the other"
    narrower = Family(name="three", model_types=("llama",), template=Pieces(holds=("<a>", "<b>"), lacks=("<c>",)))
    assert family_of("upstream/any", "llama", "<a><b>", [*families, narrower]) == narrower
    anything = Family(name="four", model_types=("llama",))
    assert family_of("upstream/any", "llama", "<a>", [anything, *families]) == families[0]
    assert family_of("upstream/any", "llama", "<a>", families) == families[0]
    assert family_of("upstream/any", "llama", None, families) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id: x\nversion: 1\nreason: r\n", "repair: Field required"),
        ("id: x\nversion: 0\nreason: r\nrepair: a\n", "version"),
        ("id: X Y\nversion: 1\nreason: r\nrepair: a\n", "id"),
        ("id: x\nversion: 1\nreason: r\nrepair: a\nwhen: never\n", "when"),
        ("- id: x\n", "must hold a mapping"),
    ],
)
def test_a_wrong_rule_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        load_rules(tmp_path)


def test_rules_with_the_same_id_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("id: same\nversion: 1\nreason: r\nrepair: single_bos\n")
    with pytest.raises(ConfigurationError, match="same"):
        load_rules(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\nmodel_types: [llama]\nrepo: '('\n", "regular expression"),
        ("name: x\n", "model_types: Field required"),
        ("name: x\nrepo: ^tiny\n", "model_types: Field required"),
        ("name: x\nmodel_types: []\n", "model_types"),
        ("name: x\nmodel_types: [llama]\nsampling: {}\n", "at least one figure"),
        ("name: x\nmodel_types: [llama]\nsamplers: [temprature]\n", "did you mean `temperature`"),
        ("name: x\nmodel_types: [llama]\nend_of_trun: <e>\n", "did you mean `end_of_turn`"),
        ("name: x\nmodel_types: [llama]\nsampling: {top: 3}\n", "did you mean `top_"),
        ("name: x\nmodel_types: [llama]\ntemplate: {holds: []}\n", "template.holds"),
    ],
)
def test_a_wrong_family_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        load_families(tmp_path)
