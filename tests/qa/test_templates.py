import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from engines import hf, llama, toolchain, tools
from qa import templates
from tests import ggufs, releases
from tests.qa.conftest import DEMO, Release
from tests.releases import edit, read

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

SOUND = ("template.failures", "template.system", "tokenizer.mismatches", "tokenizer.known", "tokenizer.departures")


def measured(out: Path, model: Path, gguf: Path) -> dict[str, dict[str, Any]]:
    return {m["name"]: m for m in templates.check(out, model=model, gguf=gguf, threads=1)["measurements"]}


@pytest.fixture(scope="module")
def variation(clean: Release, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """The findings on the clean model after changes to its JSON files; its GGUF is given the same template unless another one is named."""

    def findings(gguf: Path | None = None, measure: str = "template.failures", **changed: object) -> list[str]:
        folder = tmp_path_factory.mktemp("variation")
        model = shutil.copytree(clean.model, folder / "model")
        for file in ("tokenizer_config.json", "generation_config.json"):
            content = json.loads((model / file).read_text())
            (model / file).write_text(json.dumps(content | {key: value for key, value in changed.items() if (key in content) or file.startswith("tokenizer")}))
        if gguf is None and "chat_template" in changed:
            gguf = folder / "BF16.gguf"
            tools.execute([sys.executable, "-m", "gguf.scripts.gguf_new_metadata", clean.gguf, gguf, "--chat-template", str(changed["chat_template"])])
        return list(measured(folder, model, gguf or clean.gguf)[measure]["details"])

    return findings


def test_the_clean_model_has_no_failures(clean: Release, tmp_path: Path) -> None:
    found = measured(tmp_path, clean.model, clean.gguf)
    remarks = found.pop("template.remarks")
    assert {name: (m["value"], m["details"]) for name, m in found.items()} == dict.fromkeys(SOUND, (0, ()))
    assert remarks["details"] == (
        "the template renders a message in the unknown role 'critic' instead of refusing it",
        "the template does not take such conversations in 46 of 103 conversations, 'tools' for one: it does not read tool_calls; it does not read tools",
    )
    assert found["template.failures"]["n"] > 100
    assert found["tokenizer.mismatches"]["n"] > 100
    json.dumps(found, allow_nan=False)


def test_each_planted_defect_is_found_and_explained(broken: Release, tmp_path: Path) -> None:
    found = measured(tmp_path, broken.model, broken.gguf)
    assert found["tokenizer.mismatches"]["value"] == 0
    assert found["template.failures"]["details"] == (
        "in transformers the prompt begins with 2 BOS tokens (ids 1, 1) in 57 of 57 conversations: the template writes <s> and the tokenizer adds it again",
        "the assistant's turn ends with <|im_end|> (4), but generation_config.json stops only at <|endoftext|> (5): answers run on after the turn",
        "the assistant's turn ends with <|im_end|> (4), but the tokenizer's eos_token is <|endoftext|> (5)",
        "pad_token is <|im_end|> (4), which ends the assistant's turn: training that masks padding never learns to stop",
    )
    assert found["template.failures"]["value"] == 4


def test_contents_in_parts_are_given_in_parts(variation) -> None:
    """Both engines find out by themselves that such a template does not read a text."""
    parts = "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% elif part.type == 'image' %}<image>{% endif %}{% endfor %}"
    template = CHATML.replace("{{ m.content }}", parts)
    assert variation(chat_template=template) == []
    assert "as a list of parts" in variation(chat_template=template, measure="template.remarks")[0]


def test_pad_must_not_be_eos(variation) -> None:
    [finding] = variation(pad_token="<|im_end|>", pad_token_id=4)
    assert finding.startswith("pad_token and eos_token are both <|im_end|> (4)")


def test_pad_must_not_occur_in_a_conversation(variation) -> None:
    [finding] = variation(pad_token="<|im_start|>", pad_token_id=3)
    assert finding.startswith("pad_token <|im_start|> (3) occurs in 57 of 57 conversations")


def test_an_invented_system_prompt_is_quoted(variation) -> None:
    template = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Tiny.<|im_end|>\n{% endif %}" + CHATML
    assert variation(chat_template=template) == [], "it may be what the authors want"
    assert variation(chat_template=template, measure="template.system") == [
        "without a system message the prompt begins with text that nobody wrote: 'system\\nYou are Tiny.'"
    ]


def test_a_turn_must_end_in_a_special_token(variation) -> None:
    findings = variation(chat_template="{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}")
    assert findings == ["the assistant's turn does not end in a special token: '\\nuser: ' stands between an answer and the next question"]


def test_a_template_that_ends_the_last_turn_otherwise(variation) -> None:
    template = CHATML.replace("<|im_end|>\n{% endfor %}", "{% if not loop.last or m.role == 'user' %}<|im_end|>\n{% endif %}{% endfor %}")
    assert variation(chat_template=template) == ["the last answer of a conversation is followed by '', and earlier ones by <|im_end|> (4)"]


def test_a_template_that_the_gguf_does_not_have(variation, clean: Release) -> None:
    [finding] = variation(gguf=clean.gguf, chat_template=CHATML.replace("{{ m.content }}", "{{ m.content | trim }}"))
    assert finding.startswith("llama.cpp renders other text than transformers in ")
    assert "in transformers, " in finding


def test_a_template_that_refuses_system_messages_is_compared_on_the_rest(variation) -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
    assert variation(chat_template=template) == []


def test_other_token_ids_are_found() -> None:
    vocabulary = toolchain.sources() / "models" / "ggml-vocab-llama-spm.gguf"
    with llama.open_vocabulary(vocabulary) as other:
        measured, *_ = templates.tokenizer_mismatches(hf.load_tokenizer(DEMO), other)
    assert measured.value == len(measured.details) > 100
    assert measured.details[0] == "' ': from position 0 [1960] in transformers, [259] in llama.cpp; llama.cpp departs from tokenizer.json"


@pytest.mark.parametrize(("cut", "found"), [("smollm", 0), ("gpt-2", 1)])
def test_a_prompt_that_transformers_alone_reads_otherwise_is_no_failure(cut: str, found: int, tmp_path: Path) -> None:
    """It forgets under this class what tokenizer.json says of digits; a text that llama.cpp too reads otherwise is told."""
    files = releases.tokenizer_of_bytes(digits=True)
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    with llama.open_vocabulary(ggufs.of_tokenizer(files["tokenizer.json"], tmp_path / "vocabulary.gguf", cut=cut)) as vocabulary:
        setup = templates.Setup(
            tokenizer=hf.load_tokenizer(tmp_path), eos=frozenset(), vocabulary=vocabulary, server=SimpleNamespace(tokenize=vocabulary.tokenize)
        )
        text = "½ ² ₂ Ⅷ" if cut == "smollm" else "a<|endoftext|> ²"
        prompt = templates.Prompt(title="digits", prompting=True, hf_text=text, hf_ids=[], llama_text=text, llama_ids=[])
        assert len(list(templates.same_ids(setup, [prompt]))) == found


def test_an_added_token_that_both_engines_lost_is_found(clean: Release, tmp_path: Path) -> None:
    """tokenizer.json has it, tokenizer_config.json does not list it: neither reads it, alike, so that no comparison of the two would tell."""
    model = shutil.copytree(clean.model, tmp_path / "model")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    edit(model / "tokenizer.json", added_tokens=[*read(model / "tokenizer.json")["added_tokens"], {"id": 2048, "content": "<lost>", **flags}])
    edit(model / "tokenizer_config.json", tokenizer_class="LlamaTokenizer")  # which transformers 5 builds from what is listed
    with llama.open_vocabulary(clean.gguf) as vocabulary:
        found = list(templates.unread_specials(hf.load_tokenizer(model), vocabulary))
        assert list(templates.unread_specials(hf.load_tokenizer(clean.model), vocabulary)) == []
    assert len(found) == 2
    assert all("special tokens are not read as one token: '<lost>' should be 2048 and is [" in said for said in found), found


def test_html_at_which_llama_cpp_ends_an_answer_is_a_remark() -> None:
    with llama.open_vocabulary(toolchain.sources() / "models" / "ggml-vocab-qwen2.gguf") as qwen:
        words = WordLevel({text.decode(): token for token, text in enumerate(qwen.tokens)}, "!")
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), eos_token="<|im_end|>", pad_token="<|endoftext|>")
        [remark] = templates.ordinary_ends(tokenizer, qwen)
    assert remark == ("llama.cpp ends an answer wherever the model writes '</s>' (128247), which is ordinary text in this vocabulary; transformers goes on")


