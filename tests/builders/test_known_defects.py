"""Defects that releases of well-known families really had, each planted into a miniature with that family's real chat template, and put right by its rule."""

import json
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from builders import fixes
from engines import tools
from publishers import ollama
from tests import miniatures, releases

DOCUMENT = "<|endoftext|>"  # ends documents, not turns
TURN = "<|im_end|>"
SETTINGS = "tokenizer_config.json"


def planted(proof: str, folder: Path, **settings: Any) -> tuple[dict[str, Any], Path]:
    """What the repair of that family's miniature says, whose tokenizer_config.json says this besides, and the repaired folder."""
    made, out = miniatures.sound(proof, folder / "made"), folder / "out"
    vocabulary = json.loads((made / "tokenizer.json").read_text())["added_tokens"]
    ids = {token["content"]: token["id"] for token in vocabulary}
    releases.edit(made / SETTINGS, **settings)
    (made / "special_tokens_map.json").unlink()
    numbers = {f"{role}_id": ids[text] for role, text in settings.items() if role.endswith("_token") and isinstance(text, str)}
    for name in ("config.json", "generation_config.json"):
        releases.edit(made / name, **numbers)
    out.mkdir()
    return fixes.repair(out, snapshot=made, repo="someone/renamed", fixes=True), out


def tokens(folder: Path) -> dict[str, Any]:
    """The special tokens by their roles."""
    settings = releases.read(folder / SETTINGS)
    return {role: settings[f"{role}_token"] for role in ("bos", "eos", "pad")}


@pytest.mark.parametrize("proof", ["phi4 phi4:14b", "phi4 phi4-reasoning:14b"])
def test_phi_4_ends_turns_where_its_template_does(proof: str, tmp_path: Path) -> None:
    """It was published with one token for beginning, end and padding."""
    result, out = planted(proof, tmp_path, bos_token=DOCUMENT, eos_token=DOCUMENT, pad_token=DOCUMENT)
    assert result["family"] == "phi4"
    assert tokens(out) == {"bos": DOCUMENT, "eos": TURN, "pad": DOCUMENT}
    ids = {token["content"]: token["id"] for token in json.loads((out / "tokenizer.json").read_text())["added_tokens"]}
    stated = releases.read(out / "generation_config.json")["eos_token_id"]
    assert ids[TURN] in (stated if isinstance(stated, list) else [stated])


@pytest.mark.parametrize("proof", ["qwen3 Qwen-Qwen3-0.6B.jinja", "qwen2 qwen2:0.5b", "qwen2.5 Qwen-Qwen2.5-7B-Instruct.jinja", "smollm2 smollm2:135m"])
def test_what_ends_documents_does_not_end_turns(proof: str, tmp_path: Path) -> None:
    result, out = planted(proof, tmp_path, eos_token=DOCUMENT)
    assert {patch["fix"] for patch in result["patches"]} == {"end-of-turn-eos"}
    assert tokens(out)["eos"] == TURN


def test_qwq_is_padded_by_a_token_that_no_chat_holds(tmp_path: Path) -> None:
    result, out = planted("qwq Qwen-QwQ-32B.jinja", tmp_path, pad_token=TURN)
    assert {patch["fix"] for patch in result["patches"]} == {"distinct-pad"}
    assert tokens(out)["eos"] == TURN
    assert tokens(out)["pad"] in {DOCUMENT, miniatures.PAD}, "which no vocabulary of Qwen's has, and miniatures do"


@pytest.mark.parametrize("proof", ["gemma3 gemma3:270m", "llama4 llama4:latest"])
def test_a_template_and_a_tokenizer_that_both_write_the_beginning_write_one(proof: str, tmp_path: Path) -> None:
    result, out = planted(proof, tmp_path, add_bos_token=True)
    assert "single-bos" in {patch["fix"] for patch in result["patches"]}
    file = out / "chat_template.jinja"
    text = file.read_text() if file.exists() else releases.read(out / SETTINGS)["chat_template"]
    assert "bos_token" not in text
    assert releases.read(out / SETTINGS)["add_bos_token"] is True


@pytest.mark.parametrize(
    ("proof", "advice"),
    [
        ("gemma3 gemma3:270m", {"temperature": 1.0, "top_k": 64, "top_p": 0.95, "min_p": 0.0, "repeat_penalty": 1.0}),
        ("qwq Qwen-QwQ-32B.jinja", {"temperature": 0.6, "top_k": 40, "top_p": 0.95, "min_p": 0.1, "repeat_penalty": 1.0}),
    ],
)
def test_advice_on_sampling_reaches_transformers_and_ollama(proof: str, advice: dict[str, float], tmp_path: Path) -> None:
    """llama.cpp and Ollama have figures of their own where nothing is stated."""
    made, out = miniatures.sound(proof, tmp_path / "made"), tmp_path / "out"
    (made / "generation_config.json").unlink()
    out.mkdir()
    fixes.repair(out, snapshot=made, repo="someone/renamed", fixes=True)
    params = json.loads(ollama.params(releases.read(out / "generation_config.json"), []))
    assert params == advice | {"stop": []}


@pytest.mark.parametrize("kind", ["type", "rope_type"])
def test_an_extended_context_stands_in_the_header(kind: str, tmp_path: Path) -> None:
    """As Qwen's makers write it: llama.cpp reads positions beyond the first 32768 by these three figures alone."""
    model, out = releases.clean(tmp_path / "model"), tmp_path / "out"
    releases.edit(
        model / "config.json",
        max_position_embeddings=131072,
        rope_parameters=None,
        rope_theta=10000.0,
        rope_scaling={"factor": 4.0, "original_max_position_embeddings": 32768, kind: "yarn"},
    )
    out.mkdir()
    fixes.repair(out, snapshot=model, repo="someone/renamed", fixes=True)
    tools.convert(out, "--outtype", "bf16", "--outfile", tmp_path / "BF16.gguf")
    fields = {name: field.contents() for name, field in GGUFReader(tmp_path / "BF16.gguf").fields.items()}
    said = {name.rpartition("scaling.")[2]: value for name, value in fields.items() if ".rope.scaling." in name}
    assert {name: said[name] for name in ("type", "factor", "original_context_length")} == {"type": "yarn", "factor": 4.0, "original_context_length": 32768}
