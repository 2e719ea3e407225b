"""Fix rules and families: what ships is valid, and what an operator gets wrong is said in words."""

from pathlib import Path

import pytest

from builders.fixes import REPAIRS
from config.errors import ConfigurationError
from config.rules import Family, family_of, load_families, load_rules


def test_the_shipped_rules_name_repairs_that_exist_and_stand_in_order() -> None:
    rules = load_rules()
    first = ["shard-index", "plain-weights", "strip-remote-code"]
    whole = ["one-template", "architecture", "stale-quantization", "tied-head", "weight-shapes"]
    tokens = ["embedded-tokens", "tokenizer-model", "listed-tokens", "open-prompts", "tokenizer-class", "token-ids"]
    alike = ["rope-forms", "older-names", "dtype-forms"]
    better = ["distinct-pad", "single-bos", "sampling-defaults", "sampling-flags"]
    assert [rule.id for rule in rules] == [*first, *whole, *tokens, "end-of-turn-eos", *alike, *better], (
        "what names code or paths is gone before anything is loaded"
    )
    assert {rule.repair for rule in rules} == set(REPAIRS)
    assert [rule.id for rule in rules if rule.always] == first
    assert all(rule.reason.endswith(".") and "\n" not in rule.reason for rule in rules)


@pytest.mark.parametrize(
    ("repo", "model_type", "name"),
    [
        ("upstream/tiny-chat", "llama", "tiny-chat"),
        ("upstream/other", "llama", "llama"),
        ("Qwen/QwQ-32B", "qwen2", "qwq"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2", None),
        ("Qwen/Qwen3-32B", "qwen3", "qwen3"),
        ("Qwen/Qwen3.5-4B", "qwen3_5", None),
        ("google/gemma-3-27b-it", "gemma3", "gemma3"),
        ("microsoft/phi-4", "phi3", "phi4"),
        ("microsoft/Phi-3-mini-4k-instruct", "phi3", None),
        ("meta-llama/Llama-4-Scout", "llama4", "llama"),
        ("someone/unknown", None, None),
        ("tiny-chat/unrelated", "gpt2", None),
    ],
)
def test_a_release_finds_its_family(repo: str, model_type: str | None, name: str | None) -> None:
    family = family_of(repo, model_type, load_families())
    assert (family.name if family else None) == name


def test_documented_sampling_figures() -> None:
    advice = {family.name: family.sampling.model_dump() for family in load_families() if family.sampling}
    assert advice == {
        "gemma3": {"temperature": 1.0, "top_k": 64, "top_p": 0.95, "min_p": 0.0, "repetition_penalty": 1.0},
        "qwq": {"temperature": 0.6, "top_k": 40, "top_p": 0.95, "min_p": 0.1, "repetition_penalty": 1.0},
        "tiny-chat": {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.0, "repetition_penalty": 1.0},
    }


def test_two_families_for_one_release_are_an_error() -> None:
    families = [Family(name="one", repo="chat"), Family(name="two", repo="^tiny")]
    with pytest.raises(ConfigurationError, match="one, two"):
        family_of("upstream/tiny-chat", "llama", families)


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


@pytest.mark.parametrize(("text", "said"), [("name: x\nrepo: '('\n", "regular expression"), ("name: x\n", "matches nothing")])
def test_a_wrong_family_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        load_families(tmp_path)
