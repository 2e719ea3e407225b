import pytest

from config.errors import MeasurementError
from engines import llama
from engines.chat import render
from qa import turns
from tests.qa.conftest import Release

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def find(template: str) -> turns.Turns:
    return turns.find(lambda messages: render(template, messages, special_tokens={"bos_token": "<s>", "eos_token": "</s>"}))


def test_turns_of_chatml() -> None:
    assert find(CHATML) == turns.Turns(
        opening="<|im_start|>user\n",
        asked="<|im_end|>\n<|im_start|>assistant\n",
        answered="<|im_end|>\n<|im_start|>user\n",
        closing="<|im_end|>\n",
    )


def test_turns_of_a_template_in_the_manner_of_llama_2() -> None:
    user, assistant = "{{ bos_token }}[INST] {{ m.content }} [/INST]", " {{ m.content }} {{ eos_token }}"
    found = find(f"{{% for m in messages %}}{{% if m.role == 'user' %}}{user}{{% else %}}{assistant}{{% endif %}}{{% endfor %}}")
    assert (found.opening, found.answered, found.closing) == ("<s>[INST] ", " </s><s>[INST] ", " </s>")


@pytest.mark.parametrize("template", ["{{ messages[0].content }}", "{% for m in messages %}{{ m.content | upper }}{% endfor %}"])
def test_a_template_that_loses_what_was_said_is_an_error(template: str) -> None:
    with pytest.raises(MeasurementError, match="loses or changes"):
        find(template)


def test_a_prompt_never_has_two_bos(clean: Release) -> None:
    with llama.open_model(clean.gguf, context=64, threads=1) as model:
        assert turns.prompt_tokens(model, "<s>A", "<s>") == turns.prompt_tokens(model, "A", "<s>") == [1, 1982]
        assert turns.prompt_tokens(model, "A", "") == [1, 1982]
