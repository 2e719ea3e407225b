"""Releases in MXFP4: multiplied out without rounding, as transformers does, and published in upstream's own bits beside what is made from that."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from builders import convert, fixes, lacking, mxfp4
from builders.float8 import unfolded
from config.errors import ProgramError, UpstreamError
from engines import hf
from tests import mxfp4 as stored
from tests import releases
from tests.mxfp4 import EXPERTS, LAYERS


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored.upstream(tmp_path_factory.mktemp("mxfp4") / "upstream")


@pytest.fixture(scope="module")
def repaired(upstream: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("fixed")
    return out, fixes.repair(out, snapshot=upstream, repo="openai/mini", fixes=True)


@pytest.fixture(scope="module")
def gguf(repaired: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gguf")
    return out / str(convert.convert(out, model=repaired[0], name="mini")["file"])


def test_it_is_multiplied_out_as_transformers_does_and_said(upstream: Path, repaired: tuple[Path, dict[str, Any]]) -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    folder, found = repaired
    before, after = load_file(upstream / "model.safetensors"), load_file(folder / "model.safetensors")
    names = [EXPERTS.format(layer=layer, part=part) for layer in range(LAYERS) for part in ("gate_up", "down")]
    for name in names:
        theirs = convert_moe_packed_tensors(before[f"{name}_blocks"], before[f"{name}_scales"])
        assert torch.equal(after[name], theirs)
    assert set(after) == {name for name in before if not name.endswith(("_blocks", "_scales"))} | set(names)
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    [reason] = [patch["reason"] for patch in found["patches"] if patch["fix"] == "plain-weights"]
    assert reason.endswith("(4 tensors in MXFP4, a power of two for each 32 numbers).")
    hf.require_all(folder)


def test_it_is_whole_by_its_headers_until_experts_are_gone(upstream: Path, tmp_path: Path) -> None:
    """For who repairs no more than its configuration, weights and what describes them stay as they are."""
    short, *folders = (tmp_path / name for name in ("short", "one", "other"))
    for folder in folders:
        folder.mkdir()
    lacking.check(folders[0], model=upstream, weights=upstream)
    shutil.copytree(upstream, short)
    gone = EXPERTS.format(layer=1, part="down")
    releases.change_weights(short, lambda weights: [weights.pop(gone + end) for end in ("_blocks", "_scales")])
    with pytest.raises(UpstreamError, match=rf"^model\.safetensors lacks {gone}, which"):
        lacking.check(folders[1], model=short, weights=short)


def test_every_number_and_every_power_of_two_is_exact() -> None:
    pairs = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 1, 16, 16)
    for power in (0, 1, 127, 200):
        found = unfolded(pairs, torch.full((1, 1, 16), power, dtype=torch.uint8)).double().flatten()
        numbers = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]
        assert found.tolist() == [numbers[half] * 2.0 ** (power - 127) for byte in range(256) for half in (byte & 15, byte >> 4)]


def test_the_variant_holds_upstreams_bits(upstream: Path, repaired: tuple[Path, dict[str, Any]], gguf: Path, tmp_path: Path) -> None:
    found = mxfp4.build(tmp_path, gguf=gguf, model=repaired[0], snapshot=upstream, name="mini")
    assert (found["file"], found["kept"]) == ("mini-MXFP4.gguf", 3 * LAYERS)
    stored.require_bits(tmp_path / "mini-MXFP4.gguf", upstream)


def test_a_file_with_other_values_is_not_left(upstream: Path, repaired: tuple[Path, dict[str, Any]], gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(UpstreamError, match=r"mini is not stored in MXFP4, so there is no variant MXFP4 of it"):
        mxfp4.build(tmp_path, gguf=gguf, model=repaired[0], snapshot=repaired[0], name="mini")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("killed_converter")
def test_a_converter_that_is_killed_says_nothing_against_the_weights(upstream: Path, repaired: tuple[Path, dict[str, Any]], gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"^convert_hf_to_gguf\.py was ended by SIGKILL"):
        mxfp4.build(tmp_path, gguf=gguf, model=repaired[0], snapshot=upstream, name="mini")
