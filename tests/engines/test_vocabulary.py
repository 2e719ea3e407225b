"""Whether a model has a tokenizer, by the names of its files."""

import pytest

from engines import vocabulary


@pytest.mark.parametrize(
    "listed", [{"tokenizer.json"}, {"tokenizer.model", "tokenizer_config.json"}, {"vocab.json", "merges.txt"}, {"tekken.json", "tokenizer.json"}]
)
def test_one_that_is_read(listed: set[str]) -> None:
    assert vocabulary.lacking(listed, "upstream/tiny-chat") is None


@pytest.mark.parametrize("listed", [set[str](), {"tokenizer_config.json", "special_tokens_map.json"}, {"vocab.json"}, {"sub/tokenizer.json"}])
def test_none_at_all(listed: set[str]) -> None:
    said = vocabulary.lacking(listed, "upstream/tiny-chat")
    assert said is not None
    assert said.startswith("upstream/tiny-chat has no tokenizer: neither tokenizer.json, nor tokenizer.model, nor vocab.json with merges.txt. Put that")


def test_what_is_there_in_its_place_is_named() -> None:
    assert "; it has tekken.json, which is not read. " in str(vocabulary.lacking({"tekken.json"}, "upstream/tiny-chat"))
