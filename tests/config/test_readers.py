"""What is known of wrong readers, and for which repos it matters."""

from pathlib import Path
from typing import Any

import pytest

from config import readers
from config.readers import Repo

ROOT = Path(__file__).parents[2]
LLAMA = {"model_type": "llama", "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}
SCALED = {"rope_type": "llama3", "factor": 8.0}


def test_each_entry_names_its_versions_and_a_source_that_is_there() -> None:
    for entry in readers.table().known:
        assert any(letter.isdigit() for letter in entry.versions), entry
        assert (ROOT / entry.source).is_file(), entry
        assert entry.line.startswith(f"{entry.reader} ({entry.versions}) ")
        assert "\n" not in entry.line


@pytest.mark.parametrize(
    ("config", "parts", "expected"),
    [
        (LLAMA, False, set()),
        (LLAMA | {"rope_parameters": SCALED}, False, {"RoPE factors"}),
        (LLAMA | {"rope_parameters": None, "rope_scaling": {"type": "yarn", "factor": 4.0}}, False, {"RoPE factors"}),
        (
            LLAMA | {"model_type": "olmo3", "rope_parameters": {"full_attention": SCALED, "sliding_attention": {}}},
            False,
            {"RoPE factors"},
        ),
        (LLAMA | {"attention_bias": True}, False, {"biases of attention"}),
        (LLAMA | {"attention_bias": True, "model_type": "qwen2"}, False, set()),
        (LLAMA, True, {"file in parts"}),
        ({"rope_parameters": "nonsense"}, False, set()),
    ],
)
def test_what_matters_for_a_repo_is_told_and_nothing_else(config: dict[str, Any], parts: bool, expected: set[str]) -> None:
    words = {"RoPE factors", "biases of attention", "file in parts"}
    found = " ".join(entry.line for entry in readers.known(Repo(form="gguf", config=config, parts=parts)))
    assert {word for word in words if word in found} == expected
    assert "rebuilds the tokenizer" in found
    assert "system prompt of its own" in found
    assert "system prompt of its own" not in " ".join(entry.line for entry in readers.known(Repo(form="gguf", config=config, template=None)))
    scaled = "llama3" in str(config)
    assert any("CTranslate2" in entry.line for entry in readers.known(Repo(form="safetensors", config=config))) is scaled
    assert not any("gguf_file" in entry.line for entry in readers.known(Repo(form="safetensors", config=config, parts=parts)))


@pytest.mark.parametrize(
    ("template", "matters"),
    [
        (r"{{ content.split('</think>')[-1].lstrip('\n') }}", True),
        ('{{ content.strip("\n") }}', True),
        ("{{ content.strip() }}", False),
        ("", False),
        (None, False),
    ],
)
def test_what_a_program_makes_of_templates_matters_where_a_template_has_it(template: str | None, matters: bool) -> None:
    found = " ".join(entry.line for entry in readers.known(Repo(form="gguf", config=LLAMA, template=template)))
    assert ("`@huggingface/jinja` (0.5.11) strips all white space" in found) is matters
