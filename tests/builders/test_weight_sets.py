"""Sets of weight files that are incomplete, contradict their index, or stand beside others: mended, or refused in a sentence with file and tensor."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from builders import convert, fixes, folder, snapshot
from config.errors import UpstreamError
from engines import hf
from tests import releases
from tests.releases import read

INDEX = "model.safetensors.index.json"
FIRST = "model-00001-of-00003.safetensors"
NAME = "model.embed_tokens.weight"  # in the first of the shards


def repaired(made: Path, out: Path) -> list[dict[str, Any]]:
    out.mkdir()
    patches: list[dict[str, Any]] = fixes.repair(out, snapshot=made, repo="upstream/tiny-chat", fixes=True)["patches"]
    return patches


def indexed(made: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Shards whose index is changed."""
    index = read(releases.in_shards(made) / INDEX)
    change(index)
    (made / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return made


def test_a_sound_index_keeps_its_bytes(tmp_path: Path) -> None:
    made = releases.in_shards(tmp_path / "made")
    assert repaired(made, tmp_path / "out") == []
    assert (tmp_path / "out" / INDEX).read_bytes() == (made / INDEX).read_bytes()


@pytest.mark.parametrize(
    ("change", "key", "before"),
    [
        (lambda index: index["weight_map"].update({NAME: "model-00002-of-00003.safetensors"}), f"weight_map.{NAME}", "model-00002-of-00003.safetensors"),
        (lambda index: index["weight_map"].pop(NAME), f"weight_map.{NAME}", None),
        (lambda index: index["metadata"].update(total_size=12), "metadata.total_size", 12),
        (lambda index: index.pop("metadata"), "metadata", None),
    ],
)
def test_an_index_is_made_to_say_what_the_shards_hold(change: Callable[[dict[str, Any]], object], key: str, before: object, tmp_path: Path) -> None:
    made = indexed(tmp_path / "made", change)
    (patch,) = repaired(made, tmp_path / "out")
    assert (patch["fix"], patch["file"], patch["key"], patch["before"]) == ("shard-index", INDEX, key, before)
    found = read(tmp_path / "out" / INDEX)
    assert found["weight_map"][NAME] == FIRST
    assert found["metadata"]["total_size"] == 7_344_640
    assert repaired(tmp_path / "out", tmp_path / "again") == []
    hf.require_all(tmp_path / "out")
    (tmp_path / "gguf").mkdir()
    assert convert.convert(tmp_path / "gguf", model=tmp_path / "out", name="tiny")["parameters"] == 3_672_320


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda index: index["weight_map"].update({"model.norm.bias": FIRST}), rf"says that {FIRST} holds model\.norm\.bias, and no shard does"),
        (lambda index: index.update(weight_map=dict.fromkeys(index["weight_map"], FIRST)), r"is wrong about \d+ tensors, among them"),
        (lambda index: index.update(weight_map=7), r"is wrong about 38 tensors"),
    ],
)
def test_an_index_of_other_files_is_refused(change: Callable[[dict[str, Any]], object], words: str, tmp_path: Path) -> None:
    with pytest.raises(UpstreamError, match=words):
        repaired(indexed(tmp_path / "made", change), tmp_path / "out")


def test_two_sets_in_one_folder_are_told(tmp_path: Path) -> None:
    made = releases.in_shards(tmp_path / "made")
    save_file(load_file(made / FIRST), made / "more.safetensors")
    with pytest.raises(UpstreamError, match=rf"{FIRST} and more\.safetensors of the release both hold .*: it has two sets of weights"):
        repaired(made, tmp_path / "out")


def test_what_lies_beside_the_set_is_left_there(tmp_path: Path) -> None:
    made = releases.clean(tmp_path / "made")
    for name in ("consolidated.safetensors", "model.fp16.safetensors"):
        (made / name).write_bytes((made / "model.safetensors").read_bytes())
    (made / "original").mkdir()
    (made / "original" / "consolidated.00.pth").write_bytes(b"pickled")
    assert [name for name in folder.sizes(made) if name.endswith(".safetensors")] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
            rf"holds 2 shards, among them model-00001-of-00002\.safetensors, and no {INDEX}",
        ),
        (["consolidated.safetensors"], r"has neither model\.safetensors nor .*; it holds consolidated\.safetensors, which is another form"),
        (["original/consolidated.00.pth"], r"it holds original/consolidated\.00\.pth, which can run code"),
        ([], r"has no safetensors weights"),
    ],
)
def test_no_set_that_transformers_would_find(listed: list[str], words: str) -> None:
    with pytest.raises(UpstreamError, match=words):
        snapshot.choose(["config.json", *listed], "upstream/tiny-chat", dict)


def test_a_shard_that_ends_too_early_is_named(tmp_path: Path) -> None:
    made = releases.in_shards(tmp_path / "made")
    (made / FIRST).write_bytes((made / FIRST).read_bytes()[:-100])
    with pytest.raises(UpstreamError, match=rf"{FIRST} is not a sound safetensors file: its tensors take \d+ bytes and the file holds \d+"):
        repaired(made, tmp_path / "out")
