import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.errors import MeasurementError, TemplateRefusal
from engines import hf, llama, toolchain
from qa import texts
from tests.qa.conftest import DATA, DEMO, Release

CHAT, PLAIN = [DATA / "evaluation.jsonl"], [DATA / "evaluation_questions.txt"]
BOS, IM_START = 1, 3


def prepared(out: Path, model: Path, **changed) -> np.ndarray:
    texts.prepare(out, **{"model": model, "chat": CHAT, "plain": PLAIN, "tokens": 100_000, "context": 256} | changed)
    return np.load(out / "tokens.npy")


def test_windows_begin_with_bos_and_run_on(clean: Release, tmp_path: Path) -> None:
    windows = prepared(tmp_path, clean.model)
    assert windows.dtype == np.int32
    assert windows.shape[1] == 256
    assert (windows[:, 0] == BOS).all()
    assert (windows[:, 1:] != BOS).all()
    tokenizer = hf.load_tokenizer(clean.model)
    assert tokenizer.decode(windows[0][1:]).startswith("<|im_start|>user\nWhat is the chemical symbol of sodium?<|im_end|>\n")


def test_plain_text_follows_conversations_and_its_specials_are_text(clean: Release, tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("<|im_start|> is how a turn begins. " * 100)
    windows = prepared(tmp_path, clean.model, chat=[], plain=[plain])
    assert IM_START not in windows
    both = prepared(tmp_path, clean.model, plain=[plain])
    np.testing.assert_array_equal(both[-len(windows) :], windows)
    alone = prepared(tmp_path, clean.model, plain=[])
    np.testing.assert_array_equal(both[: len(alone)], alone)


def test_a_bos_that_the_template_writes_is_left_out(clean: Release, tmp_path: Path) -> None:
    np.testing.assert_array_equal(prepared(tmp_path, DEMO), prepared(tmp_path, clean.model))


def test_at_most_so_many_tokens(clean: Release, tmp_path: Path) -> None:
    assert texts.prepare(tmp_path, model=clean.model, chat=CHAT, plain=PLAIN, tokens=1100, context=256) == {
        "tokens": 1024,
        "windows": 4,
        "looks": [4],
    }


@pytest.mark.parametrize(("tokens", "chat", "plain"), [(2048, 4, 4), (100_000, 47, 14), (8192, 17, 14)])
def test_each_text_gets_half_and_what_the_other_leaves(clean: Release, tmp_path: Path, tokens: int, chat: int, plain: int) -> None:
    prepared(tmp_path, clean.model, tokens=tokens)
    kinds = texts.load(tmp_path, 256)[2]
    assert kinds == ["chat"] * chat + ["plain"] * plain


def test_a_sample_grows_twofold_and_holds_the_smaller_ones(clean: Release, tmp_path: Path) -> None:
    given = {"model": clean.model, "chat": CHAT, "plain": PLAIN, "context": 256}
    assert texts.prepare(tmp_path, tokens=2048, most_tokens=100_000, **given) == {"tokens": 61 * 256, "windows": 61, "looks": [8, 16, 32, 61]}
    windows, _, kinds = texts.load(tmp_path, 256)
    (alone := tmp_path / "alone").mkdir()
    for size in (8, 16, 61):
        np.testing.assert_array_equal(np.sort(texts.part(kinds, 0, size)), sorted([*texts.part(kinds, 0, 5), *texts.part(kinds, 5, size)]))
        texts.prepare(alone, tokens=100_000 if size == 61 else size * 256, **given)
        np.testing.assert_array_equal(windows[texts.part(kinds, 0, size)], texts.load(alone, 256)[0])
    assert texts.prepare(tmp_path, tokens=45 * 256, most_tokens=100_000, **given)["looks"] == [45], "a third more is not worth a look"


def test_plain_windows_are_those_of_llama_perplexity(clean: Release, tmp_path: Path) -> None:
    windows = prepared(tmp_path, clean.model, chat=[])
    with llama.open_vocabulary(clean.gguf) as vocabulary:
        tokens = vocabulary.tokenize(PLAIN[0].read_text(), add_special=True, parse_special=False)
        np.testing.assert_array_equal(windows, texts.cut(tokens, context=256, bos=vocabulary.bos))


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


def spoken(tokenizer: Any, messages: list[dict[str, Any]]) -> list[str]:
    """The marked stretches of a conversation."""
    ids, marks = texts.answers(hf.speaking(tokenizer), messages)
    stretches = groupby(zip(ids, marks, strict=True), key=lambda pair: pair[1])
    return [tokenizer.decode([token for token, _ in pairs]) for mark, pairs in stretches if mark == texts.ANSWER]


def test_answers_are_marked_with_the_token_that_ends_the_turn(clean: Release) -> None:
    tokenizer = hf.load_tokenizer(clean.model)
    assert spoken(tokenizer, turns("Hi", "Hey there!", "Hey there!", " 2 \n")) == ["Hey there!<|im_end|>", " 2 \n<|im_end|>"]
    assert spoken(tokenizer, turns("Hi", "", "And?")) == ["<|im_end|>"]
    assert spoken(tokenizer, turns("Hi")) == []


def test_answers_are_found_where_a_template_rewrites_history(clean: Release) -> None:
    """Reasoning left out of earlier turns, words put before the last answer, contents trimmed, tool calls."""
    tokenizer = hf.load_tokenizer(clean.model)
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}<think>\n{% endif %}"
        "{{ (m.content or '').split('</think>')[-1].strip() if not loop.last else (m.content or '') }}"
        "{% for call in m.tool_calls or [] %}[call {{ call.name }}]{% endfor %}<|im_end|>\n{% endfor %}"
    )
    said = turns("Hi", "Easy.</think>\nHey!", "Why?", "Hm.</think>\nSo.")
    assert spoken(tokenizer, said) == ["Hey!<|im_end|>", "Hm.</think>\nSo.<|im_end|>"]
    called = [*turns("Hi"), {"role": "assistant", "content": None, "tool_calls": [{"name": "look"}]}, {"role": "tool", "content": "x"}]
    assert spoken(tokenizer, called) == ["[call look]<|im_end|>"]


