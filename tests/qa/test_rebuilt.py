"""The proof that a model rebuilt from GGUF is the one in the file: it passes what is the same, and names what is not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file

from builders.rebuilt import rebuild
from config.errors import UpstreamError
from qa import rebuilt
from tests import ggufs, releases


def again(alone: Path, out: Path) -> Path:
    """The model that the file in a folder gives."""
    out.mkdir()
    rebuild.rebuild(out, snapshot=alone, files=ggufs.sources(ggufs.file(alone)))
    return out


def proved(model: Path, alone: Path, out: Path) -> dict[str, Any]:
    return rebuilt.prove(out, model=model, snapshot=alone, files=[ggufs.file(alone)])


@pytest.mark.parametrize("name", ["Llama", "Qwen3", "Gemma 3", "Mistral"])
def test_each_architecture_is_proved(name: str, tmp_path: Path) -> None:
    _, alone = ggufs.converted(name, tmp_path)
    found = proved(again(alone, tmp_path / "again"), alone, tmp_path)
    assert found["tensors"] == len(GGUFReader(alone / ggufs.file(alone)).tensors)
    assert found["fields"] > 15
    assert found["texts"] > 150
    assert not list(tmp_path.glob("*.gguf")), "what was converted back is gone"


def test_a_vocabulary_that_transformers_reads_by_other_rules_is_refused(tmp_path: Path) -> None:
    """The bundled one in a Qwen 2: transformers reads it as that family's, whatever tokenizer.json says. Qwen's own is proved below."""
    _, alone = ggufs.converted("Qwen2", tmp_path)
    with pytest.raises(UpstreamError, match="its tokenizer reads a text otherwise than llama.cpp does by the file: .*transformers departs from tokenizer.json"):
        proved(again(alone, tmp_path / "again"), alone, tmp_path)


def test_scaled_positions_are_proved(tmp_path: Path) -> None:
    _, alone = ggufs.converted("Llama", tmp_path, rope_parameters=ggufs.ROPE)
    assert proved(again(alone, tmp_path / "again"), alone, tmp_path)["tensors"] > 20


@pytest.mark.slow
@pytest.mark.parametrize(("vocabulary", "architecture"), [("llama-bpe", "llama"), ("qwen2", "qwen2")])
def test_the_vocabularies_of_the_families_are_proved(vocabulary: str, architecture: str, tmp_path: Path) -> None:
    """Those that llama.cpp collects, by what their files say alone."""
    (tmp_path / "alone").mkdir()
    ggufs.with_vocabulary(vocabulary, architecture, tmp_path / "alone" / "m-F16.gguf")
    found = proved(again(tmp_path / "alone", tmp_path / "again"), tmp_path / "alone", tmp_path)
    assert found["texts"] > 150


def _other_value(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["model.layers.1.self_attn.k_proj.weight"][0, 0] += 1
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def _words(model: Path, **changes: Any) -> None:
    releases.edit(model / "tokenizer_config.json", **changes)


def _other_normalizer(model: Path) -> None:
    releases.edit(model / "tokenizer.json", normalizer={"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": " "}, "content": "_"}]})


def _other_piece(model: Path) -> None:
    path = model / "tokenizer.model"
    data = path.read_bytes()
    at = data.index("▁the".encode())
    path.write_bytes(data[:at] + "▁thx".encode() + data[at + len("▁the".encode()) :])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_other_value, r"blk.1.attn_k.weight has other values when it is converted back"),
        (lambda model: _words(model, eos_token="</s>"), r"the token that ends a text is 4 there and 2"),
        (_other_piece, r"tokenizer.ggml.tokens is a list of 2048 there and a list of 2048 converted back, from entry \d+ on \('▁the\w*', '▁thx\w*'\)"),
        (_other_normalizer, r"its tokenizer reads a text otherwise than llama.cpp does by the file: "),
    ],
)
def test_what_differs_is_named(spoil: Callable[[Path], None], said: str, tmp_path: Path, sound: tuple[Path, Path]) -> None:
    alone, model = sound[0], Path(shutil.copytree(sound[1], tmp_path / "model"))
    spoil(model)
    with pytest.raises(UpstreamError, match=f"^{ggufs.file(alone)} was rebuilt, and the proof failed: {said}.*Release the repo that it was made from"):
        proved(model, alone, tmp_path)
    assert not list(tmp_path.glob("*.gguf"))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A GGUF file alone, and what it gives."""
    out = tmp_path_factory.mktemp("sound")
    model, _ = ggufs.converted("Llama", out)
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}", encoding="utf-8")
    shutil.rmtree(out / "alone")
    alone = ggufs.alone(model, out / "alone")
    return alone, again(alone, out / "again")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["SmolLM2-135M-Instruct"])
def test_real_models_are_the_same_after_all(name: str, tmp_path: Path) -> None:
    """Their makers' folders, converted, and rebuilt from the file alone."""
    from bench.models.fetched import MODELS

    MODELS[name](tmp_path / "model")
    alone = ggufs.alone(tmp_path / "model", tmp_path / "alone")
    made = again(alone, tmp_path / "again")
    before, after = load_file(tmp_path / "model" / "model.safetensors"), load_file(made / "model.safetensors")
    assert before.keys() == after.keys()
    assert [key for key in before if before[key].dtype != after[key].dtype or not torch.equal(before[key], after[key])] == []
    assert proved(made, alone, tmp_path)["texts"] > 150
    kept = ("rope_theta", "rms_norm_eps", "head_dim", "sliding_window", "layer_types", "query_pre_attn_scalar", "eos_token_id", "tie_word_embeddings")
    one, other = (json.loads((folder / "config.json").read_bytes()) for folder in (tmp_path / "model", made))
    assert {key: one[key] for key in kept if key in one and key in other} == {key: other[key] for key in kept if key in one and key in other}
