"""Each family is proved by real chat templates, and the author of a family file is told what is wrong with it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from builders import families
from builders.fixes.templates import ANSWER, TURN
from config.errors import MeasurementError
from config.rules import FAMILIES, Family, family_of, load_families
from engines import chat, environments, llama, ollama_library, toolchain
from qa.batteries import CONVERSATIONS, Conversation
from tests import miniatures, releases
from tests.qa import real_templates

SHIPPED = {family.name: family for family in load_families()}
BUNDLED = "tiny-chat"  # the family of the bundled model, which is no one else's
PROOFS = [(family, name) for family in SHIPPED.values() for name in family.templates]
ELSEWHERE = [  # templates of llama.cpp's that prove no family, with the architecture of their releases
    ("fireworks-ai-llama-3-firefunction-v2.jinja", "llama", "llama3"),
    ("meetkai-functionary-medium-v3.2.jinja", "llama", "llama3"),
    ("NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja", "llama", None),  # ChatML on Llama
    ("Bielik-11B-v3.0-Instruct.jinja", "llama", None),
    ("openbmb-MiniCPM5-1B.jinja", "llama", None),
    ("MiMo-VL.jinja", "qwen2_5_vl", None),  # a system prompt of its own
    ("deepseek-ai-DeepSeek-V3.1.jinja", "deepseek_v3", None),
    ("deepseek-ai-DeepSeek-V3.1.jinja", "qwen2", None),  # as a distillation of it would bring it, whose reasoning is a choice
    ("llama-cpp-deepseek-r1.jinja", "llama", "deepseek-r1-distill"),
    ("google-gemma-4-31B-it.jinja", "gemma4", None),
    ("unsloth-Apriel-1.5.jinja", "pixtral", None),
]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_family_is_borne_out_by_its_templates(name: str) -> None:
    for template in SHIPPED[name].templates:
        miniatures.template_of(SHIPPED[name], template)
    assert families.check(FAMILIES / f"{name}.yaml") == []


def test_every_family_is_proved_by_a_real_template() -> None:
    """Of llama.cpp's collection, or of a model of Ollama's library; the bundled model's family by the bundled model's."""
    real = {path.name for path in real_templates.templates()}
    unproved = {family.name for family in SHIPPED.values() if not any(name in real or ":" in name for name in family.templates)}
    assert unproved == {BUNDLED}


def test_the_bundled_model_s_family_has_its_template(tmp_path: Path) -> None:
    settings = releases.read(releases.clean(tmp_path / "model") / "tokenizer_config.json")
    assert miniatures.template_of(SHIPPED[BUNDLED], "tiny-chat.jinja") == settings["chat_template"]


@pytest.mark.parametrize(("family", "name"), PROOFS, ids=[f"{family.name} {name}" for family, name in PROOFS])
def test_a_family_is_recognised_by_architecture_and_template_and_no_other_takes_it(family: Family, name: str) -> None:
    text = miniatures.template_of(family, name)
    repo = "upstream/tiny-chat" if family.repo else "someone/renamed"
    for kind in family.model_types:
        assert family_of(repo, kind, text, load_families()) == family
    assert family_of(repo, "gpt2", text, load_families()) is None, "the template alone is not enough"


def rendered(text: str, conversation: Conversation, family: Family, *, prompting: bool = False) -> str | None:
    """The conversation by a family's template; None where it refuses it or breaks."""
    tokens, variables = {"bos_token": "<bos>", "eos_token": family.end_of_turn or "<eos>"}, {"enable_thinking": conversation.thinking}
    try:
        return chat.render(text, conversation.messages, special_tokens=tokens, tools=conversation.tools, add_generation_prompt=prompting, variables=variables)
    except MeasurementError:
        return None


