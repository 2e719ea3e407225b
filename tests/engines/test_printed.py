"""What llama.cpp's programs print while they work, read by its own reports: real programs on the bundled model, and made-up floods."""

import resource
import sys
import time
from pathlib import Path

import pytest

from config.errors import ToolError
from engines import tools
from engines.printed import CONVERTER, FORMS, Form, reader
from tests.engines.conftest import DEMO
from tests.heard import hearing, phases, whole

TEXT = DEMO.parent / "data" / "calibration_questions.txt"
STEPS = FORMS["llama-quantize"]


def test_the_converter_tells_bytes(tmp_path: Path) -> None:
    with hearing() as found:
        tools.convert(DEMO, "--outtype", "bf16", "--outfile", tmp_path / "model.gguf")
    (size,) = whole(found, "bytes")
    assert size == pytest.approx((tmp_path / "model.gguf").stat().st_size, rel=0.1), "without the header, and rounded"


def test_llama_imatrix_tells_chunks_while_it_runs(gguf: Path, tmp_path: Path) -> None:
    with hearing() as found:
        tools.run("llama-imatrix", "-m", gguf, "-f", TEXT, "-o", tmp_path / "imatrix.gguf", "-c", "128", "--chunks", "100", "-t", "1", "-ngl", "0")
    assert whole(found, "chunks") == [100]
    assert len(found) > 3, "not all at once"


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_llama_quantize_tells_tensors(gguf: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    with hearing() as found:
        tools.run("llama-quantize", *options, gguf, tmp_path / "out.gguf", "Q4_K_M", "1")
    assert (found[-1].done, found[-1].total, found[-1].unit) == (38, 38, "tensors")


def test_a_statement_is_read_however_it_is_cut() -> None:
    lines = "".join(f"[{n:4}/ 120] blk.{n}.weight - [256, 1, 1, 1], type = f32, size = 0.001 MiB\n" for n in range(1, 121))
    for size in (1, 7, 1000, 10_000):
        read = reader(STEPS)
        with hearing() as found:
            for start in range(0, len(lines), size):
                read(lines[start : start + size])
        assert (found[-1].done, found[-1].total) == (120, 120)
        assert len(phases(found)) == 1


def test_a_tensor_is_done_when_its_size_is_said() -> None:
    read = reader(STEPS)
    with hearing() as found:
        read("[   1/   2] a.weight - [256, 1, 1, 1], type = bf16, converting to q4_K .. ")
        assert not found
        read("size = 1 MiB -> 0.3 MiB\n[   2/   2] b.weight")
    assert [item.done for item in found] == [0, 1]


def test_rounded_bytes_are_read() -> None:
    read = reader(CONVERTER)
    with hearing() as found:
        read("\rWriting:   0%|          | 0.00/12.4G [00:00<?, ?byte/s]\rWriting:   8%|8    | 988M/12.4G [00:01<00:12, 1.0Gbyte/s]")
    assert (found[-1].done, found[-1].total) == (988_000_000, 12_400_000_000)


FLOOD = """
import sys, time
line = b"[   1/   2] " + b"x" * 50 + b" size = \\n"
for _ in range(100):
    sys.stdout.buffer.write(line * 30_000)
print("[   2/   2] the end size = ")
raise SystemExit({code})
"""


def test_a_flood_fills_no_memory_and_its_end_is_still_told(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with hearing() as found:
        output = tools.execute([sys.executable, "-c", FLOOD.format(code=0)], log=tmp_path / "log", form=STEPS)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert (tmp_path / "log").stat().st_size > 200e6
    assert grown < 120e6
    assert len(output) <= tools.KEPT
    assert output.endswith("[   2/   2] the end size = \n")
    assert [item.done for item in found] in ([0, 1, 2], [0, 2])
    with pytest.raises(ToolError, match=r"(?s)ended with exit code 3.*the end size = $"):
        tools.execute([sys.executable, "-c", FLOOD.format(code=3)], form=STEPS)


def test_a_program_that_prints_nothing_is_stopped_in_time() -> None:
    started = time.monotonic()
    with pytest.raises(ToolError, match=r"was stopped after 0\.7 seconds"):
        tools.execute([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.7, form=Form(unit="tensors", step=STEPS.step))
    assert time.monotonic() - started < 10
