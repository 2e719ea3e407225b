"""What stands beside merged weights: whose tokenizer, template and terms, whichever form they come in."""

import json
from pathlib import Path

import pytest

from builders.adapters import files
from builders.adapters.changes import Changes

NOTHING = Changes(changed={}, tensors={}, untied=False, rows=None)
VOCABULARY = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": []}
ADDED = VOCABULARY | {"added_tokens": [{"id": 2, "content": "<|end|>"}]}
OTHER = {"model": {"vocab": {"x": 0}}, "added_tokens": []}
Content = dict[str, object]


def put(folder: Path, content: Content) -> Path:
    folder.mkdir()
    for name, value in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return folder


def assembled(tmp_path: Path, base: Content, adapter: Content, found: Changes = NOTHING) -> dict[str, str]:
    """By name what stands in the result; of files that both have, whose it is is told by their content."""
    out = put(tmp_path / "out", {})
    both = put(tmp_path / "base", {"config.json": {"vocab_size": 2}, **base}), put(tmp_path / "adapter", {"adapter_config.json": {}, **adapter})
    files.assemble(out, base=both[0], adapter=both[1], found=found)
    return {path.relative_to(out).as_posix(): path.read_text() for path in out.rglob("*") if path.is_file()}


BASE: Content = {
    "tokenizer.json": VOCABULARY, "tokenizer.model": "pieces", "special_tokens_map.json": {"of": "base"}, "tokenizer_config.json": {"chat_template": "base's"},
    "generation_config.json": {"of": "base"}, "README.md": "base's",
}  # fmt: skip


@pytest.mark.parametrize(
    ("adapter", "stay"),
    [
        ({}, {"tokenizer.json", "tokenizer.model", "special_tokens_map.json"}),
        ({"tokenizer.json": VOCABULARY}, {"tokenizer.json", "tokenizer.model", "special_tokens_map.json"}),
        ({"tokenizer.json": ADDED}, {"tokenizer.json", "tokenizer.model"}),
        ({"tokenizer.json": OTHER}, {"tokenizer.json"}),
        ({"tokenizer.model": "other pieces"}, {"tokenizer.model"}),
        ({"tokenizer.model": "pieces"}, {"tokenizer.json", "tokenizer.model", "special_tokens_map.json"}),
    ],
)
def test_of_another_tokenizer_nothing_of_the_base_s_stays_that_contradicts_it(tmp_path: Path, adapter: Content, stay: set[str]) -> None:
    found = assembled(tmp_path, BASE, {**adapter, "tokenizer_config.json": {"chat_template": "own"}})
    assert found.keys() == stay | {"config.json", "generation_config.json", "tokenizer_config.json"}
    assert json.loads(found["tokenizer_config.json"]) == {"chat_template": "own"}


def test_the_card_says_the_terms_of_both(tmp_path: Path) -> None:
    base = {**BASE, "README.md": "---\nlicense: gemma\nlanguage: en\n---\n# Base\n"}
    found = assembled(tmp_path, base, {"README.md": "---\nlicense: apache-2.0\ntags: [lora]\n---\n# Own\n"})
    card = "---\nlicense: other\ntags:\n- lora\nlicense_name: apache-2.0 and gemma\nlanguage:\n- en\n---\n# Own\n"
    assert found["README.md"] == card


def test_sampling_and_card_are_the_adapter_s_and_its_config_is_nobody_s(tmp_path: Path) -> None:
    found = assembled(tmp_path, BASE, {"generation_config.json": {"of": "adapter"}, "README.md": "own", "config.json": {"vocab_size": 7}})
    assert (json.loads(found["generation_config.json"]), found["README.md"], json.loads(found["config.json"])) == ({"of": "adapter"}, "own", {"vocab_size": 2})


@pytest.mark.parametrize(
    ("base", "adapter", "jinja", "settings"),
    [
        ({"chat_template.jinja": "base's"}, {"tokenizer_config.json": {"chat_template": "own"}}, None, "own"),
        ({"chat_template.jinja": "base's"}, {"tokenizer_config.json": {}}, "base's", None),
        ({"tokenizer_config.json": {"chat_template": "base's"}}, {"tokenizer_config.json": {"eos_token": "b"}}, None, "base's"),
        ({"tokenizer_config.json": {"chat_template": "base's"}}, {"chat_template.jinja": "own"}, "own", "base's"),  # which the fixes reconcile
    ],
)
def test_a_template_of_the_adapter_goes_before_the_base_s(tmp_path: Path, base: Content, adapter: Content, jinja: str | None, settings: str | None) -> None:
    found = assembled(tmp_path, base, adapter)
    assert (found.get("chat_template.jinja"), json.loads(found["tokenizer_config.json"]).get("chat_template")) == (jinja, settings)


def test_terms_of_both_are_passed_on(tmp_path: Path) -> None:
    base: Content = {"LICENSE": "base's", "USE_POLICY.md": "policy", "NOTICE.txt": "same", "docs/legal/Terms of Use.md": "base's"}
    found = assembled(tmp_path, base, {"License": "own", "NOTICE.txt": "same", "docs/legal/terms of use.md": "own"})
    assert {name: text for name, text in found.items() if name != "config.json"} == {
        "License": "own", "LICENSE-base-model": "base's", "USE_POLICY.md": "policy", "NOTICE.txt": "same",
        "docs/legal/terms of use.md": "own", "docs/legal/Terms of Use-base-model.md": "base's",
    }  # fmt: skip


def test_a_config_says_what_became_of_embeddings_where_it_describes_them(tmp_path: Path) -> None:
    changes = Changes(changed={}, tensors={}, untied=True, rows=3)
    nested = json.loads(assembled(tmp_path, {"config.json": {"text_config": {"vocab_size": 2}}}, {}, changes)["config.json"])
    assert nested == {"tie_word_embeddings": False, "text_config": {"vocab_size": 3, "tie_word_embeddings": False}}
