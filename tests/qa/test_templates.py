import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engines import hf, llama, toolchain, tools
from qa import templates
from tests.qa.conftest import DEMO, Release

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def measured(out: Path, model: Path, gguf: Path) -> dict[str, dict[str, Any]]:
    return {m["name"]: m for m in templates.check(out, model=model, gguf=gguf, threads=1)["measurements"]}


@pytest.fixture(scope="module")
def variation(clean: Release, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """The findings on the clean model after changes to its JSON files; its GGUF is given the same template unless another one is named."""

    def findings(gguf: Path | None = None, **changed: object) -> list[str]:
        folder = tmp_path_factory.mktemp("variation")
        model = shutil.copytree(clean.model, folder / "model")
        for file in ("tokenizer_config.json", "generation_config.json"):
            content = json.loads((model / file).read_text())
            (model / file).write_text(json.dumps(content | {key: value for key, value in changed.items() if (key in content) or file.startswith("tokenizer")}))
        if gguf is None:
            gguf = folder / "BF16.gguf"
            template = str(changed.get("chat_template", CHATML))
            tools.execute([sys.executable, "-m", "gguf.scripts.gguf_new_metadata", clean.gguf, gguf, "--chat-template", template])
        return list(measured(folder, model, gguf)["template.failures"]["details"])

    return findings


def test_the_clean_model_has_no_failures(clean: Release, tmp_path: Path) -> None:
    found = measured(tmp_path, clean.model, clean.gguf)
    assert {name: (m["value"], m["details"]) for name, m in found.items()} == {"template.failures": (0, ()), "tokenizer.mismatches": (0, ())}
    assert found["template.failures"]["n"] > 100
    assert found["tokenizer.mismatches"]["n"] > 100
    json.dumps(found, allow_nan=False)


def test_each_planted_defect_is_found_and_explained(broken: Release, tmp_path: Path) -> None:
    found = measured(tmp_path, broken.model, broken.gguf)
    assert found["tokenizer.mismatches"]["value"] == 0
    assert found["template.failures"]["details"] == (
        "in transformers the prompt begins with 2 BOS tokens (ids 1, 1) in 26 of 26 conversations: the template writes <s> and the tokenizer adds it again",
        "the assistant's turn ends with <|im_end|> (4), but generation_config.json stops only at <|endoftext|> (5): answers run on after the turn",
        "the assistant's turn ends with <|im_end|> (4), but the tokenizer's eos_token is <|endoftext|> (5)",
        "pad_token is <|im_end|> (4), which ends the assistant's turn: training that masks padding never learns to stop",
    )
    assert found["template.failures"]["value"] == 4


def test_pad_must_not_be_eos(variation) -> None:
    [finding] = variation(pad_token="<|im_end|>", pad_token_id=4)
    assert finding.startswith("pad_token and eos_token are both <|im_end|> (4)")


def test_pad_must_not_occur_in_a_conversation(variation) -> None:
    [finding] = variation(pad_token="<|im_start|>", pad_token_id=3)
    assert finding.startswith("pad_token <|im_start|> (3) occurs in 26 of 26 conversations")


def test_an_invented_system_prompt_is_quoted(variation) -> None:
    template = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Tiny.<|im_end|>\n{% endif %}" + CHATML
    assert variation(chat_template=template) == ["without a system message the prompt begins with text that nobody wrote: 'system\\nYou are Tiny.'"]


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
        measured = templates.tokenizer_mismatches(hf.load_tokenizer(DEMO), other)
    assert measured.value == len(measured.details) > 100
    assert measured.details[0] == "' ': from position 0 [1960] in transformers, [259] in llama.cpp"


def test_what_llama_cpp_tells_templates_is_no_difference(variation) -> None:
    told = "{% if enable_thinking is defined and enable_thinking %}({{ date_string }}, {{ datetime }}){% endif %}"
    assert variation(chat_template=CHATML.replace("assistant\n{% endif %}", f"assistant\n{told}{{% endif %}}")) == []
