"""What reads images is given to the converter under the names that it looks for, and nothing else is touched."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from builders import mmproj, respelt
from tests import seeing

EYES, TABLE = "vision_tower.encoder.layer.0.mlp.fc1.weight", "language_model.model.embed_tokens.weight"


@pytest.mark.parametrize(("kind", "found", "wanted"), [
    ("internvl", EYES, f"model.{EYES}"),
    ("internvl", f"model.{EYES}", f"model.{EYES}"),
    ("internvl", TABLE, TABLE),
    ("llava", TABLE, "model.embed_tokens.weight"),
    ("mistral3", "model.language_model.embed_tokens.weight", "model.embed_tokens.weight"),
    ("mistral3", "model.multi_modal_projector.linear_1.weight", "multi_modal_projector.linear_1.weight"),
    ("mistral3", "language_model.model.layers.0.mlp.up_proj.weight", "language_model.model.layers.0.mlp.up_proj.weight"),
    ("gemma3", TABLE, TABLE),
    (None, EYES, EYES),
])  # fmt: skip
def test_names(kind: str | None, found: str, wanted: str) -> None:
    assert respelt.name(kind, found) == wanted


def folder(out: Path, kind: str) -> Path:
    """Links to a model in two files, as a folder for the converter has them."""
    there, links = out / "there", out / "links"
    there.mkdir()
    links.mkdir()
    (there / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    (there / "model.safetensors.index.json").write_text("{}", encoding="utf-8")
    save_file({EYES: torch.ones(2, 3, dtype=torch.bfloat16), "lm_head.weight": torch.zeros(2)}, there / "model-1.safetensors")
    save_file({TABLE: torch.zeros(4, 3), "multi_modal_projector.norm.weight": torch.full((3,), 2.0)}, there / "model-2.safetensors")
    for path in there.iterdir():
        (links / path.name).symlink_to(path)
    return links


def test_what_reads_images_alone_is_written_anew(tmp_path: Path) -> None:
    links = folder(tmp_path, "internvl")
    respelt.respell(links)
    assert {path.name for path in links.iterdir()} == {"config.json", "model.safetensors"}
    written = load_file(links / "model.safetensors")
    assert set(written) == {f"model.{EYES}", "model.multi_modal_projector.norm.weight"}
    assert torch.equal(written[f"model.{EYES}"], torch.ones(2, 3, dtype=torch.bfloat16))
    assert set(load_file(tmp_path / "there" / "model-1.safetensors")) == {EYES, "lm_head.weight"}


def test_names_that_the_converter_knows_are_left_alone(tmp_path: Path) -> None:
    links = folder(tmp_path, "gemma3")
    respelt.respell(links)
    assert all(path.is_symlink() for path in links.iterdir())
    assert {path.name for path in links.iterdir()} == {path.name for path in (tmp_path / "there").iterdir()}


def test_a_projector_without_tensors_is_none(tmp_path: Path) -> None:
    model = seeing.MODELS["InternVL"](tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    named = {name.replace("vision_tower", "eyes").replace("multi_modal_projector", "lens"): value for name, value in weights.items()}
    save_file(named, model / "model.safetensors", metadata={"format": "pt"})
    built = mmproj.build(tmp_path, model=model, name="blind", types=["BF16"])
    assert built["files"] == {}
    assert "finds no tensor of one by the names here" in built["reason"]
    assert list(tmp_path.glob("*.gguf")) == []
