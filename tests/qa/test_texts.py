from pathlib import Path

import numpy as np
import pytest

from config.errors import MeasurementError
from engines import hf
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
    assert tokenizer.decode(windows[0][1:]).startswith("user\nWhat is the chemical symbol of sodium?<|im_end|>\n")  # BOS stands in place of <|im_start|>


def test_plain_text_follows_conversations_and_its_specials_are_text(clean: Release, tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("<|im_start|> is how a turn begins. " * 100)
    windows = prepared(tmp_path, clean.model, chat=[], plain=[plain])
    assert IM_START not in windows
    both = prepared(tmp_path, clean.model, plain=[plain])
    alone = prepared(tmp_path, clean.model, plain=[])
    np.testing.assert_array_equal(both[: len(alone)], alone)


def test_a_bos_that_the_template_writes_is_left_out(clean: Release, tmp_path: Path) -> None:
    np.testing.assert_array_equal(prepared(tmp_path, DEMO), prepared(tmp_path, clean.model))


def test_at_most_so_many_tokens(clean: Release, tmp_path: Path) -> None:
    assert texts.prepare(tmp_path, model=clean.model, chat=CHAT, plain=PLAIN, tokens=1100, context=256) == {"tokens": 1024, "windows": 4}


def test_too_little_text_is_an_error(clean: Release, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="has 500 tokens, too few for two windows of 256"):
        prepared(tmp_path, clean.model, tokens=500)


@pytest.mark.parametrize("line", ["not json", '{"text": "x"}', "[]", "3"])
def test_a_line_that_is_no_conversation_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text('{"messages": []}\n' + line + "\n")
    with pytest.raises(MeasurementError, match=r"chat\.jsonl, line 2"):
        list(texts.conversations([file]))


def test_cutting_without_bos_changes_nothing() -> None:
    assert texts.cut([7, 8, 9, 10, 11], context=2, bos=None).tolist() == [[7, 8], [9, 10]]
    assert texts.cut([7, 8, 9, 10, 11], context=2, bos=1).tolist() == [[1, 8], [1, 10]]
