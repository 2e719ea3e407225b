"""Whether a model has a tokenizer, by the names of its files."""

import base64
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from engines import hf, vocabulary


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


def test_what_is_to_be_done_about_mistral_s_form_does_it(tmp_path: Path) -> None:
    special = [{"rank": rank, "token_str": text, "is_control": True} for rank, text in enumerate(("<unk>", "<s>", "</s>", "<pad>"))]
    pieces = [bytes([value]) for value in range(256)] + [b"ab", b"abc"]
    vocabulary_of_bytes = [{"rank": rank, "token_bytes": base64.b64encode(piece).decode(), "token_str": None} for rank, piece in enumerate(pieces)]
    config = {"pattern": r"[^\r\n\p{L}\p{N}]?\p{L}+|.", "num_vocab_tokens": 258, "default_vocab_size": 262, "default_num_special_tokens": 4, "version": "v11"}
    content = {"config": config, "vocab": vocabulary_of_bytes, "special_tokens": special}
    (tmp_path / "tekken.json").write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    told = re.search("`(python .*)`", str(vocabulary.lacking({"tekken.json"}, "upstream/tiny-chat")))
    assert told is not None
    subprocess.run([sys.executable, *shlex.split(told[1])[1:]], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    assert vocabulary.lacking({path.name for path in tmp_path.iterdir()}, "here") is None
    tokenizer = hf.load_tokenizer(tmp_path)
    assert hf.encode(tokenizer, "abc", add_special=False) == [4 + 257]
    assert tokenizer.eos_token == "</s>"
    assert tokenizer.chat_template == "{{ messages }}"
