"""The speed of this machine: really measured, and then kept."""

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from config.errors import ToolError
from config.settings import Settings
from service.machine import speed as machine
from service.machine.speed import QUANTIZING, Speed, measure, speed


@pytest.mark.slow
@pytest.mark.alone
def test_it_is_measured_once(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, threads=2)
    found = speed(settings, folder=tmp_path)
    assert found.threads == 2
    assert found.quantizing.keys() == QUANTIZING.keys()
    assert found.quantizing["Q8_0"] > 5 * found.quantizing["IQ2_XS"], "a codebook is searched far longer than a scale"
    assert 1e9 < found.narrow < 1e13
    assert found.wide > found.narrow
    assert found.llama_wide > found.llama_narrow
    assert found.torch > 2 * found.python, "torch takes longest to import"
    assert 1e-6 < found.entry < 1e-2
    assert 0 < found.decode < 1
    assert 0 < found.call < 1
    assert list(tmp_path.iterdir()) == [tmp_path / machine.FILE], "what was measured with is gone"
    started = time.perf_counter()
    assert speed(settings, folder=tmp_path) == found
    assert time.perf_counter() - started < 1
    assert machine._kept(tmp_path / machine.FILE, machine._machine(1)) is None, "with other threads it is measured again"


def kept(tmp_path: Path, **changes: object) -> Speed | None:
    path = tmp_path / machine.FILE
    about = machine._machine(2)
    path.write_text(json.dumps({"machine": about, "measured": time.time(), "speed": asdict(Speed(threads=2))} | changes), encoding="utf-8")
    return machine._kept(path, about)


def test_only_what_is_fresh_whole_and_of_this_machine_is_kept(tmp_path: Path) -> None:
    assert kept(tmp_path) == Speed(threads=2)
    assert kept(tmp_path, measured=time.time() - machine.KEPT - 1) is None
    assert kept(tmp_path, measured=time.time() + 60) is None, "a clock that was put back must not keep it for ever"
    assert kept(tmp_path, machine={}) is None
    assert kept(tmp_path, speed={"threads": "many"}) is None
    (tmp_path / machine.FILE).write_text("{", encoding="utf-8")
    assert machine._kept(tmp_path / machine.FILE, machine._machine(2)) is None


@pytest.mark.slow
def test_what_cannot_be_measured_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_LLAMA_CPP", str(tmp_path / "nowhere"))
    with pytest.raises(ToolError, match=r"cannot be measured: .*nowhere.* cannot be loaded.*sluice doctor"):
        measure(1, seconds=0.1, folder=tmp_path)
    monkeypatch.delenv("SLUICE_LLAMA_CPP")
    with pytest.raises(ToolError, match=r"cannot be measured: FileNotFoundError.*missing"):
        measure(1, seconds=0.1, folder=tmp_path / "missing")


def test_the_service_stays_without_torch() -> None:
    said = "import sys, service.machine.speed, service.release.forecast, service.release.costs; print('torch' in sys.modules or 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
