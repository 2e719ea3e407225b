"""Templates that read what a message holds as a text, as a list of parts, or as either."""

import pytest

from config.errors import TemplateRefusal
from engines import chat

TEXT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
PARTS = TEXT.replace(
    "{{ m.content }}",
    "{% for part in m.content %}{% if part['type'] == 'text' %}{{ part['text'] }}{% elif part['type'] == 'image' %}<image>{% endif %}{% endfor %}",
)
# as SmolVLM's, which asks what the first part is
FIRST = PARTS.replace("<{{ m.role }}>", "<{{ m.role }}{{ '' if m.content[0]['type'] == 'image' else ' ' }}>")
EITHER = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{{ m.content[0].text }}!{% endif %}{% endfor %}"
REFUSING = "{% if messages[0].content is string %}{{ raise_exception('parts, please') }}{% endif %}" + PARTS
DEAF = "{{ bos_token }}Hello"
CONVERSATION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]


@pytest.mark.parametrize(
    ("template", "parts"), [(TEXT, False), (PARTS, True), (FIRST, True), (EITHER, False), (REFUSING, True), (DEAF, False), ("{{ 1 / 0 }}", False)]
)
def test_how_a_template_reads_contents_is_found_out(template: str, parts: bool) -> None:
    assert chat.in_parts(template, {"bos_token": "<s>", "additional_special_tokens": ["<a>"]}) is parts


def test_contents_are_given_as_the_template_reads_them() -> None:
    expected = "<system>Be brief.<user>Why?<assistant>So."
    for template in (TEXT, PARTS, REFUSING):
        assert chat.render(template, CONVERSATION, special_tokens={}) == expected
    assert chat.render(EITHER, CONVERSATION, special_tokens={}) == "Be brief.Why?So."


def test_parts_that_are_parts_stay_as_they_are() -> None:
    seen = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
    assert chat.render(PARTS, seen, special_tokens={}, add_generation_prompt=True) == "<user><image>What is it?<assistant>"


def test_the_last_message_is_gone_on_with_and_calls_without_content_are_taken() -> None:
    assert chat.render(PARTS, CONVERSATION, special_tokens={}, continue_final_message=True) == "<system>Be brief.<user>Why?<assistant>So."
    calls = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": None, "tool_calls": []}]
    assert chat.render(PARTS, calls, special_tokens={}) == "<user>Why?<assistant>"


def test_a_refusal_is_told_as_it_was() -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + PARTS
    with pytest.raises(TemplateRefusal, match="no system role"):
        chat.render(refusing, CONVERSATION, special_tokens={})
