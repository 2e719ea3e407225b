"""Each family is proved by real chat templates, and the author of a family file is told what is wrong with it."""

import re
from pathlib import Path

import pytest
import yaml

from builders import families
from builders.fixes.templates import ANSWER, TURN
from config.rules import FAMILIES, Family, family_of, load_families
from engines import chat, toolchain
from tests.qa import real_templates

SHIPPED = {family.name: family for family in load_families()}
OWN = {"gemma3", "llama2", "llama4", "phi4", "smollm2", "tiny-chat"}  # llama.cpp's collection has no template of theirs
PROOFS = [(family, name) for family in SHIPPED.values() for name in family.templates]
ELSEWHERE = [  # templates of llama.cpp's that prove no family, with the architecture of their releases
    ("fireworks-ai-llama-3-firefunction-v2.jinja", "llama", "llama3"),
    ("meetkai-functionary-medium-v3.2.jinja", "llama", "llama3"),
    ("NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja", "llama", None),  # ChatML on Llama
    ("Bielik-11B-v3.0-Instruct.jinja", "llama", None),
    ("openbmb-MiniCPM5-1B.jinja", "llama", None),
    ("MiMo-VL.jinja", "qwen2_5_vl", None),  # a system prompt of its own
    ("deepseek-ai-DeepSeek-V3.1.jinja", "deepseek_v3", None),
    ("google-gemma-4-31B-it.jinja", "gemma4", None),
    ("unsloth-Apriel-1.5.jinja", "pixtral", None),
]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_family_is_borne_out_by_its_templates(name: str) -> None:
    assert families.check(FAMILIES / f"{name}.yaml") == []


def test_families_are_proved_by_templates_of_llama_cpp_where_it_has_them() -> None:
    real = {path.name for path in real_templates.templates()}
    assert {family.name for family in SHIPPED.values() if not set(family.templates) & real} == OWN


@pytest.mark.parametrize(("family", "name"), PROOFS, ids=[f"{family.name} {name}" for family, name in PROOFS])
def test_a_family_is_recognised_by_architecture_and_template_and_no_other_takes_it(family: Family, name: str) -> None:
    path = families.find(name, FAMILIES / f"{family.name}.yaml")
    assert path is not None
    text = path.read_text()
    repo = "upstream/tiny-chat" if family.repo else "someone/renamed"
    for kind in family.model_types:
        assert family_of(repo, kind, text, load_families()) == family
    assert family_of(repo, "gpt2", text, load_families()) is None, "the template alone is not enough"
    rendered = chat.render(text, TURN, special_tokens={"bos_token": "<bos>", "eos_token": family.end_of_turn or "<eos>"})
    after = rendered.rpartition(ANSWER)[2].strip()
    assert after.startswith(family.end_of_turn) if family.end_of_turn else after == ""


@pytest.mark.parametrize(("name", "model_type", "family"), ELSEWHERE)
def test_templates_of_other_releases_are_taken_for_what_they_are(name: str, model_type: str, family: str | None) -> None:
    text = (toolchain.sources() / "models" / "templates" / name).read_text()
    found = family_of("someone/renamed", model_type, text, load_families())
    assert (found.name if found else None) == family


def written(folder: Path, **changed: object) -> Path:
    """A family file beside nothing, Qwen 2.5's but for what is changed, without a template for Ollama."""
    content = yaml.safe_load((FAMILIES / "qwen2.5.yaml").read_text()) | {"name": "mine", "ollama": None} | changed
    path = folder / f"{content['name']}.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}, allow_unicode=True))
    return path


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"end_of_turns": "<|im_end|>"}, "end_of_turns: .*did you mean `end_of_turn`"),
        ({"template": {"holds": ["<|im_start|>"], "lack": []}}, "did you mean `lacks`"),
        ({"model_types": ["qwen_2"]}, "no architecture 'qwen_2'.*Did you mean qwen2"),
        ({"templates": ["Qwen-Qwen2.5-7B-Instruct"]}, r"there is no template .*Did you mean Qwen-Qwen2.5-7B-Instruct\.jinja"),
        ({"templates": None}, "`templates` names none"),
        ({"template": {"holds": ["<|im_strat|>"]}}, r"'<\|im_strat\|>' does not occur in it\. Did you mean '<\|im_start\|>'"),
        ({"template": {"holds": ["<|im_start|>"], "lacks": ["<tool_call>"]}}, "`template.lacks`: '<tool_call>' occurs in it"),
        ({"end_of_turn": "<|endoftext|>"}, r"it does not write '<\|endoftext\|>' after an answer.* Did you mean '<\|im_end\|>'"),
        ({"end_of_turn": None}, r"`end_of_turn` is left out, and it writes '<\|im_end\|>.*Did you mean '<\|im_end\|>'"),
        ({}, "the family qwen2.5 takes it too, as qwen2"),
        ({"samplers": ["temprature"]}, "did you mean `temperature`"),
    ],
)
def test_the_author_is_told_what_is_wrong(tmp_path: Path, changed: dict[str, object], said: str) -> None:

    found = families.check(written(tmp_path, **changed))
    assert any(re.search(said, sentence) for sentence in found), found


def test_a_template_beside_the_file_proves_it(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    template = tmp_path / "templates" / "mine.jinja"
    path = written(tmp_path, model_types=["gpt2"], templates=["mine.jinja"], template={"holds": ["[Q]"]}, end_of_turn="[/Q]", sampling=None)
    template.write_text("{% for message in messages %}[Q]{{ message.content }}[/Q]{% endfor %}")
    assert families.check(path) == []
    template.write_text("[Q]{% for message in messages %}{{ message.content + 1 }}{% endfor %}")
    assert len(found := families.check(path)) == 1
    assert "does not render a question and its answer" in found[0]
    template.write_text("[Q]")
    assert families.check(path) == ["mine.jinja: it leaves the answer out of a conversation that ends with one."]


def test_the_name_of_the_file_is_that_of_the_family(tmp_path: Path) -> None:
    path = written(tmp_path, model_types=["gpt2"]).rename(tmp_path / "other.yaml")
    assert families.check(path) == ["the file is called other.yaml, and its family mine: call it mine.yaml"]