def test_what_llama_cpp_tells_templates_is_no_difference(variation) -> None:
    told = "{% if enable_thinking is defined and enable_thinking %}({{ date_string }}, {{ datetime }}){% endif %}"
    assert variation(chat_template=CHATML.replace("assistant\n{% endif %}", f"assistant\n{told}{{% endif %}}")) == []


CALLS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} ARGUMENTS</call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% for t in tools or [] %}{{ t.function.name }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("arguments", "remark"),
    [
        ("{{ c.function.arguments | tojson }}", "it does not take arguments as string"),
        ("{{ '' + c.function.arguments }}", "it does not take arguments as object"),
        ("{% set a = c.function.arguments %}{{ a if a is string else a | tojson }}", None),
    ],
)
def test_a_template_need_take_arguments_in_one_form_only(variation, arguments: str, remark: str | None) -> None:
    template = CALLS.replace("ARGUMENTS", arguments)
    assert variation(chat_template=template) == []
    assert [text.rpartition(": ")[2] for text in variation(chat_template=template, measure="template.remarks") if "not take such" in text] == (
        [remark] if remark else []
    )


def test_a_tool_branch_that_breaks_is_found(variation) -> None:
    [finding] = variation(chat_template=CALLS.replace("ARGUMENTS", "{{ c.function.parameters.city }}"))
    assert finding.startswith("the template breaks in transformers, instead of refusing by raise_exception, in 40 of 103 conversations: ")
    assert "has no attribute 'parameters'" in finding


def test_a_forced_thought_and_a_lost_one_are_remarks(variation) -> None:
    thinking = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    remarks = variation(chat_template=thinking, measure="template.remarks")
    assert remarks[0].startswith("the prompt for the answer ends in '<think>\\n', so the output never holds the beginning of the reasoning (one question, ")
    assert remarks[1].startswith(
        "the first 1 messages, with a prompt for the answer, of the conversation 'several turns' are rendered otherwise once it goes on"
    )
    assert variation(chat_template=thinking) == []


def test_a_special_token_that_is_not_one_id_is_found(clean: Release) -> None:
    with llama.open_vocabulary(toolchain.sources() / "models" / "ggml-vocab-llama-spm.gguf") as other:
        setup = templates.Setup(tokenizer=hf.load_tokenizer(clean.model), eos=frozenset(), vocabulary=other, server=None)  # type: ignore[arg-type]
        [finding] = templates.whole_specials(setup, [])
    assert finding.startswith("in llama.cpp 5 of 8 special tokens are not read as one token: '<|im_start|>' should be 3 and is [")


def test_pad_must_not_be_bos(variation) -> None:
    [finding] = variation(pad_token="<s>", pad_token_id=1)
    assert finding == "pad_token and bos_token are both <s> (1): what is masked as padding is part of every conversation"
