"""Gradients and Hessians on a GPU against the CPU's: `python -m bench.gpu`, which `bench/gpu.sh` runs. Prints agreement and speed.

SmolLM2-135M-Instruct, whose weights come from a package of the Python index (where there is none, random ones of its sizes stand in), and a random model of
1.2 billion parameters of Llama 3.2 1B's sizes. On both devices the same windows of random tokens run forward and backward in float32 (TF32 on the card), and
sums over windows are compared: labels are drawn from what each device computes, so single gradients differ where a probability lies at a drawn number. Speed
is that of the dtype that stages work in. The exit code is 1 when the devices differ.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from bench import program
from bench.models.fetched import MODELS
from builders.rounding import hessians
from builders.sensitivity import fisher, room
from config.errors import SluiceError
from engines import hf
from service.release import shapes

REAL, RANDOM = "SmolLM2-135M-Instruct", "Llama-3.2-1B"
AGREEING = 0.05  # relative difference of squared gradients and of Hessians that is nothing beside their noise
WIDEST = 2048  # columns of a matrix whose Hessian is compared


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one device made of the windows."""

    seconds: float  # a window, forward and backward with all sums
    memory: int  # bytes at the peak, of a GPU's; 0 on a CPU
    squares: Mapping[str, float]  # Σ g² over windows of each matrix
    hessians: Mapping[str, torch.Tensor]  # of a few matrices, mean diagonal 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="to compare with the CPU")
    parser.add_argument("--models", nargs="+", choices=(REAL, RANDOM, "tiny"), default=[REAL, RANDOM])
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--more", type=int, default=64, help="windows that the device runs for its speed")
    parser.add_argument("--context", type=int, default=512)
    given = parser.parse_args()
    device, cpu = torch.device(given.device), torch.device("cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device. Run this where `sluice doctor` names one.")
    agreed = True
    console = program.console()
    for name in given.models:
        with model(name) as network:
            tokens = np.random.default_rng(0).integers(0, network.config.vocab_size, (given.windows + given.more, given.context))
            few, many = tokens[: given.windows], tokens[given.windows :]
            here, there = (ran(network, where, torch.float32, few) for where in (cpu, device))
            usual, fast = (ran(network, where, room.working(torch.bfloat16, where), some) for where, some in ((cpu, few[:2]), (device, many)))
        made, good = compared(name, here, there, usual, fast)
        console.print(made)
        agreed &= good
    if not agreed:
        raise SystemExit(1)


@contextmanager
def model(name: str) -> Iterator[PreTrainedModel]:
    """The real model, or one of those sizes at random, in bfloat16 as models are stored."""
    if name == REAL:
        with TemporaryDirectory(prefix="sluice-gpu-") as folder:
            try:
                MODELS[name](Path(folder))
                yield hf.load_model(Path(folder), dtype=torch.bfloat16)
                return
            except SluiceError as error:
                program.console().print(f"{error} Random weights of its sizes stand in.", soft_wrap=True)
    about = shapes.MODELS["SmolLM2-135M" if name == REAL else RANDOM]
    described = LlamaConfig(
        hidden_size=64 if name == "tiny" else about.hidden,
        intermediate_size=192 if name == "tiny" else about.wide,
        num_hidden_layers=2 if name == "tiny" else about.layers,
        num_attention_heads=4 if name == "tiny" else about.heads,
        num_key_value_heads=2 if name == "tiny" else about.groups,
        vocab_size=512 if name == "tiny" else about.vocabulary,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    network = LlamaForCausalLM(described).bfloat16()
    network.train(mode=False)
    yield network


def ran(network: PreTrainedModel, device: torch.device, dtype: torch.dtype, windows: fisher.Window) -> Found:
    """Windows (n, T) on a device, computed in a dtype."""
    torch.nn.Module.to(network, device, dtype)
    squares: dict[str, torch.Tensor] = {}
    sums: dict[str, hessians.Sums] = {}
    matrices = {name: parameter for name, parameter in network.named_parameters() if parameter.ndim == 2}
    chosen = [name for name, parameter in matrices.items() if parameter.shape[1] <= WIDEST and ".layers.1." in f".{name}"]

    def taker(name: str) -> Callable[[torch.Tensor], None]:
        def take(gradient: torch.Tensor) -> None:
            rows = gradient.float()
            squares[name] = squares.get(name, torch.zeros((), device=device)) + rows.square().sum()
            if name in chosen:
                if name not in sums:
                    sums[name] = hessians.Sums.empty(1, rows.shape[1], device)
                sums[name].add(0, rows)

        return take

    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.cuda.reset_peak_memory_stats()
    taken = []
    with fisher.gradients(network, {name: taker(name) for name in matrices}):
        for number, window in enumerate(windows):
            began = time.perf_counter()
            fisher.backward(network, window, number)
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - began)
    return Found(
        seconds=statistics.median(taken),
        memory=int(torch.cuda.max_memory_allocated()) if device.type == "cuda" else 0,
        squares={name: float(found) for name, found in squares.items()},
        hessians={name: torch.from_numpy(next(found.hessians(len(windows)))) for name, found in sums.items()},
    )


def compared(name: str, here: Found, there: Found, usual: Found, fast: Found) -> tuple[Table, bool]:
    """The figures, and whether both devices agree; `usual` and `fast` are the CPU's and the device's own ways."""
    squares = statistics.median(abs(there.squares[part] / value - 1) for part, value in here.squares.items())
    own = [float((there.hessians[part] - value).norm() / value.norm()) for part, value in here.hessians.items()]
    matrices = statistics.median(own)
    made = Table(title=name, title_justify="left")
    made.add_column("")
    made.add_column("found", justify="right")
    made.add_row("squared gradients, relative difference (median of matrices)", f"{squares:.4f}")
    made.add_row("Hessians, relative difference (median of matrices)", f"{matrices:.4f}")
    made.add_row("CPU, seconds a window", f"{usual.seconds:.3f}")
    made.add_row("device, seconds a window", f"{fast.seconds:.4f}")
    made.add_row("times as fast", f"{usual.seconds / fast.seconds:.1f}")
    made.add_row("device memory at the peak, GB", f"{fast.memory / 1e9:.2f}")
    return made, squares <= AGREEING and matrices <= AGREEING


if __name__ == "__main__":
    main()
