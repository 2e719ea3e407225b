"""Prints the peak memory that gradients of a model take, after those of a small one in the same process: arguments SMALL MODEL CONTEXT WAY DTYPE."""

import sys
from pathlib import Path

import numpy as np
import torch

from builders.sensitivity import fisher
from engines import hf, streaming


def used(what: str) -> int:
    """Bytes, from the kernel."""
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if line.startswith(what))


def gradients(folder: Path, *, context: int, streamed: bool, dtype: torch.dtype) -> None:
    network = hf.load_model(folder, dtype=torch.bfloat16 if streamed else dtype)
    if streamed:
        streaming.stream(network, torch.device("cpu"), dict(hf.outline(folder).named_buffers()), dtype)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    with fisher.gradients(network, {name: lambda gradient: None for name, _ in network.named_parameters()}):
        for number in range(2):
            fisher.backward(network, np.arange(3, 3 + context), number)


def main() -> None:
    small, folder, context, way, named = sys.argv[1:]
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[named]
    torch.set_num_threads(1)
    gradients(Path(small), context=64, streamed=way == "streamed", dtype=dtype)
    before = used("VmRSS")
    gradients(Path(folder), context=int(context), streamed=way == "streamed", dtype=dtype)
    sys.stdout.write(str(used("VmHWM") - before))


if __name__ == "__main__":
    main()
