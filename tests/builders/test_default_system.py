"""`system_prompt: remove`: a conversation without a system message loses the one that the template invents, and nothing else changes."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builders import families, fixes
from builders.fixes import default_system
from builders.fixes.edits import applied
from config.errors import UpstreamError
from config.rules import FAMILIES
from engines import chat, environments, ollama_library
from qa.batteries import CONVERSATIONS, Conversation
from tests import releases

QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
QWEN_TURN = f"<|im_start|>system\n{QWEN}<|im_end|>\n"
SMOLLM_TURN = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
SETTINGS = "tokenizer_config.json"

SET_FIRST = (  # a default that a variable has until a message gives another
    "{{ bos_token }}{% set rules = 'Be kind, and brief.' %}"
    "{% if messages[0].role == 'system' %}{% set rules = messages[0].content %}{% set messages = messages[1:] %}{% endif %}"
    "{% if tools %}{{ '<|system|>' + rules + '\\n# Tools\\n' + (tools | tojson) + '<|end|>' }}{% else %}{{ '<|system|>' + rules + '<|end|>' }}{% endif %}"
    "{% for m in messages %}{{ '<|' + m.role + '|>' + (m.content or '') + '<|end|>' }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
IN_NAMESPACE = (
    "{% set ns = namespace(rules='Be kind, and brief.') %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set ns.rules = m.content %}{% endif %}{% endfor %}"
    "<|system|>{{ ns.rules }}<|end|>"
    "{% for m in messages if m.role != 'system' %}{{ '<|' + m.role + '|>' + (m.content or '') + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PREPENDED = (
    "{% if messages[0].role != 'system' %}{% set messages = [{'role': 'system', 'content': 'Be kind, and brief.'}] + messages %}{% endif %}"
    "{% for m in messages %}{{ '<|' + m.role + '|>' + (m.content or '') + '<|end|>' }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def real(name: str) -> str:
    """A template of a family's, of llama.cpp's collection, or of Ollama's library."""
    found = families.find(name, FAMILIES / "any.yaml")
    assert found is not None
    return found


def files(template: str, **more: Any) -> dict[str, Any]:
    return {"config.json": {}, SETTINGS: {"chat_template": template, "bos_token": "<s>", "eos_token": "</s>"}} | more


def removed(template: str) -> str:
    """The template after the repair, which a second one leaves as it is."""
    given = files(template)
    (edit,) = default_system.repair(given, None)
    assert (edit.file, edit.dotted) == (SETTINGS, "chat_template")
    after = applied(given, [edit])
    assert default_system.repair(after, None) == []
    text: str = after[SETTINGS]["chat_template"]
    return text


def rendered(template: str, conversation: Conversation) -> str | None:
    try:
        return chat.render(
            template,
            conversation.messages,
            special_tokens={"bos_token": "<s>", "eos_token": "</s>"},
            add_generation_prompt=conversation.messages[-1]["role"] == "user",
            tools=conversation.tools,
            variables={"enable_thinking": conversation.thinking},
        )
    except Exception:  # noqa: BLE001 (a refusal must stay one, whatever it is)
        return None


def compare(before: str, after: str, *gone: str) -> int:
    """Hold the whole battery to it: the texts that are `gone` from conversations that do not begin with a system message, of which the number."""
    bare = 0
    for title, conversation in CONVERSATIONS.items():
        wanted = rendered(before, conversation)
        if wanted is not None and conversation.messages[0]["role"] != "system":
            text = next(text for text in gone if text in wanted)
            wanted, bare = wanted.replace(text, "", 1), bare + 1
        assert rendered(after, conversation) == wanted, title
    return bare


@pytest.mark.parametrize(
    ("template", "gone"),
    [
        pytest.param("Qwen-Qwen2.5-7B-Instruct.jinja", (QWEN_TURN, QWEN), id="Qwen2.5"),
        pytest.param("smollm2:135m", (SMOLLM_TURN,), id="SmolLM2 as its makers document it"),
    ],
)
def test_a_prompt_that_a_branch_writes_is_removed(template: str, gone: tuple[str, ...], fetched: Callable[[environments.Environment], None]) -> None:
    fetched(environments.OLLAMA_UTILS)
    text = real(template)
    after = removed(text)
    assert gone[-1].strip("\n") not in re.sub(r"\{#.*?#\}", "", after, flags=re.DOTALL), "but in a comment, by which its family is known"
    assert compare(text, after, *gone) > 30, "conversations without a system message"


def test_with_tools_the_turn_that_holds_them_stays_as_after_an_empty_system_message() -> None:
    text = real("Qwen-Qwen2.5-7B-Instruct.jinja")
    conversation = CONVERSATIONS["tools"]
    empty = Conversation(messages=[{"role": "system", "content": ""}, *conversation.messages], tools=conversation.tools)
    assert rendered(removed(text), conversation) == rendered(text, empty)


