"""Projectors of a random model that reads images, made by the converter: what both engines make of drawn images, and what a wrong one is told by."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from builders import mmproj
from config.errors import ProgramError, UnsupportedModel
from engines import gguf_tensors
from qa import mmproj as seen
from tests import architectures, releases

TYPES = ("F16", "Q8_0")  # each takes the converter some seconds


@dataclass(frozen=True, kw_only=True)
class Seeing:
    """The model, its GGUF file, and where its projectors lie."""

    model: Path
    gguf: Path
    out: Path
    built: dict[str, Any]

    def compared(self, *projectors: Path, model: Path | None = None) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        found = seen.compare(self.out, model=model or self.model, gguf=self.gguf, projectors=projectors, threads=1)
        return {name: {item["name"]: item for item in items} for name, items in found["measured"].items()}, found["errors"]


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Seeing:
    out = tmp_path_factory.mktemp("seeing")
    model, gguf = architectures.converted(architectures.MODELS["Gemma 3 with vision"], out)
    return Seeing(model=model, gguf=gguf, out=out, built=mmproj.build(out, model=model, name="miniature", types=TYPES))


def test_llama_cpp_makes_of_images_what_the_model_does(seeing: Seeing) -> None:
    assert [item["file"] for item in seeing.built["files"].values()] == [f"mmproj-{type}.gguf" for type in TYPES]
    assert seeing.built["reason"] is None
    measured, errors = seeing.compared(*(seeing.out / item["file"] for item in seeing.built["files"].values()))
    assert errors == {}
    off = {name: found["mmproj.error"]["value"] for name, found in measured.items()}
    assert off["mmproj-F16"] < 0.002 < off["mmproj-Q8_0"] < 0.02
    assert all(found["mmproj.cosine"]["value"] > 0.999 for found in measured.values())
    assert {name: found["mmproj.float16"]["n"] for name, found in measured.items()} == {"mmproj-F16": None, "mmproj-Q8_0": 0}
    assert measured["mmproj-F16"]["mmproj.float16"]["value"] == 0
    # llama.cpp leaves an image its shape and fills the square up, transformers stretches it
    assert all(found["mmproj.reshaped"]["value"] > 0.1 for found in measured.values())


def test_the_projector_of_another_model_is_told(seeing: Seeing, tmp_path: Path) -> None:
    other = Path(shutil.copytree(seeing.model, tmp_path / "other"))
    _edit(other, lambda value: value.flip(0), part="vision_tower", name="fc1.weight")
    measured, _ = seeing.compared(seeing.out / "mmproj-F16.gguf", model=other)
    assert measured["mmproj-F16"]["mmproj.error"]["value"] > 0.2


def test_what_float16_cannot_hold_is_counted(seeing: Seeing, tmp_path: Path) -> None:
    loud = Path(shutil.copytree(seeing.model, tmp_path / "loud"))
    _edit(loud, lambda value: value * 1e6, part="vision_tower", name="fc1.weight")
    measured, _ = seeing.compared(seeing.out / "mmproj-F16.gguf", model=loud)
    found = measured["mmproj-F16"]["mmproj.float16"]
    assert found["value"] > 0
    assert any("fc1" in detail for detail in found["details"])


def _edit(model: Path, change: Any, *, part: str, name: str) -> None:
    weights = load_file(model / "model.safetensors")
    chosen = next(key for key in sorted(weights) if part in key and key.endswith(name))
    weights[chosen] = change(weights[chosen].float()).to(torch.bfloat16).contiguous()
    (model / "model.safetensors").unlink()  # it may be a hard link
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def test_a_damaged_projector_is_an_error_of_its_own(seeing: Seeing, tmp_path: Path) -> None:
    broken = tmp_path / "mmproj-broken.gguf"
    broken.write_bytes((seeing.out / "mmproj-F16.gguf").read_bytes()[:2000])
    measured, errors = seeing.compared(seeing.out / "mmproj-F16.gguf", broken)
    assert list(measured) == ["mmproj-F16"]
    assert "cannot load the projector" in errors["mmproj-broken"]


def test_a_model_without_eyes_is_refused_in_words(seeing: Seeing, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="no code that shows pictures"):
        seen.compare(tmp_path, model=releases.clean(tmp_path / "model"), gguf=seeing.gguf, projectors=[], threads=1)


def test_why_no_projector_can_be_made_is_said(tmp_path: Path) -> None:
    found = mmproj.build(tmp_path, model=releases.clean(tmp_path / "model"), name="tiny", types=TYPES)
    assert found["files"] == {}
    assert "knows none for the architecture LlamaForCausalLM" in found["reason"]
    assert list(tmp_path.glob("*.gguf")) == []


@pytest.mark.usefixtures("killed_converter")
def test_a_converter_that_is_killed_is_no_reason_to_do_without(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"^convert_hf_to_gguf\.py was ended by SIGKILL"):
        mmproj.build(tmp_path, model=releases.clean(tmp_path / "model"), name="tiny", types=TYPES)


def test_the_header_says_where_it_comes_from(seeing: Seeing) -> None:
    fields = gguf_tensors.Reader(seeing.out / "mmproj-F16.gguf").fields
    assert fields["general.name"].contents() == "miniature"
    assert fields["general.architecture"].contents() == "clip"


def test_images_are_the_same_each_time() -> None:
    first, again = list(seen.drawn(56, 84)), list(seen.drawn(56, 84))
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert {image.shape for image in first} == {(56, 84, 3)}
