"""How long the planner takes, and how far from the bound it stays: `python -m bench.planner`."""

import time

import numpy as np

from builders.plan.solve import bits, solution
from builders.sensitivity.table import TYPES, Sensitivity, Tensor
from config.plans import Rules


def table(tensors: int, seed: int = 0) -> Sensitivity:
    """Made-up sensitivities of a model's shape: layers of seven matrices that differ in importance, noise between types."""
    random = np.random.default_rng(seed)
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    rows = (4096, 1024, 1024, 4096, 14336, 14336, 4096)
    made = tuple(
        Tensor(name=f"blk.{index // 7}.{names[index % 7]}.weight", rows=rows[index % 7], columns=14336 if index % 7 == 6 else 4096) for index in range(tensors)
    )
    scale = random.lognormal(0, 0.8, (tensors, 1)) * np.array([[2.0 ** -bits(type) for type in TYPES]]) * random.lognormal(0, 0.1, (tensors, len(TYPES)))
    products = (random.standard_normal((8, tensors, len(TYPES))) * scale).astype(np.float32)
    return Sensitivity(provider="fisher", tensors=made, types=TYPES, products=products)


def main() -> None:
    print(f"{'tensors':>8} {'bpw':>5} {'seconds':>8} {'above the bound':>16} {'bytes left':>12}")
    for count in (30, 300, 1000):
        sensitivity = table(count)
        parameters = sum(tensor.parameters for tensor in sensitivity.tensors)
        for bpw in (2.2, 3.0, 4.5, 6.0):
            capacity, began = int(parameters * bpw / 8), time.perf_counter()
            found = solution(sensitivity, capacity=capacity, rules=Rules())
            print(f"{count:8d} {bpw:5.1f} {time.perf_counter() - began:8.2f} {found.cost / found.bound - 1:16.2e} {capacity - found.bytes:12,d}")


if __name__ == "__main__":
    main()