@pytest.mark.parametrize("name", ["smollm2:135m", "qwen2.5vl:latest", "qwen:0.5b", "dbrx:132b", "smallthinker:3b", "stable-code:3b", "devstral:latest"])
def test_so_it_is_of_uploads_in_other_forms(name: str, fetched: Callable[[environments.Environment], None]) -> None:
    """Text outside of tags, ends of turns that the last answer lacks, variables that have the default, a day within it."""
    fetched(environments.OLLAMA_UTILS)
    text = ollama_library.templates()[name]
    default = default_system.find(text, {"bos_token": "<s>", "eos_token": "</s>"})
    assert default is not None
    assert compare(text, removed(text), default.turn, default.text) > 10


@pytest.mark.parametrize(
    ("template", "gone"),
    [
        pytest.param(SET_FIRST, ("<|system|>Be kind, and brief.<|end|>", "Be kind, and brief."), id="a variable"),
        pytest.param(IN_NAMESPACE, ("<|system|>Be kind, and brief.<|end|>",), id="a namespace"),
        pytest.param(PREPENDED, ("<|system|>Be kind, and brief.<|end|>",), id="a message put before the others"),
    ],
)
def test_a_prompt_that_a_variable_has_is_removed(template: str, gone: tuple[str, ...]) -> None:
    after = removed(template)
    for messages in ([{"role": "user", "content": "Hello!"}], [{"role": "system", "content": ""}, {"role": "user", "content": "Hello!"}]):
        for tools in (None, CONVERSATIONS["tools"].tools):
            before = rendered(template, Conversation(messages=messages, tools=tools))
            assert before is not None
            wanted = before if len(messages) > 1 else before.replace(next(text for text in gone if text in before), "", 1)
            assert rendered(after, Conversation(messages=messages, tools=tools)) == wanted


def test_what_stands_before_a_system_message_too_is_no_default() -> None:
    for name in ("meta-llama-Llama-3.1-8B-Instruct.jinja", "openai-gpt-oss-120b.jinja", "Qwen-Qwen3-0.6B.jinja"):
        assert default_system.repair(files(real(name)), None) == [], name


def test_where_nothing_is_proved_one_sentence_says_so_and_nothing_changes(tmp_path: Path) -> None:
    """Granite writes another prompt of its own where tools are offered."""
    granite = real("ibm-granite-granite-3.3-2B-Instruct.jinja")
    with pytest.raises(UpstreamError, match=r"^tokenizer_config.json \(chat_template\): .*'?Knowledge Cutoff.*`system_prompt: remove`.*`system_prompt: keep`"):
        default_system.repair(files(granite), None)
    both = files(real("Qwen-Qwen2.5-7B-Instruct.jinja")) | {"chat_template.jinja": granite}
    with pytest.raises(UpstreamError, match=r"^chat_template.jinja: "):
        default_system.repair(both, None)
    model = releases.clean(tmp_path / "model")
    releases.edit(model / SETTINGS, chat_template=granite)
    (tmp_path / "out").mkdir()
    with pytest.raises(UpstreamError, match="Knowledge Cutoff"):
        fixes.repair(tmp_path / "out", snapshot=model, repo="upstream/model", fixes=True, system_prompt="remove")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("wanted", [True, False])
def test_a_recipe_asks_for_it_whatever_it_says_of_fixes(tmp_path: Path, *, wanted: bool) -> None:
    model = releases.clean(tmp_path / "model")
    releases.edit(model / SETTINGS, chat_template=real("Qwen-Qwen2.5-7B-Instruct.jinja"))
    for name in ("kept", "out", "again"):
        (tmp_path / name).mkdir()
    kept = fixes.repair(tmp_path / "kept", snapshot=model, repo="upstream/model", fixes=wanted)
    assert "default-system-prompt" not in {patch["fix"] for patch in kept["patches"]}, "keep is what is done unasked"
    found = fixes.repair(tmp_path / "out", snapshot=model, repo="upstream/model", fixes=wanted, system_prompt="remove")
    (patch,) = (patch for patch in found["patches"] if patch["fix"] == "default-system-prompt")
    assert (patch["file"], patch["key"]) == (SETTINGS, "chat_template")
    assert QWEN in patch["before"]
    assert patch["reason"].endswith("(the template wrote 'You are Qwen, created by Alibaba Cloud. You are a helpful as…').")
    assert json.loads((tmp_path / "out" / SETTINGS).read_text())["chat_template"] == patch["after"]
    again = fixes.repair(tmp_path / "again", snapshot=tmp_path / "out", repo="upstream/model", fixes=wanted, system_prompt="remove")
    assert again["patches"] == []
