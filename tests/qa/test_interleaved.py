"""Templates learnt from how a chat template writes conversations, each held against it by Go."""

import pytest

from engines import chat, go_template
from qa import interleaved, ollama
from qa.batteries import Conversation
from qa.ollama import PLAIN, SPACES

ROLES = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
ASKS = "{% if add_generation_prompt %}<assistant>{% endif %}"
RULES = "{% set rules = messages | selectattr('role', 'equalto', 'system') | map(attribute='content') | list %}"
TURNS = "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{{ eos_token if m.role == 'assistant' }}{% endfor %}"
DEAF = "{% for m in messages %}{% if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}"
OWN = "{% if messages[0].role != 'system' %}<system>It is {{ strftime_now('%d %b %Y') }}, {say}\n{% endif %}"
FORMS = {
    "an end of its own": ROLES + ASKS,
    "one that trims": ROLES.replace("m.content", "m.content | trim") + ASKS,
    "one that makes the model think": ROLES + ASKS.replace("t>{% endif", "t><think>\n{% endif"),
    "headers by the turn before": (
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %}{{ m.content }}</s> {% endif %}{% endfor %}"
    ),
    "system messages left out": DEAF + ASKS,
    "later system messages left out": "{% if messages[0].role == 'system' %}<s>{{ messages[0].content }}</s>{% endif %}" + TURNS + ASKS,
    "system messages gathered": RULES + "[{{ rules | join(' + ') }}]" + TURNS + ASKS,
    "the last system message": RULES + "{% if rules %}<s>{{ rules[-1] }}</s>{% endif %}" + TURNS + ASKS,
    "an empty system message is none": ROLES.replace("messages %}", "messages if m.role != 'system' or m.content %}") + ASKS,
    "a system prompt with the day and braces": OWN + ROLES + ASKS,
    "a system prompt where none stands anywhere": RULES + "{% if not rules %}<system>Be kind.\n{% endif %}" + ROLES + ASKS,
}


def own(template: str) -> ollama.Render:
    def render(conversation: Conversation) -> str:
        variables = {"enable_thinking": conversation.thinking}
        return chat.render(template, conversation.messages, special_tokens={"eos_token": "</s>"}, add_generation_prompt=True, variables=variables)

    return render


def learnt(template: str) -> str | None:
    return interleaved.derived(own(template), lambda text: ollama.fixed(text, template))


@pytest.mark.usefixtures("go")
@pytest.mark.parametrize("form", FORMS)
def test_what_is_learnt_renders_as_the_template_does(form: str) -> None:
    template = FORMS[form]
    found = learnt(template)
    assert found is not None
    proofs = ollama.prove(found, own(template))
    assert proofs[PLAIN].whole, proofs[PLAIN].first
    assert proofs[PLAIN].of >= 9
    assert proofs[SPACES].whole == ("trim" not in template)


@pytest.mark.usefixtures("go")
def test_system_messages_that_are_gathered_are_joined_as_they_were() -> None:
    """Of which the battery has none that Ollama would not have joined by itself."""
    roles = ("system", "user", "assistant", "system", "user")
    several = Conversation(messages=[{"role": role, "content": f"{role} {place}"} for place, role in enumerate(roles)])
    for form in ("system messages gathered", "the last system message", "later system messages left out"):
        found = learnt(FORMS[form])
        assert found is not None
        assert go_template.render(found, [ollama.for_ollama(several)]) == [own(FORMS[form])(several)], form


@pytest.mark.usefixtures("go")
def test_an_answer_to_go_on_with_is_left_open() -> None:
    found = learnt(FORMS["an end of its own"])
    assert found is not None
    begun = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "One,"}]
    assert go_template.render(found, [{"messages": begun}]) == ["<user>Count.\n<assistant>One,"]


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(ROLES + "{% if enable_thinking %}<think>{% endif %}", id="thinking changes it"),
        pytest.param(TURNS.replace("{{ m.content", "{{ messages[0].content if loop.last }}{{ m.content"), id="a system prompt in the last question"),
        pytest.param("{{ messages[-1].content }}", id="the last message only"),
        pytest.param("{% for m in messages %}{{ m.content }}{{ loop.index }}{% endfor %}", id="numbered messages"),
        pytest.param("{{ raise_exception('no') }}", id="none that it takes"),
        pytest.param(FORMS["a system prompt with the day and braces"].replace("%d %b %Y", "%A"), id="a day of the week"),
        pytest.param(FORMS["a system prompt with the day and braces"].replace("'%d %b %Y'", "form or '%d %b %Y'"), id="a day in an unknown form"),
    ],
)
def test_of_other_templates_nothing_is_learnt(template: str) -> None:
    assert learnt(template) is None
