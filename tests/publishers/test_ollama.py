import json
import re
from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from publishers import ollama

MODEL = Path(__file__).parents[2] / "demo" / "model"
PHI = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"

KIND = "{% if messages[0].role != 'system' %}<|system|>\nBe kind.<|end|>\n{% endif %}" + PHI
BEHIND = (  # as Phi-4's and Yi's
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}<|end|>\n{% else %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n"
    "{% if m.role == 'user' %}<|assistant|>\n{% endif %}{% endif %}{% endfor %}"
)
SMOLLM2 = (  # as its makers have it, with a system prompt of its own
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_chat() -> str:
    """The bundled model's template as the fixes leave it: without its own BOS."""
    template: str = json.loads((MODEL / "tokenizer_config.json").read_text())["chat_template"]
    return template.replace("{{- bos_token }}", "")


def probe(template: str) -> dict[str, str]:
    compiled = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True).from_string(template)
    return {
        name: compiled.render(messages=each.messages, tools=each.tools, add_generation_prompt=True, bos_token="<s>") for name, each in ollama.PROBES.items()
    }


def run_go(template: str, messages: list[dict[str, Any]]) -> str:
    """What Ollama renders: the few constructs of the Go template, said in Jinja."""
    jinja = template
    for pattern, replacement in (
        (r'{{ if and \.Messages \(ne \(index \.Messages 0\)\.Role "system"\) }}(.*?){{ end }}', r"{% if Messages[0].role != 'system' %}\1{% endif %}"),
        (r"{{ range (?:\$i, \$_ := )?\.Messages }}", "{% for message in Messages %}"),
        (r"{{ if \(?eq \$i 0\)? }}(.*?){{ end }}", r"{% if loop.first %}\1{% endif %}"),
        (r'{{ if eq \.Role "(\w+)" }}', r'{% if message.role == "\1" %}'),
        (r'{{ else if eq \.Role "(\w+)" }}', r'{% elif message.role == "\1" %}'),
        (r"{{ \.Content }}", "{{ message.content }}"),
        (r"{{ end }}{{ end }}", "{% endif %}{% endfor %}"),
        (r"{{ end }}", "{% endif %}"),
    ):
        jinja = re.sub(pattern, replacement, jinja, flags=re.DOTALL)
    return ImmutableSandboxedEnvironment(keep_trailing_newline=True).from_string(jinja).render(Messages=messages)


def test_params_use_ollamas_names() -> None:
    config = {"temperature": 0.6, "top_k": 20.0, "top_p": 0.95, "min_p": 0, "repetition_penalty": 1.0, "eos_token_id": 4, "do_sample": True}
    assert json.loads(ollama.params(config, ["<|im_end|>", "<|endoftext|>", "<|im_end|>"])) == {
        "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.0, "repeat_penalty": 1.0, "stop": ["<|im_end|>", "<|endoftext|>"],
    }  # fmt: skip


def test_params_leave_out_what_is_not_a_number() -> None:
    config = {"temperature": "hot", "top_k": True, "top_p": float("inf"), "min_p": None, "repetition_penalty": [1]}
    assert json.loads(ollama.params(config, [])) == {"stop": []}


def test_chatml_becomes_a_go_template() -> None:
    assert ollama.template_from_probes(probe(tiny_chat())) == (
        b'{{ range $i, $_ := .Messages }}{{ if eq .Role "system" }}{{ if (eq $i 0) }}<|im_start|>system\n{{ .Content }}<|im_end|>\n{{ end }}'
        b'{{ else if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
        b'{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n{{ end }}{{ end }}<|im_start|>assistant\n'
    )


@pytest.mark.parametrize("template", [tiny_chat(), PHI, KIND, SMOLLM2, KIND.replace("<|", "<").replace("|>", ">").replace("<end>", "")])
def test_the_go_template_renders_the_same(template: str) -> None:
    probes = probe(template)
    go = ollama.template_from_probes(probes)
    assert go is not None
    for name in ("user", "system", "turns", "all"):
        assert run_go(go.decode(), [dict(message) for message in ollama.PROBES[name].messages]) == probes[name]


def test_a_system_prompt_of_the_templates_own_is_written_where_there_is_none() -> None:
    go = ollama.template_from_probes(probe(SMOLLM2))
    assert go is not None
    assert go.startswith(
        b'{{ if and .Messages (ne (index .Messages 0).Role "system") }}<|im_start|>system\nYou are a helpful AI assistant named SmolLM, '
        b"trained by Hugging Face<|im_end|>\n{{ end }}{{ range .Messages }}"
    )


@pytest.mark.parametrize(
    "template",
    [
        pytest.param("{{ bos_token }}" + PHI, id="its own BOS"),
        pytest.param(PHI.replace("<|assistant|>\n{%", "<|assistant|>\n<think>\n{%"), id="forced reasoning"),
        pytest.param(PHI.replace("m.content", "m.content | trim"), id="trimmed content"),
        pytest.param(KIND.replace("Be kind.", "Today is 28 November 2026."), id="a date in a default system prompt"),
        pytest.param("{% if messages[0].role != 'system' %}[Be kind.]{% endif %}" + PHI, id="a default system prompt in another form"),
        pytest.param(BEHIND, id="the answer's header stands behind the question, whatever follows"),
        pytest.param("{% if tools %}{{ tools }}{% endif %}" + PHI, id="a list of tools"),
        pytest.param(PHI.replace("{{ m.content }}", "{{ m.content }}{{ m.tool_calls }}"), id="tool calls"),
        pytest.param("{% for m in messages %}[INST]{{ m.content }}[/INST]{% endfor %}", id="no roles"),
        pytest.param(PHI.replace("<|end|>", "{{ '{{ .Prompt }}' }}"), id="Go inside"),
        pytest.param("", id="nothing"),
        pytest.param("{{ messages[-1].content }}", id="the last message only"),
    ],
)
def test_other_templates_are_left_to_ollama(template: str) -> None:
    assert ollama.template_from_probes(probe(template)) is None


def test_refused_probes() -> None:
    probes = probe(tiny_chat())
    assert ollama.template_from_probes({name: text for name, text in probes.items() if name != "calls"}) is not None
    assert ollama.template_from_probes({name: text for name, text in probes.items() if name != "system"}) is None
    assert ollama.template_from_probes({}) is None


def test_the_prompt_format_has_places_for_system_and_prompt() -> None:
    assert ollama.prompt_format(probe(tiny_chat())) == ("<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n")
    trims = "{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}\n{% endfor %}"
    assert ollama.prompt_format(probe(trims)) == "[system] {system}\n[user] {prompt}\n"
    deaf = "{% for m in messages if m.role == 'user' %}Q: {{ m.content }} A:{% endfor %}"
    assert ollama.prompt_format(probe(deaf)) == "Q: {prompt} A:", "a template that drops the system prompt is shown without one"
    assert ollama.prompt_format({}) is None
    assert ollama.prompt_format({"user": "something else", "system": ""}) is None
