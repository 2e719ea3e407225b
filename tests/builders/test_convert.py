"""Conversion with the real converter: what stands in the GGUF, and what happens with models that cannot be converted."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader, TokenType

from builders import convert, fixes
from builders.weights import parameters, weight_files
from config.digests import file_sha256
from config.errors import ProgramError, UpstreamError
from engines import llama
from tests.builders.conftest import CLEAN, CONVERTED, demo_json

FROM_THE_CARD = ("license", "organization", "author", "url", "base_model", "dataset", "tags", "languages")


def metadata(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}


def test_special_tokens_and_template_are_those_of_the_fixed_model(gguf: Path) -> None:
    found = metadata(gguf)
    config = json.loads((CLEAN / "tokenizer_config.json").read_text())
    assert [found[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "padding")] == [1, 4, 5]
    assert found["tokenizer.chat_template"] == config["chat_template"]
    assert (found["tokenizer.ggml.add_bos_token"], found["tokenizer.ggml.add_eos_token"], found["tokenizer.ggml.add_space_prefix"]) == (True, False, False)
    types = dict(zip(found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"], strict=True))
    assert all(types[token] == TokenType.CONTROL for token in ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"))
    assert all(types[token] == TokenType.USER_DEFINED for token in ("<think>", "</think>"))
    assert types["<0x0A>"] == TokenType.BYTE


def test_names_and_sampling_advice(gguf: Path) -> None:
    found = metadata(gguf)
    assert (gguf.name, found["general.name"]) == ("tiny-chat-BF16.gguf", "tiny-chat")
    assert [found[f"general.sampling.{name}"] for name in ("temp", "top_k", "top_p", "min_p")] == pytest.approx([0.6, 20, 0.95, 0.0])
    assert found["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(demo_json("config.json")["rms_norm_eps"])


def test_the_header_tells_where_the_model_comes_from(gguf: Path) -> None:
    found = metadata(gguf)
    assert {name: value for name, value in found.items() if name.startswith("general.") and any(part in name for part in FROM_THE_CARD)} == {
        "general.license": "apache-2.0",
        "general.organization": "Upstream",
        "general.source.repo_url": "https://hub.example/upstream/tiny-chat",
        "general.base_model.count": 1,
        "general.base_model.0.name": "Tiny Base",
        "general.base_model.0.organization": "Upstream",
        "general.base_model.0.repo_url": "https://hub.example/upstream/tiny-base",
        "general.tags": ["chat"],
        "general.languages": ["en", "no"],
    }


def test_matrices_are_bfloat16_and_every_parameter_is_there(gguf: Path, fixed: Path) -> None:
    tensors = GGUFReader(gguf).tensors
    assert {tensor.tensor_type.name for tensor in tensors if len(tensor.shape) > 1} == {"BF16"}
    assert sum(int(tensor.n_elements) for tensor in tensors) == parameters(weight_files(fixed))


def test_a_name_does_not_change_what_special_tokens_are(gguf: Path, fixed: Path, tmp_path: Path) -> None:
    made = convert.convert(tmp_path, model=fixed, name="Better-than-PHI3")
    assert (made["file"], metadata(tmp_path / made["file"])["general.name"]) == ("Better-than-PHI3-BF16.gguf", "Better-than-PHI 3")
    read = []
    for file in (gguf, tmp_path / made["file"]):
        with llama.open_vocabulary(file) as vocabulary:
            read.append(vocabulary.tokenize("<|im_start|>\n a", add_special=False))
    assert read[0] == read[1]


@pytest.mark.parametrize(("name", "stripping", "said"), [
    ("Phi-3-mini", True, "Phi-3-mini"),
    ("Mine", True, "Mine (Phi-3)"),
    ("Mine", False, "Mine"),
    ("Not-phi-3", False, "Not-phi 3"),
])  # fmt: skip
def test_white_space_behind_special_tokens_is_in_the_name(tmp_path: Path, name: str, stripping: bool, said: str) -> None:
    tokens = {"<unk>": False, "<s>": False, "</s>": stripping, "<|endoftext|>": False, "<|user|>": stripping}
    added = [{"content": content, "special": True, "rstrip": rstrip} for content, rstrip in tokens.items()]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    assert convert.title(name, tmp_path) == said


@pytest.mark.slow
def test_the_same_model_elsewhere_gives_the_same_bytes(gguf: Path, fixed: Path, tmp_path: Path) -> None:
    elsewhere, out = tmp_path / "Another-Name-7B-Instruct", tmp_path / "out"
    shutil.copytree(fixed, elsewhere)
    out.mkdir()
    (elsewhere / "README.md").write_text("---\nlicense: mit\nauthor: somebody\n---\n")  # not what the header's facts are taken from
    result = convert.convert(out, model=elsewhere, **CONVERTED)
    assert result == {"file": gguf.name, "bytes": gguf.stat().st_size, "parameters": 3_672_320, "type": "BF16"}
    assert file_sha256(out / gguf.name) == file_sha256(gguf)
    assert [path.name for path in out.iterdir()] == [gguf.name]
    assert not re.search(rb"Another|/tmp|" + str(tmp_path).encode(), (out / gguf.name).read_bytes())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"architectures": ["StrangeForCausalLM"]}, "has the architecture StrangeForCausalLM, which the converter of llama.cpp .* does not know"),
        ({"hidden_size": "wide"}, "cannot be converted to GGUF"),
    ],
)
def test_a_model_that_cannot_be_converted_is_told_in_words(upload: Callable[..., Path], tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    out.mkdir()
    fixes.repair(model, snapshot=upload(config=demo_json("config.json") | changed), repo="upstream/tiny-chat", fixes=True)
    with pytest.raises(UpstreamError, match=said):
        convert.convert(out, model=model, name="tiny-chat")
    assert list(out.iterdir()) == []


@pytest.mark.usefixtures("killed_converter")
def test_a_converter_that_is_killed_says_nothing_against_the_model(tmp_path: Path) -> None:
    (out := tmp_path / "out").mkdir()
    with pytest.raises(ProgramError, match=r"^convert_hf_to_gguf\.py was ended by SIGKILL \(probably out of memory\)"):
        convert.convert(out, model=CLEAN, name="tiny")
