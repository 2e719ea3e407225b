"""Templates for Ollama against the chat templates that they stand for, rendered by Go itself."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from builders.fixes import default_system
from config.errors import MeasurementError, ToolError
from config.rules import FAMILIES, Family, load_families
from engines import chat, environments, go_template
from publishers import ollama as derived
from qa import interleaved, ollama
from qa.batteries import Conversation
from qa.ollama import PLAIN, SPACES, THINKING, TOOLS
from tests import releases
from tests.miniatures import template_of

go = pytest.mark.usefixtures("go")  # only it renders as Ollama does
PROOFS = [(family, name) for family in load_families() for name in family.templates]
BOS = "<s>"
DERIVED = {  # templates whose turns are all of one simple form
    "microsoft-Phi-3.5-mini-instruct.jinja", "phi3:3.8b", "phi4-mini:3.8b", "qwen2:0.5b", "qwen2.5vl:latest", "smollm2:135m", "tiny-chat.jinja",
}  # fmt: skip
OWN = {"phi4-mini:3.8b"}  # of those, where the family has one that writes tools as well
LEARNT = {  # and those for which the family has none of its own, or one that writes tools which the chat template does not
    "devstral:latest", "llama3:8b", "mistral:7b-instruct-fp16", "mistral-large:123b", "mistral-small:24b", "phi3:14b", "phi4:14b", "phi4-reasoning:14b",
}  # fmt: skip
UNLEARNT = "{% for m in messages %}<|im_start|>{{ loop.index }}{{ m.content }}<|im_end|>\n{% endfor %}"  # which no template for Ollama can be learnt from
# conversations that come out otherwise: texts that are trimmed, reasoning in the text of an answer, which Ollama takes out before, tools that these models were
# not made for, and `</think>`, which llama.cpp's copies of two templates write where thinking is off
OTHERWISE: Mapping[str, Mapping[str, int]] = {
    "google-gemma-2-2b-it.jinja": {SPACES: 1},
    "gemma3:270m": {SPACES: 1},
    "meta-llama-Llama-3.1-8B-Instruct.jinja": {SPACES: 2},
    "meta-llama-Llama-3.3-70B-Instruct.jinja": {SPACES: 2},
    "llama4:latest": {SPACES: 1},
    "Qwen-Qwen3-0.6B.jinja": {THINKING: 1},
    "Qwen-QwQ-32B.jinja": {SPACES: 1, THINKING: 4, TOOLS: 1},
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja": {THINKING: 1, TOOLS: 8},
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja": {THINKING: 4, TOOLS: 9},
    "llama2:7b": {SPACES: 1},
    "gemma3:1b": {SPACES: 1},
    "llama3:8b": {SPACES: 2, TOOLS: 8},
    "llama3.2-vision:latest": {SPACES: 1},
    "mixtral:8x22b": {TOOLS: 3},  # it knows no tools, and later ones of its form do
    "tiny-chat.jinja": {TOOLS: 8},
    "phi4:14b": {TOOLS: 8},  # it writes no results of tools
    "phi3:14b": {TOOLS: 8},
    "qwen2:0.5b": {TOOLS: 8},
    "qwen2.5vl:latest": {TOOLS: 8},
    "smollm2:135m": {TOOLS: 8},
    "mistralai-Mistral-Nemo-Instruct-2407.jinja": {TOOLS: 11},  # it writes descriptions of tools without escaping what stands in them
    "GLM-4.6.jinja": {SPACES: 1, THINKING: 1},
    "GLM-4.7-Flash.jinja": {SPACES: 1, THINKING: 1},
    "Qwen3.5-4B.jinja": {SPACES: 2, THINKING: 1},
    "HuggingFaceTB-SmolLM3-3B.jinja": {SPACES: 2},
    "meta-llama-Llama-3.2-3B-Instruct.jinja": {SPACES: 2},
}


def own(template: str, eos: str | None = None) -> ollama.Render:
    """As the repaired model renders it, whose tokenizer writes the beginning of sequence."""
    tokens = {"bos_token": BOS, "eos_token": eos or ""}

    def render(conversation: Conversation) -> str:
        variables, given = {"enable_thinking": conversation.thinking}, ollama.with_tools(conversation, template)
        messages, tools = given.messages, given.tools
        return chat.render(template, messages, special_tokens=tokens, tools=tools, add_generation_prompt=True, variables=variables).removeprefix(BOS)

    return render


def probes(template: str) -> Mapping[str, str]:
    found = {}
    for name, probe in derived.PROBES.items():
        try:
            found[name] = chat.render(template, probe.messages, special_tokens={"bos_token": ""}, tools=probe.tools, add_generation_prompt=True)
        except MeasurementError:
            continue
    return found


@go
@pytest.mark.parametrize(("family", "name"), PROOFS, ids=[f"{family.name} {name}" for family, name in PROOFS])
def test_each_family_has_a_template_that_renders_what_its_chat_templates_do(family: Family, name: str) -> None:
    """Its own file, one that is derived, or one that is learnt, in this order."""
    text = template_of(family, name)
    render = own(text, family.end_of_turn)
    files = [ollama.with_default((FAMILIES / "templates" / file).read_text(encoding="utf-8"), render, text) for file in family.ollama]
    simple = derived.template_from_probes(probes(text))
    assert (simple is not None) == (name in DERIVED)
    learnt = interleaved.derived(render, lambda said: ollama.fixed(said, text))
    template, found = ollama.proved([*files, simple and simple.decode(), learnt], render)[0]
    assert (template not in files, template == learnt) == (name in (DERIVED | LEARNT) - OWN, name in LEARNT)
    assert found[PLAIN].whole, found[PLAIN].first
    missing = {part: proof.of - proof.same for part, proof in found.items() if proof.same < proof.of}
    assert missing == OTHERWISE.get(name, {}), {part: proof.first for part, proof in found.items()}


@go
def test_a_template_whose_own_system_prompt_was_removed_keeps_its_tools() -> None:
    family = next(family for family in load_families() if family.name == "qwen2.5")
    text = template_of(family, "Qwen-Qwen2.5-7B-Instruct.jinja")
    (edit,) = default_system.repair({"chat_template.jinja": text}, None)
    candidates = [(FAMILIES / "templates" / file).read_text(encoding="utf-8") for file in family.ollama]
    chosen, found = ollama.proved(candidates, own(edit.after))[0]
    assert "You are Qwen" not in chosen
    assert {part: proof.first for part, proof in found.items() if not proof.whole} == {}


@pytest.mark.parametrize(
    ("name", "sign"),
    [
        ("llama3", ""),
        ("llama3.2", ""),
        ("llama4", ""),
        ("qwen2.5", "<tool_call>"),
        ("qwen2.5-unprompted", "<tool_call>"),
        ("qwq", "<tool_call>"),
    ],
)
def test_what_ollama_takes_for_the_sign_of_a_call_is_written_by_the_model(name: str, sign: str) -> None:
    """Its tools/template.go takes the first text within `if .ToolCalls`, up to a brace, which no answer holds where it is a header; nothing stands for JSON."""
    text = (FAMILIES / "templates" / f"{name}.gotmpl").read_text(encoding="utf-8")
    [_, branch] = re.split(r"if [^}]*\.ToolCalls", text)
    said = re.sub(r"\{\{.*?\}\}", "", branch.partition("}}")[2]).lstrip()
    assert said.startswith(f'{sign}\n{{"name"' if sign else '{"name"')


@pytest.mark.parametrize("name", ["granite-4.0", "granite-4.1", "qwen2.5", "qwen2.5-unprompted", "qwen3", "qwq"])
def test_the_first_text_of_the_branch_for_calls_is_their_sign(name: str) -> None:
    """Without one, Ollama takes any brace of an answer for the beginning of a call, and what stands before it for text."""
    text = (FAMILIES / "templates" / f"{name}.gotmpl").read_text(encoding="utf-8")
    [_, branch] = re.split(r"if [^}]*\.ToolCalls", text)
    first = next(chunk for chunk in re.split(r"\{\{.*?\}\}", branch.partition("}}")[2]) if chunk)
    assert first.strip().split("{")[0].strip() == "<tool_call>"


def test_a_system_prompt_of_the_model_s_own_is_put_into_the_template_with_its_day() -> None:
    words = "'It is ' + strftime_now('%Y-%m-%d') + '.\\nSay \"{{\"'"
    dated = "[S]{{ messages[0].content if messages[0].role == 'system' else " + words + " }}[/S]{{ messages[-1].content }}"
    filled = ollama.with_default(f"[S]{ollama.DEFAULT}[/S]", own(dated), dated)
    assert filled == '[S]{{ "It is " }}{{ currentDate }}{{ ".\\nSay \\"{{\\"" }}[/S]'
    weekday = dated.replace("%Y-%m-%d", "%A")
    assert ollama.with_default(f"[S]{ollama.DEFAULT}[/S]", own(weekday), weekday) is None, "tomorrow it would be wrong"
    plain = "{{ messages[0].role }}: {{ messages[0].content }}"
    assert ollama.with_default(f"[S]{ollama.DEFAULT}[/S]", own(plain), plain) is None
    assert ollama.with_default("as it is", own(plain), plain) == "as it is"


@go
@pytest.mark.parametrize("form", ["%d %b %Y", "%B %d, %Y", "%Y/%m"])
def test_the_day_is_written_in_other_forms(form: str) -> None:
    (day,) = go_template.render(f"{ollama.day_in(form)}{{{{ range .Messages }}}}{{{{ end }}}}", [{"messages": []}])
    assert day == datetime.now().astimezone().strftime(form)


@go
def test_values_and_functions_are_those_of_ollama() -> None:
    function = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"n": {"type": ["integer", "null"]}}, "required": ["n"]}}
    calls = [{"id": "1", "function": {"index": 0, "name": "f", "arguments": {"b": 1, "a": "<é>"}}}]
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "One."},
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": calls},
        {"role": "tool", "content": "c", "tool_name": "f"},
        {"role": "tool", "content": "d", "tool_name": "f"},
        {"role": "system", "content": "Two."},
    ]
    template = (
        "{{ .System }}|{{ range .Messages }}{{ .Role }}:{{ .Content }}{{ .Thinking }}{{ .ToolName }}{{ range .ToolCalls }}{{ .Function.Name }}"
        "{{ .Function.Arguments }}{{ range $k, $v := .Function.Arguments }}{{ $k }}={{ $v }};{{ end }}{{ end }}|{{ end }}"
        "{{ range .Tools }}{{ json .Function.Parameters }}{{ range .Function.Parameters.Properties }}{{ toTypeScriptType . }}{{ end }}{{ end }}"
        "|{{ .Think }}{{ .IsThinkSet }}{{ .ThinkLevel }}{{ .Response }}{{ .Nothing }}"
    )
    given = {"messages": messages, "tools": [{"type": "function", "function": function}]}
    (text,) = go_template.render(template, [given])
    assert text == (
        "One.\n\nTwo.|system:One.|user:a\n\nb|assistant:Hm.f"
        r'{"a":"\u003cé\u003e","b":1}a=<é>;b=1;|tool:cf|tool:df|system:Two.|'
        '{"type":"object","required":["n"],"properties":{"n":{"type":["integer","null"]}}}number | null|falsefalse<no value>'
    )
    (set_,) = go_template.render("{{ .Messages }}{{ .Think }}{{ .IsThinkSet }}", [{"messages": [], "think": True}])
    assert set_ == "[]truetrue"
    for wrong, said in (
        ("{{ range .Messages }}", "unexpected EOF"),
        ("{{ .System }}", "reads neither .Messages nor .Prompt"),
        ("{{ index .Messages 3 }}", "out of range"),
    ):
        with pytest.raises(MeasurementError, match=said):
            go_template.render(wrong, [{"messages": []}])


OLDER = "{{ if .System }}<s>{{ .System }}</s>{{ end }}{{ if .Prompt }}<u>{{ .Prompt }}</u>{{ end }}<a>{{ .Response }}</a>"


@go
@pytest.mark.parametrize(
    ("template", "roles", "expected"),
    [
        (OLDER, "system user", "<s>0</s><u>1</u><a>"),
        (OLDER, "system user assistant user", "<s>0</s><u>1</u><a>2</a><u>3</u><a>"),
        (OLDER, "user assistant system user", "<u>0</u><a>1</a><s>2</s><u>3</u><a>"),
        (OLDER, "user assistant", "<u>0</u><a>1"),
        ("[{{ .Prompt }}]", "user assistant user", "[0]1[2]"),
        ("{{ if .Prompt }}[{{ .Prompt }}]{{ if .Response }}({{ .Response }}){{ end }};{{ end }}!", "user assistant user", "[0](1);![2]"),
    ],
)
def test_templates_of_the_older_form_are_written_a_round_for_each_question(template: str, roles: str, expected: str) -> None:
    """As template/template.go of Ollama has it: the last round ends where the answer begins, in whatever branch that stands."""
    messages = [{"role": role, "content": str(number)} for number, role in enumerate(roles.split())]
    assert go_template.render(template, [{"messages": messages}]) == [expected]


@go
def test_what_the_hub_would_make_is_counted_where_it_can_be_asked(fetched: Callable[[environments.Environment], None], tmp_path: Path) -> None:
    """The bundled model's form is ChatML, and what begins with its first 128 characters is taken for another model's."""
    fetched(environments.OLLAMA_UTILS)
    utils = environments.OLLAMA_UTILS.version
    model = releases.clean(tmp_path / "model")
    sound = derived.template_from_probes(probes(releases.read(model / "tokenizer_config.json")["chat_template"]))
    assert sound is not None
    found = ollama.choose(tmp_path, model=model, derived=sound.decode(), family=[], go=go_template.version(), utils=utils)
    assert found["template"] == sound.decode()
    assert found["without"]["utils"] == utils
    assert 0 <= found["without"]["same"] < found["without"]["of"] == found["proved"][PLAIN]["of"]
    releases.edit(model / "tokenizer_config.json", chat_template=UNLEARNT)
    unknown = ollama.choose(tmp_path, model=model, derived=None, family=[], go=go_template.version(), utils=utils)
    assert (unknown["template"], unknown["without"]["same"]) == (None, 0)
    assert "it is of no form that one is known for" in unknown["remark"]


HEADINGS = "{% if messages[0].role != 'system' %}<|turn|>system\n### Rules\nAnswer briefly.<|done|>\n{% endif %}"
TURNS = "{% for m in messages %}<|turn|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n{% endif %}{{ m.content }}<|done|>\n{% endfor %}"
OPENS = "{% if add_generation_prompt %}<|turn|>assistant\n<think>\n{% endif %}"


@go
def test_stop_strings_of_the_hub_s_that_answers_may_hold_are_told(fetched: Callable[[environments.Environment], None], tmp_path: Path) -> None:
    """Of a template that it does not know it takes whatever looks like a token, and `###`, for stop strings."""
    fetched(environments.OLLAMA_UTILS)
    model = releases.clean(tmp_path / "model")

    def without(template: str) -> list[str]:
        releases.edit(model / "tokenizer_config.json", chat_template=template)
        found = ollama.choose(tmp_path, model=model, derived=None, family=[], go=go_template.version(), utils=environments.OLLAMA_UTILS.version)
        stops: list[str] = found["without"]["stops"]
        return stops

    assert set(without(HEADINGS + TURNS + OPENS)) == {"###", "<think>", "<|turn|>", "<|done|>"}, "none is a token of this model's"
    own = (HEADINGS + TURNS + OPENS).replace("<|turn|>", "<|im_start|>").replace("<|done|>", "<|im_end|>")
    assert set(without(own)) <= {"###", "<think>"}


def test_a_stop_string_that_ends_answers_as_the_model_does_cuts_none() -> None:
    given = ["<end>", "</s>", "<|user|>", "###", "<think>"]
    assert ollama.cutting(given, ends={"<end>", "</s>"}, special={"<end>", "<|user|>"}) == ["###", "<think>"]
    assert ollama.cutting(given, ends={"</s>"}, special={"<|user|>", "<think>"}) == ["<end>", "###", "<think>"], "the battery's answers hold <think>"
    assert ollama.cutting(["<think>"], ends={"<think>"}, special=set()) == []


@go
def test_a_template_that_renders_otherwise_is_not_published(tmp_path: Path) -> None:
    model = releases.clean(tmp_path / "model")
    sound = derived.template_from_probes(probes(releases.read(model / "tokenizer_config.json")["chat_template"]))
    assert sound is not None
    wrong = sound.decode().replace("<|im_end|>\n", "<|im_end|>")
    version = go_template.version()
    found = ollama.choose(tmp_path, model=model, derived=sound.decode(), family=[wrong], go=version)
    assert (found["template"], found["go"], found["remark"]) == (sound.decode(), version, "")
    assert found["proved"][PLAIN]["same"] == found["proved"][PLAIN]["of"] >= 10
    learnt = ollama.choose(tmp_path, model=model, derived=wrong, family=[wrong], go=version)
    assert learnt["template"] not in {None, wrong, sound.decode()}
    assert learnt["proved"][PLAIN] == found["proved"][PLAIN]
    releases.edit(model / "tokenizer_config.json", chat_template=UNLEARNT)
    found = ollama.choose(tmp_path, model=model, derived=wrong, family=[], go=version)
    assert found["template"] is None
    assert "one question: the model's own template writes" in found["remark"]


def test_without_go_what_was_derived_is_published_and_said_to_be_unverified(tmp_path: Path) -> None:
    model = releases.clean(tmp_path / "model")
    found = ollama.choose(tmp_path, model=model, derived="derived", family=["of the family"], go=None)
    assert found == {"template": "derived", "go": None, "proved": {}, "remark": "not verified by Go, which is not installed here", "without": None}
    none = ollama.choose(tmp_path, model=model, derived=None, family=["of the family"], go=None)
    assert none["template"] is None
    assert none["remark"] == "no template of its own, which would have to be verified by Go, which is not installed here"
    assert ollama.choose(tmp_path, model=releases.base_model(tmp_path / "base"), derived=None, family=[], go=None)["template"] is None


def test_without_go_the_program_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(environments, "GO", environments.Environment("nothing", ("nothing==1.0",)))
    go_template.version.cache_clear()
    try:
        assert go_template.version() is None
        with pytest.raises(ToolError, match="apt install golang-go"):
            go_template.render("{{ .Messages }}", [])
    finally:
        go_template.version.cache_clear()


def test_conversations_that_ollama_changes_are_left_out() -> None:
    titles = {title for title, _ in ollama.representable()}
    assert {"one question", "system message later", "tool call and result, arguments as an object", "thinking off"} <= titles
    assert not titles & {"two questions in a row", "two system messages", "unknown role", "question and answer", "tool call and result, arguments as a string"}
