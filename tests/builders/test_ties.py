"""A model that is said to be tied and stores an output matrix: a copy goes, another one is untied or held, and nothing else is touched."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file

from builders import convert, fixes, hollow, ties
from builders.fixes import tied_head
from builders.names import HEAD, INDEX
from builders.weights import Tensor, read_header, weight_files
from config.errors import UpstreamError
from engines import hf
from tests import architectures, predicting, releases
from tests.releases import GONE, edit, read

EMBEDDINGS = "model.embed_tokens.weight"


def repaired(made: Path, out: Path, *, repo: str = "upstream/tiny-chat", **settings: Any) -> dict[str, Any]:
    out.mkdir()
    return fixes.repair(out, snapshot=made, repo=repo, fixes=True, **settings)


def spare(folder: Path, config: dict[str, Any]) -> ties.Spare | None:
    return ties.spare(folder, config, {tensor.name: tensor for file in weight_files(folder) for tensor in read_header(file)})


def test_a_copy_is_left_out_and_all_else_is_as_it_was(tmp_path: Path) -> None:
    made = releases.head_copied(tmp_path / "made")
    (patch,) = repaired(made, tmp_path / "out")["patches"]
    assert (patch["fix"], patch["file"], patch["key"]) == ("copied-head", "model.safetensors", HEAD)
    assert (patch["before"], patch["after"]) == (f"a copy of {EMBEDDINGS}", None)
    assert f"the values of {EMBEDDINGS}" in patch["reason"]
    before, after = (load_file(folder / "model.safetensors") for folder in (made, tmp_path / "out"))
    assert set(before) - set(after) == {HEAD}
    assert all(torch.equal(before[name], value) for name, value in after.items())
    assert (tmp_path / "out" / "config.json").read_bytes() == (made / "config.json").read_bytes()


def test_a_gguf_file_is_as_large_as_that_of_the_model_without_the_copy(tmp_path: Path) -> None:
    repaired(releases.head_copied(tmp_path / "made"), tmp_path / "out")
    (tmp_path / "whole").mkdir()
    ours = tmp_path / str(convert.convert(tmp_path, model=tmp_path / "out", name="ours")["file"])
    whole = tmp_path / "whole" / str(convert.convert(tmp_path / "whole", model=releases.clean(tmp_path / "clean"), name="ours")["file"])
    assert [(tensor.name, tensor.n_bytes) for tensor in GGUFReader(ours).tensors] == [(tensor.name, tensor.n_bytes) for tensor in GGUFReader(whole).tensors]


def test_a_copy_in_shards_leaves_their_index_too(tmp_path: Path) -> None:
    made = releases.head_copied(tmp_path / "made")
    weights = load_file(made / "model.safetensors")
    (made / "model.safetensors").unlink()
    last = {name: weights.pop(name) for name in (HEAD, "model.norm.weight")}
    files = {"model-00001-of-00002.safetensors": weights, "model-00002-of-00002.safetensors": last}
    for name, part in files.items():
        save_file(part, made / name, metadata={"format": "pt"})
    size = sum(value.nbytes for part in files.values() for value in part.values())
    index = {"metadata": {"total_size": size}, "weight_map": {tensor: name for name, part in files.items() for tensor in part}}
    (made / INDEX).write_text(json.dumps(index))
    (patch,) = repaired(made, tmp_path / "out")["patches"]
    assert (patch["fix"], patch["file"]) == ("copied-head", "model-00002-of-00002.safetensors")
    kept = read(tmp_path / "out" / INDEX)
    assert kept["metadata"]["total_size"] == size - weights[EMBEDDINGS].nbytes
    assert kept["weight_map"] == {name: file for name, file in index["weight_map"].items() if name != HEAD}
    assert set(load_file(tmp_path / "out" / "model-00002-of-00002.safetensors")) == {"model.norm.weight"}
    first = "model-00001-of-00002.safetensors"
    assert (tmp_path / "out" / first).samefile(made / first), "what loses nothing is not written again"


def test_another_matrix_is_the_model_s_own(tmp_path: Path) -> None:
    made = releases.head_of_its_own(tmp_path / "made")
    (patch,) = repaired(made, tmp_path / "out")["patches"]
    assert (patch["fix"], patch["file"], patch["key"], patch["before"], patch["after"]) == ("own-head", "config.json", "tie_word_embeddings", True, False)
    assert re.search(rf"{HEAD} and {EMBEDDINGS} differ in [0-9,]+ of 2,048 rows", patch["reason"])
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()


def test_of_no_known_family_it_is_held_until_somebody_approves_it(tmp_path: Path) -> None:
    made = releases.head_of_its_own(tmp_path / "made")
    edit(made / "tokenizer_config.json", chat_template=releases.GONE)  # or its family were known
    found = repaired(made, tmp_path / "held", repo="someone/merge", ask=True)
    (hold,) = found["held"]
    assert (hold["subject"], found["patches"]) == ("own-head", [])
    assert read(tmp_path / "held" / "config.json")["tie_word_embeddings"] is True
    assert "transformers 4 leaves it out" in hold["reason"]


def test_what_is_not_said_to_be_tied_keeps_its_matrix_equal_or_not(tmp_path: Path) -> None:
    made = edit_config(releases.head_copied(tmp_path / "made"), tie_word_embeddings=False)
    assert repaired(made, tmp_path / "out")["patches"] == []
    assert HEAD in load_file(tmp_path / "out" / "model.safetensors")


def edit_config(made: Path, **changed: Any) -> Path:
    edit(made / "config.json", **changed)
    return made


@pytest.mark.parametrize("oddity", [releases.head_copied, releases.head_of_its_own])
def test_where_no_weights_are_written_the_two_matrices_alone_are_read(oddity: releases.Oddity, tmp_path: Path) -> None:
    """The rest is a hole in the disk, as of a repo of which nothing else was fetched."""
    made, whole, seen = oddity(tmp_path / "made"), tmp_path / "whole", Path(shutil.copytree(tmp_path / "made", tmp_path / "seen"))
    data = (made / "model.safetensors").read_bytes()
    (seen / "model.safetensors").unlink()
    hollow.of(read_header(made / "model.safetensors"), seen / "model.safetensors")
    for name in (HEAD, EMBEDDINGS):
        hollow.fill(seen / "model.safetensors", name, lambda behind, count: data[len(data) - behind :][:count])
    found = repaired(seen, tmp_path / "out", headers=True)
    assert found["patches"] == repaired(made, whole)["patches"]
    assert (found["unrepaired"], len(found["patches"])) == ([], 1)
    assert weight_files(tmp_path / "out") == []
    with pytest.raises(UpstreamError, match=f"of '{HEAD}' some data cannot be read"):
        hollow.fill(seen / "model.safetensors", HEAD, lambda behind, count: b"")


@pytest.mark.parametrize("oddity", [releases.head_copied, releases.head_of_its_own])
def test_where_they_are_not_at_hand_it_is_said_that_nobody_looked(oddity: releases.Oddity, tmp_path: Path) -> None:
    found = repaired(oddity(tmp_path / "made"), tmp_path / "out", headers=True, matrices=False)
    assert found["patches"] == []
    (said,) = found["unrepaired"]
    assert said.startswith(f"model.safetensors: {HEAD} stands beside {EMBEDDINGS}")
    assert repaired(releases.clean(tmp_path / "clean"), tmp_path / "sound", headers=True, matrices=False)["unrepaired"] == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"tie_word_embeddings": True, "model_type": "llama"}, True),
        ({"model_type": "llama"}, False),
        ({"model_type": "gemma3_text"}, True),
        ({"model_type": "gemma3", "text_config": {"tie_word_embeddings": False}}, False),
        ({"model_type": "nobody's"}, False),
        ({}, False),
    ],
)
def test_where_config_json_is_silent_the_architecture_s_class_decides(config: dict[str, Any], expected: bool) -> None:
    assert ties.tied(config) is expected


def test_which_matrix_is_meant_must_be_clear(tmp_path: Path) -> None:
    table = torch.ones(8, 4, dtype=torch.bfloat16)
    tied = {"tie_word_embeddings": True}

    def of(**weights: torch.Tensor) -> ties.Spare | None:
        save_file({name.replace("__", "."): value.contiguous().clone() for name, value in weights.items()}, tmp_path / "model.safetensors")
        return spare(tmp_path, tied)

    there = of(lm_head__weight=table, embed_tokens__weight=table)
    assert there is not None
    assert there.differing == 0
    mixed = of(lm_head__weight=table.float(), embed_tokens__weight=table)
    assert mixed is not None
    assert mixed.differing == 0, "the same values in another type"
    longer = of(lm_head__weight=table, embed_tokens__weight=torch.ones(9, 4, dtype=torch.bfloat16))
    assert longer is not None
    assert longer.differing == 9
    assert of(embed_tokens__weight=table) is None
    assert of(lm_head__weight=table, embed_tokens__weight=table, decoder__embed_tokens__weight=table) is None
    predicted = of(lm_head__weight=table, embed_tokens__weight=table, mtp__embed_tokens__weight=table)
    assert predicted is not None
    assert predicted.embeddings == "embed_tokens.weight"


@pytest.mark.parametrize("name", ["Qwen2", "Qwen3", "Qwen3-MoE", "Mixtral", "Phi-3", "Granite", "DeepSeek", "GLM4-MoE", "Qwen3-Next"])
def test_a_model_without_output_matrix_is_tied_where_config_json_is_silent_and_its_class_is_not(name: str, tmp_path: Path) -> None:
    made = edit_config(architectures.MODELS[name](tmp_path / "made"), tie_word_embeddings=GONE)
    assert [patch["key"] for patch in repaired(made, tmp_path / "out")["patches"] if patch["fix"] == "tied-head"] == ["tie_word_embeddings"]
    hf.require_all(tmp_path / "out")
    assert repaired(tmp_path / "out", tmp_path / "again")["patches"] == []


@pytest.mark.parametrize("name", ["Llama", "Mistral", "gpt-oss"])
def test_one_with_output_matrix_stays_as_it_is_where_config_json_is_silent(name: str, tmp_path: Path) -> None:
    made = edit_config(architectures.MODELS[name](tmp_path / "made"), tie_word_embeddings=GONE)
    assert [patch for patch in repaired(made, tmp_path / "out")["patches"] if "tie_word_embeddings" in patch["key"]] == []
    hf.require_all(tmp_path / "out")


@pytest.mark.parametrize(("head", "fix"), [(lambda table: table.clone(), "copied-head"), (lambda table: table.flip(0), "own-head"), (None, "tied-head")])
def test_embeddings_and_output_of_a_layer_that_drafts_are_not_the_model_s(head: Any, fix: str, tmp_path: Path) -> None:
    """As in GLM 4.5, whose layer for multi-token prediction holds both once more."""
    made = predicting.glm(tmp_path / "made")
    said = {"tie_word_embeddings": GONE if fix == "tied-head" else True, "vocab_size": 7}
    rows = len(load_file(made / "model.safetensors")[EMBEDDINGS])

    def change(weights: dict[str, torch.Tensor]) -> None:
        weights |= {} if head is None else {HEAD: head(weights[EMBEDDINGS])}
        weights["model.layers.2.embed_tokens.weight"] = weights["model.layers.2.embed_tokens.weight"][:-1].clone()

    patches = repaired(releases.change_weights(edit_config(made, **said), change), tmp_path / "out")["patches"]
    assert {patch["fix"] for patch in patches if patch["fix"] != "older-names"} == {fix, "weight-shapes"}
    assert read(tmp_path / "out" / "config.json")["vocab_size"] == rows
    kept = load_file(tmp_path / "out" / "model.safetensors").keys()
    assert {"model.layers.2.embed_tokens.weight", "model.layers.2.shared_head.head.weight"} <= kept
    assert (HEAD in kept) is (fix == "own-head")
    hf.require_all(tmp_path / "out")


TABLE = {"model.embed_tokens.weight": (8, 4), "model.layers.0.mlp.up_proj.weight": (6, 4)}
BOTH = ["tie_word_embeddings", "text_config.tie_word_embeddings"]


@pytest.mark.parametrize(
    ("config", "more", "expected"),
    [
        ({"model_type": "llama"}, (), BOTH[:1]),
        ({"model_type": "llama", "tie_word_embeddings": None}, (), BOTH[:1]),
        ({"model_type": "llama", "tie_word_embeddings": True}, (), []),
        ({"model_type": "gemma3_text"}, (), []),
        ({"model_type": "gemma3_text", "tie_word_embeddings": False}, (), BOTH[:1]),
        ({"model_type": "nobody's"}, (), []),
        ({"model_type": "llava", "text_config": {"model_type": "llama"}}, (), BOTH),
        ({"model_type": "llava", "text_config": {"tie_word_embeddings": True}}, (), BOTH[:1]),
        ({"model_type": "llava", "tie_word_embeddings": True, "text_config": {"tie_word_embeddings": False}}, (), BOTH[1:]),
        ({"model_type": "gemma3", "text_config": {"tie_word_embeddings": False}}, (), BOTH[1:]),
        ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}, (), []),
        ({"model_type": "llama"}, (HEAD,), []),
        ({"model_type": "llama"}, ("model.output_layer.weight",), []),
        ({"model_type": "llama"}, ("language_model.lm_head.weight",), []),
    ],
)
def test_what_has_to_be_said_of_a_model_without_output_matrix(config: dict[str, Any], more: tuple[str, ...], expected: list[str]) -> None:
    shapes = TABLE | dict.fromkeys(more, (8, 4))
    tensors = {name: Tensor(name=name, dtype="BF16", shape=shape, bytes=64, file="model.safetensors") for name, shape in shapes.items()}
    assert [edit.dotted for edit in tied_head.repair({"config.json": config}, None, tensors=tensors)] == expected
