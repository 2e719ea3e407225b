"""Prints the peak memory that gradients of a model take, in a process that has done the same with a small one before: arguments SMALL MODEL CONTEXT WAY."""

import sys
from pathlib import Path

import numpy as np
import torch

from builders.sensitivity import fisher
from engines import hf, streaming


def used(what: str) -> int:
    """Bytes, from the kernel."""
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if line.startswith(what))


def gradients(folder: Path, *, context: int, streamed: bool) -> None:
    network = hf.load_model(folder, dtype=torch.bfloat16 if streamed else torch.float32)
    if streamed:
        streaming.stream(network, torch.device("cpu"), dict(hf.outline(folder).named_buffers()))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    with fisher.gradients(network, {name: lambda gradient: None for name, _ in network.named_parameters()}):
        for number in range(2):
            fisher.backward(network, np.arange(3, 3 + context), number)


def main() -> None:
    small, folder, context, way = sys.argv[1:]
    torch.set_num_threads(1)
    gradients(Path(small), context=64, streamed=way == "streamed")
    before = used("VmRSS")
    gradients(Path(folder), context=int(context), streamed=way == "streamed")
    sys.stdout.write(str(used("VmHWM") - before))


if __name__ == "__main__":
    main()