def written(text: str, family: Family) -> Iterator[tuple[str, str]]:
    """What stands behind the prompt for each answer of the battery that is a conversation's last message, and the answer's text."""
    for conversation in CONVERSATIONS.values():
        *before, last = conversation.messages
        if last["role"] != "assistant" or not before or conversation.continued or before[-1]["role"] == "assistant":
            continue
        asked = Conversation(messages=before, tools=conversation.tools, thinking=conversation.thinking)
        prompt, whole = rendered(text, asked, family, prompting=True), rendered(text, conversation, family)
        if prompt is None or whole is None:
            continue
        prompt = re.sub(r"<think>\n?$", "", prompt)  # reasoning is taken out of answers that are given back
        assert whole.startswith(prompt), "a prompt for an answer is not what stands before one"
        yield whole[len(prompt) :], str(last["content"] or "").split("</think>")[-1].strip()


@pytest.mark.parametrize(("family", "name"), PROOFS, ids=[f"{family.name} {name}" for family, name in PROOFS])
def test_generation_begins_where_answers_do_and_stops_where_they_end(family: Family, name: str) -> None:
    """An answer, or a call of a tool, ends at the token that ends turns or at a stop string, and none of them stands in it before."""
    text, ends = miniatures.template_of(family, name), [*family.stop, *([family.end_of_turn] if family.end_of_turn else [])]
    answers = list(written(text, family))
    assert any(answer for _, answer in answers)
    for behind, answer in answers:
        stopped = min((at for end in ends if (at := behind.find(end)) >= 0), default=None)
        if stopped is None:
            assert family.end_of_turn is None, f"nothing of {ends} in {behind!r}"
        assert answer in behind[:stopped], f"it would stop at {behind[stopped:]!r}"
        rest = behind[stopped:] if stopped is not None and answer else ""  # of calls alone, some templates write an empty answer besides
        assert not re.sub("|".join(map(re.escape, ends)), "", rest).strip(), "something follows the end"


HEADERS = [(family, name) for family, name in PROOFS if family.end_of_turn is None]


@pytest.mark.parametrize(("family", "name"), HEADERS, ids=[name for _, name in HEADERS])
def test_where_no_token_ends_turns_the_next_one_s_header_is_a_stop_string(family: Family, name: str) -> None:
    text = miniatures.template_of(family, name)
    whole = rendered(text, Conversation(messages=[*TURN, TURN[0]]), family)
    assert whole is not None
    assert whole.partition(ANSWER)[2].lstrip().startswith(family.stop)


VOCABULARIES = {"phi3": "phi-3", "qwen3.5": "qwen35"} | dict.fromkeys(("qwen2", "qwen2.5", "qwen3", "qwen3-instruct", "qwq"), "qwen2")


@pytest.mark.parametrize("name", VOCABULARIES)
def test_what_stops_is_one_token_of_the_real_vocabulary(name: str) -> None:
    """Of those families whose vocabulary llama.cpp has; text that is no token would have to be waited for."""
    family = SHIPPED[name]
    with llama.open_vocabulary(toolchain.sources() / "models" / f"ggml-vocab-{VOCABULARIES[name]}.gguf") as vocabulary:
        for stop in (*family.stop, family.end_of_turn or ""):
            assert len(vocabulary.tokenize(stop, add_special=False)) == 1, stop


@pytest.mark.parametrize(("name", "model_type", "family"), ELSEWHERE)
def test_templates_of_other_releases_are_taken_for_what_they_are(name: str, model_type: str, family: str | None) -> None:
    text = (toolchain.sources() / "models" / "templates" / name).read_text()
    found = family_of("someone/renamed", model_type, text, load_families())
    assert (found.name if found else None) == family


def written_file(folder: Path, **changed: object) -> Path:
    """A family file beside nothing, Qwen 2.5's but for what is changed, without a template for Ollama."""
    content = yaml.safe_load((FAMILIES / "qwen2.5.yaml").read_text()) | {"name": "mine", "ollama": None} | changed
    path = folder / f"{content['name']}.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}, allow_unicode=True))
    return path


