"""How prompts for an answer end: line breaks too many or too few, a forced `<think>`, and the second template without it."""

from typing import Any

import pytest

from builders import families
from builders.fixes import prompt_end, yarn_context
from builders.fixes.edits import applied
from builders.fixes.templates import CONVERSATIONS
from builders.unforced import unforced
from config.rules import FAMILIES, Family, load_families
from engines import chat
from tests.qa import real_templates

ROLES = {"bos_token": "<s>", "eos_token": "<|im_end|>"}
CHATML = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
ALL = [*real_templates.templates(), *sorted((FAMILIES / "templates").glob("*.jinja"))]
FORCED = {  # those of the collection that write <think> at the end of a prompt, or do where thinking is asked for
    "Bielik-11B-v3.0-Instruct", "GLM-4.7-Flash", "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "Qwen-QwQ-32B", "Qwen3.5-4B", "Reka-Edge", "Spark2.5",
    "StepFun3.5-Flash", "deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "deepseek-ai-DeepSeek-V3.1",
    "inclusionai-ling-3.0-flash", "llama-cpp-deepseek-r1", "llama-cpp-rwkv-world", "openbmb-MiniCPM5-1B", "poolside-Laguna-S-2.1", "poolside-Laguna-XS-2.1",
    "poolside-Laguna-XS.2",
}  # fmt: skip


def family(name: str) -> Family:
    return next(item for item in load_families() if item.name == name)


def model(template: str) -> dict[str, Any]:
    return {"chat_template.jinja": template, "tokenizer_config.json": ROLES}


def prompt(template: str, **switches: bool) -> str:
    return chat.render(template, CONVERSATIONS[0], special_tokens=ROLES, add_generation_prompt=True, variables=switches)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_of_the_real_templates_none_is_rewritten_and_those_that_force_thinking_have_a_second_one(path: Any) -> None:
    text = path.read_text(encoding="utf-8")
    assert prompt_end.repair(model(text), None) == []
    second = unforced(text, ROLES)
    assert (second is not None) == (path.stem in FORCED)
    if second is not None:
        forced, free = prompt(text, enable_thinking=True), prompt(second, enable_thinking=True)
        assert forced.startswith(free)
        assert forced[len(free) :].rstrip("\n") == "<think>"
        assert chat.render(second, CONVERSATIONS[4], special_tokens=ROLES) == chat.render(text, CONVERSATIONS[4], special_tokens=ROLES)
        assert unforced(second, ROLES) is None


HEADER = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"


@pytest.mark.parametrize("ending", [HEADER.replace("\\n", "\\n\\n"), f"{HEADER}\n\n\n"])
def test_line_breaks_that_no_answer_has_before_it_are_taken_away(ending: str) -> None:
    files = model(CHATML + ending)
    (edit,) = prompt_end.repair(files, None)
    assert "more than what stands before an answer" in edit.because
    after = applied(files, [edit])
    assert prompt(after["chat_template.jinja"]) == prompt(CHATML + HEADER)
    assert prompt_end.repair(after, None) == []


@pytest.mark.parametrize(
    "ending",
    [
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>' }}{% endif %}",
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n\\n' }}{% endif %}",
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}<think>{% endif %}",
    ],
)
def test_a_family_s_opening_has_its_line_break(ending: str) -> None:
    files = model(CHATML + ending)
    assert prompt_end.repair(files, None) == [], "nobody knows how an unknown model begins to think"
    (edit,) = prompt_end.repair(files, family("qwq"))
    assert "models of the family qwq begin after '<think>\\n'" in edit.because
    after = applied(files, [edit])
    assert prompt(after["chat_template.jinja"]).endswith("<|im_start|>assistant\n<think>\n")
    assert prompt_end.repair(after, family("qwq")) == []


def test_a_prompt_that_ends_as_in_a_conversation_stays() -> None:
    for ending in ("{{ '<|im_start|>assistant\\n' }}", "{{ '<|im_start|>assistant\\n<think>\\n' }}"):
        assert prompt_end.repair(model(CHATML + "{% if add_generation_prompt %}" + ending + "{% endif %}"), family("qwq")) == []


def test_a_wrong_opening_is_told_to_who_writes_a_family(tmp_path: Any) -> None:
    text = (FAMILIES / "qwq.yaml").read_text().replace('opens: "<think>\\n"', 'opens: "<think>"')
    (tmp_path / "qwq.yaml").write_text(text)
    faults = families.check(tmp_path / "qwq.yaml")
    assert len(faults) == 2
    assert "`ollama`: there is no file qwq.gotmpl in" in faults[0]
    assert "`opens`: its prompts do not end with '<think>'" in faults[1]


@pytest.mark.parametrize(
    ("config", "mended"),
    [
        ({"max_position_embeddings": 131072}, True),
        ({"max_position_embeddings": 131072, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, True),
        ({"max_position_embeddings": 131072, "rope_scaling": {"type": "yarn", "factor": 4.0}}, False),
        ({"max_position_embeddings": 131072, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, False),
        ({"max_position_embeddings": 40960}, False),
        ({}, False),
    ],
)
def test_an_announced_context_is_stated_as_it_is_reached(config: dict[str, Any], mended: bool) -> None:
    edits = yarn_context.repair({"config.json": config}, family("qwq"), context=131072, original=32768, factor=4.0)
    assert [edit.after for edit in edits] == ([{"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}] if mended else [])
