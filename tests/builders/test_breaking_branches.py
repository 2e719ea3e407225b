"""Templates that break at tools: of llama.cpp's collection those that Jinja itself can say otherwise are mended, the others are left alone and told."""

from pathlib import Path
from typing import Any

import pytest

from builders.fixes import breaking_branches, unrepaired
from builders.fixes.edits import applied
from builders.fixes.probes import PROBES
from builders.fixes.templates import TOOL
from engines import chat, llama_server
from tests.qa import real_templates

MENDED = {
    "Kimi-K2-Instruct.jinja": "calls of a tool and their results",
    "Kimi-K2-Thinking.jinja": "calls of a tool and their results",
    "llama-cpp-deepseek-r1.jinja": "a question with a tool offered and calls of a tool and their results",
}
TOLD = {  # meant for conversations with tools only, or with a variable that nobody sets
    "CohereForAI-c4ai-command-r-plus-tool_use.jinja",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use.jinja",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja",
    "fireworks-ai-llama-3-firefunction-v2.jinja",
}


def model(template: str) -> dict[str, Any]:
    return {"chat_template.jinja": template, "tokenizer_config.json": {"bos_token": "<s>", "eos_token": "<|im_end|>"}}


@pytest.mark.parametrize("path", real_templates.templates(), ids=lambda path: path.stem)
def test_of_the_real_templates_only_those_change_that_break(path: Path) -> None:
    files = model(path.read_text())
    edits = breaking_branches.repair(files, None)
    assert [edit.because for edit in edits] == ([f"it broke at {MENDED[path.name]}"] if path.name in MENDED else [])
    after = applied(files, edits)
    assert bool(list(unrepaired.broken(after))) == (path.name in TOLD)
    assert breaking_branches.repair(after, None) == []


def test_what_was_rendered_before_stays_the_same_text() -> None:
    """Appending is what breaks here, and taking the first away; a conversation without tools reaches neither."""
    before = (
        "{%- set n = namespace(ids=[]) -%}{%- for m in messages -%}{%- for c in m.tool_calls or [] -%}{%- do n.ids.append(c.id) -%}<{{ c.id }}>{%- endfor -%}"
        "{%- if m.role == 'tool' -%}{%- set first = n.ids.pop(0) -%}[{{ first }}]{%- endif -%}{{ m.content }};{%- endfor -%}"
    )
    set_ = before.replace("do n.ids.append(c.id)", "set _ = n.ids.append(c.id)")
    (edit,) = breaking_branches.repair(model(set_), None)
    for probe in PROBES[:3]:
        texts = [chat.render(text, probe.forms[0], special_tokens={}) for text in (set_, edit.after)]
        assert texts[0] == texts[1] != ""
    assert chat.render(edit.after, PROBES[4].forms[0], special_tokens={}) == "Name a colour.;<call00001>;[call00001]done;<call00001>;[call00001]done;"


@pytest.mark.parametrize("path", ["messages[0]['content'][0]['text']", 'message["content"][0]["text"]', "messages[0].content[0].text"])
def test_a_system_message_may_be_a_text_as_well_as_parts(path: str) -> None:
    """The way in which Gemma 3's makers corrected theirs."""
    said = "{% set message = messages[0] %}{% if message.role == 'system' %}[{{ PATH + '.' }}]{% endif %}{{ messages[-1].content is string }}"
    (edit,) = breaking_branches.repair(model(said.replace("PATH", path)), None)
    assert edit.because == "it broke at a system message"
    question = {"role": "user", "content": "Hello!"}
    for content in ("Be terse.", [{"type": "text", "text": "Be terse."}]):
        assert chat.render(edit.after, [{"role": "system", "content": content}, question], special_tokens={}) == "[Be terse..]True"


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content }}{% if tools %}{{ tools | map(attribute='function') | first | tojson }}{% endif %}",  # sound
        "{{ messages[0].content }}{% if tools %}{{ tools[0].nothing.at_all }}{% endif %}",  # nothing to rewrite
        "{% for m in messages %}{{ m.content }}{% set _ = messages.append(m) %}{% endfor %}",  # no namespace's list
        "{% if %}",
        "{{ raise_exception('no') }}",
    ],
)
def test_what_cannot_be_said_otherwise_is_left_alone(template: str) -> None:
    assert breaking_branches.repair(model(template), None) == []


def test_a_template_for_tools_is_asked_about_tools_only() -> None:
    text = "{% for tool in tools %}{{ tools | map(attribute='function') | tojson }}{% endfor %}"
    files = {"tokenizer_config.json": {"chat_template": [{"name": "default", "template": "{{ messages[0].content }}"}, {"name": "tool_use", "template": text}]}}
    (edit,) = breaking_branches.repair(files, None)
    assert (edit.dotted, edit.after) == ("chat_template.1.template", text.replace(" | tojson", " | list | tojson"))
    assert list(unrepaired.broken(applied(files, [edit]))) == []


# httpcore drops the socket of a refused connection without closing it, which happens while a server starts
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("name", MENDED)
def test_llama_cpp_renders_the_mended_template_as_it_did_and_as_transformers_does(name: str, gguf: Path, tmp_path: Path) -> None:
    source = next(path for path in real_templates.templates() if path.name == name)
    mended = tmp_path / "mended.jinja"
    mended.write_text(breaking_branches.repair(model(source.read_text()), None)[0].after)
    asked = {"messages": PROBES[4].forms[0], "add_generation_prompt": True, "continue_final_message": False, "tools": [TOOL], "variables": {}}
    texts = []
    for template in (source, mended):
        with llama_server.serve(gguf, threads=1, template=template) as server:
            texts.append(server.apply_template(**asked))
    assert texts[0] == texts[1]
    ours = chat.render(
        mended.read_text(), asked["messages"], special_tokens={"bos_token": "<s>", "eos_token": "<|im_end|>"}, add_generation_prompt=True, tools=[TOOL]
    )
    assert ours.removeprefix("<s>") == texts[1]