REAL = {  # models of Ollama's library, with the architecture of their releases and the family that takes these
    "gemma2:2b": ("gemma2", "gemma2"),
    "llama3.1:8b": ("llama", "llama3"),
    "llama3.2:3b": ("llama", "llama3"),
    "llama-guard3:8b": ("llama", "llama3"),
    "nemotron:70b": ("llama", "llama3"),
    "phi3.5:3.8b": ("phi3", "phi3"),
    "qwen2.5:0.5b": ("qwen2", "qwen2.5"),
    "qwen2.5-coder:1.5b": ("qwen2", "qwen2.5"),
    "qwen3:0.6b": ("qwen3", "qwen3"),
    "qwen3-coder:30b": ("qwen3_moe", "qwen3-instruct"),
    "qwq:32b (2)": ("qwen2", "qwq"),
    "deepseek-r1:8b": ("llama", None),  # of the first days, when it did not force reasoning
    "deepseek-r1:latest": ("qwen3", None),  # R1 0528, which does not either
    "deepseek-v3:671b": ("llama", None),  # as a tune of Llama would bring it
    "deepseek-v3.1:latest": ("qwen2", None),
    "r1-1776:671b": ("llama", None),
    "deepcoder:14b": ("qwen2", "deepseek-r1-distill"),
    "granite3-dense:2b": ("granite", "granite"),
    "granite3.1-moe:1b": ("granitemoe", "granite"),
    "granite3.2:8b": ("granite", "granite"),
    "granite3.3:2b": ("granite", "granite"),
    "granite4:350m": ("granitemoehybrid", "granite"),
    "tinyllama:1.1b": ("llama", None),
    "dolphin-mixtral:8x7b": ("mixtral", None),  # ChatML on Mixtral, Llama, Qwen 2
    "hermes3:70b": ("llama", None),
    "marco-o1:7b": ("qwen2", None),
    "qwq:32b": ("qwen2", None),  # the preview, which does not open with <think>
    "tulu3:70b": ("llama", None),
    "yi:6b": ("llama", None),
    "shieldgemma:27b": ("gemma2", "gemma2"),
}


@pytest.mark.parametrize("name", REAL)
def test_real_templates_that_prove_no_family_are_taken_for_what_they_are(name: str) -> None:
    kind, family = REAL[name]
    found = family_of("someone/renamed", kind, miniatures.template_of(SHIPPED["gemma3"], name), load_families())
    assert (found.name if found else None) == family


def test_the_author_is_told_of_models_that_the_library_does_not_have(tmp_path: Path) -> None:
    miniatures.template_of(SHIPPED["gemma3"], "gemma3:1b")  # fetches the library where it is missing
    (said,) = families.check(written_file(tmp_path, model_types=["gpt2"], templates=["gemma3:1"]))
    assert re.search(r"knows no template of a model gemma3:1\. Did you mean gemma3:1b", said)


def test_without_the_library_its_templates_are_said_to_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_CACHE", str(tmp_path))
    monkeypatch.setattr(ollama_library, "OLLAMA_UTILS", environments.Environment("nothing", ("nothing@1.0",), npm=True))
    ollama_library.templates.cache_clear()
    try:
        (said,) = families.check(written_file(tmp_path, model_types=["gpt2"], templates=["gemma3:1b"]))
    finally:
        ollama_library.templates.cache_clear()
    assert "gemma3:1b: the templates of Ollama's library cannot be looked at. nothing@1.0 is not installed: `make readers` does." in said


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

    found = families.check(written_file(tmp_path, **changed))
    assert any(re.search(said, sentence) for sentence in found), found


def test_a_template_beside_the_file_proves_it(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    template = tmp_path / "templates" / "mine.jinja"
    path = written_file(tmp_path, model_types=["gpt2"], templates=["mine.jinja"], template={"holds": ["[Q]"]}, end_of_turn="[/Q]", sampling=None)
    template.write_text("{% for message in messages %}[Q]{{ message.content }}[/Q]{% endfor %}")
    assert families.check(path) == []
    template.write_text("[Q]{% for message in messages %}{{ message.content + 1 }}{% endfor %}")
    assert len(found := families.check(path)) == 1
    assert "does not render a question and its answer" in found[0]
    template.write_text("[Q]")
    assert families.check(path) == ["mine.jinja: it leaves the answer out of a conversation that ends with one."]


def test_the_name_of_the_file_is_that_of_the_family(tmp_path: Path) -> None:
    path = written_file(tmp_path, model_types=["gpt2"]).rename(tmp_path / "other.yaml")
    assert families.check(path) == ["the file is called other.yaml, and its family mine: call it mine.yaml"]