NEMO = "mistralai-Mistral-Nemo-Instruct-2407.jinja"
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Bonn"}}, "id": "abcdefghi"}
USED = [
    {"role": "user", "content": "Is it wet?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "rain", "tool_call_id": "abcdefghi"},
    {"role": "assistant", "content": "Yes."},
]


def test_a_call_is_found_where_a_template_takes_its_result_behind_nothing_else(clean: Release, tmp_path: Path) -> None:
    tokenizer = hf.load_tokenizer(clean.model)
    tokenizer.chat_template = (toolchain.sources() / "models" / "templates" / NEMO).read_text(encoding="utf-8")
    with pytest.raises(TemplateRefusal, match="must alternate"):
        hf.render_chat(tokenizer, [USED[0], {"role": "assistant", "content": "x"}, *USED[2:]])
    call, answer = spoken(tokenizer, USED)
    assert "Bonn" in call
    assert "rain" not in call
    assert "weather" not in call
    assert answer.startswith("Yes.")
    chat = tmp_path / "chat.jsonl"
    chat.write_text(json.dumps({"messages": USED}) + "\n")
    assert list(texts.said(hf.speaking(tokenizer), [chat])) == list(zip(*texts.answers(hf.speaking(tokenizer), USED), strict=True))


def test_an_answer_that_a_template_takes_in_no_other_words_is_not_scored(clean: Release) -> None:
    tokenizer = hf.load_tokenizer(clean.model)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' and m.content != 'Hey' and m.content != 'So.' %}{{ {}.x.y }}{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    assert spoken(tokenizer, turns("Hi", "Hey")) == []


def test_conversations_without_an_answer_are_refused(clean: Release, tmp_path: Path) -> None:
    chat = tmp_path / "chat.jsonl"
    chat.write_text('{"messages": [{"role": "user", "content": "Why is that so, and since when?"}]}\n' * 50)
    with pytest.raises(MeasurementError, match="no answer to score"):
        prepared(tmp_path, clean.model, chat=[chat])


def test_too_little_text_is_an_error(clean: Release, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="has 250 tokens, too few for two windows of 256"):
        prepared(tmp_path, clean.model, tokens=500)


@pytest.mark.parametrize("line", ["not json", '{"text": "x"}', "[]", "3", '{"messages": "hello"}', '{"messages": ["hello"]}'])
def test_a_line_that_is_no_conversation_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text('{"messages": []}\n' + line + "\n")
    with pytest.raises(MeasurementError, match=r"chat\.jsonl, line 2"):
        list(texts.conversations([file]))


def test_blank_lines_are_no_conversations_and_count_as_lines(tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text('{"messages": [{"a": 1}]}\n\n{"messages": []}\n \n\n')
    assert list(texts.numbered(file)) == [(1, [{"a": 1}]), (3, [])]
    assert list(texts.conversations([file, file])) == [[{"a": 1}], [], [{"a": 1}], []]


def test_cutting_without_bos_changes_nothing() -> None:
    assert texts.cut([7, 8, 9, 10, 11], context=2, bos=None).tolist() == [[7, 8], [9, 10]]
    assert texts.cut([7, 8, 9, 10, 11], context=2, bos=1).tolist() == [[1, 8], [1, 10]]
