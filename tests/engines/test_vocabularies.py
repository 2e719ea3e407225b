"""llama.cpp's own vocabularies, with the texts and token ids that come with them, through the tokenizer that Sluice uses."""

from pathlib import Path

import pytest

from engines import llama, toolchain

SEPARATOR = "\n__ggml_vocab_test__\n"
ANSWERS = sorted((toolchain.sources() / "models").glob("ggml-vocab-*.gguf.out"))


def test_there_are_enough_vocabularies() -> None:
    assert len(ANSWERS) >= 15


@pytest.mark.parametrize("answers", ANSWERS, ids=lambda path: path.name.removeprefix("ggml-vocab-").removesuffix(".gguf.out"))
def test_texts_have_the_token_ids_that_come_with_the_vocabulary(answers: Path) -> None:
    texts = answers.with_suffix(".inp").read_bytes().decode().split(SEPARATOR)  # read_text would turn carriage returns into newlines
    expected = [[int(token) for token in line.split()] for line in answers.read_text(encoding="utf-8").splitlines()]
    with llama.open_vocabulary(answers.with_suffix("")) as vocabulary:
        found = [vocabulary.tokenize(text, add_special=False, parse_special=False) for text in texts]
    assert len(texts) >= len(expected) > 40
    assert found[: len(expected)] == expected
