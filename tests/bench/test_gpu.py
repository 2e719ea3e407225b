"""The comparison of devices in miniature, with the CPU as both; a GPU has not run it."""

import re
import sys
from dataclasses import replace

import pytest
import torch

from bench import gpu


def test_a_device_agrees_with_itself_and_says_how_fast_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--models", "tiny", "--windows", "3", "--more", "2", "--context", "64"])
    gpu.main()
    said = capsys.readouterr().out
    assert [float(found) for found in re.findall(r"median of matrices\) *│ *([0-9.]+)", said)] == [0.0, 0.0]
    assert "times as fast" in said


def test_what_differs_is_told() -> None:
    found = gpu.Found(seconds=1.0, memory=0, squares={"a": 1.0, "b": 2.0}, hessians={"a": torch.eye(2)})
    _, good = gpu.compared("m", found, found, found, found)
    assert good
    for other in (replace(found, squares={"a": 1.2, "b": 2.4}), replace(found, hessians={"a": torch.ones(2, 2)})):
        _, good = gpu.compared("m", found, other, found, found)
        assert not good


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_it_says_where_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit, match="sees no CUDA device"):
        gpu.main()
