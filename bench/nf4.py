"""Dynamic NF4 against other ways to choose the layers that stay in 16 bits, at equal bytes: `python -m bench.nf4`.

Every way fills the same bytes with the same groups of layers. Figures are from NF4's own values computed in float32, so that they differ by the choice alone;
a release measures the finished files. Text is held out, of the calibration's kind.
"""

import argparse
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.models import fetched
from bench.plan.model import CALIBRATION, HELD_OUT, MODELS
from builders import bnb, fixes
from builders.plan import nf4 as plan
from builders.sensitivity import nf4 as sensitivity
from builders.sensitivity.layout import natural
from builders.sensitivity.table import Sensitivity
from builders.weights import weight_files
from engines import hf, nf4
from qa import divergence, texts

CONTEXT = 512
ABOVE = (0.05, 0.1, 0.2)  # of plain NF4's bytes
SEEDS = 3
WIDTH = max(map(len, (*MODELS, *fetched.MODELS)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.nf4", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=(*MODELS, *fetched.MODELS), default=["llama", "gemma3"])
    parser.add_argument("--tokens", type=int, default=20_000, help="at most, of the evaluation text")
    parser.add_argument("--calibration-tokens", type=int, default=65_536, help="at most, of the sensitivity pass")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    print(f"{'model':{WIDTH}} {'above':>6} {'choice':14} {'predicted':>10} {'measured':>10} {'of plain':>9} {'planned /':>9}")
    for name in given.models:
        with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
            contend(name, Path(folder), given.tokens, given.calibration_tokens, given.threads)


def contend(name: str, work: Path, tokens: int, calibration_tokens: int, threads: int) -> None:
    """Prepare one model, choose in every way, and print the divergences."""
    fixed, made, plain, text = (work / part for part in ("fixed", "table", "plain", "text"))
    for folder in (fixed, made, plain, text):
        folder.mkdir()
    fixes.repair(fixed, snapshot=folder_of(name, work / "upstream"), repo=f"upstream/{name}", fixes=True)
    sensitivity.measure(made, model=fixed, **CALIBRATION, tokens=calibration_tokens, context=CONTEXT, threads=threads)
    bnb.quantize(plain, model=fixed, threads=threads)
    evaluated: dict[str, Any] = {"tokens": tokens, "context": CONTEXT, **HELD_OUT}
    texts.prepare(text, model=fixed, **evaluated)
    table = Sensitivity.load(made)
    size = sum(file.stat().st_size for file in weight_files(plain))
    small = sum(nf4.stored_bytes(tensor.parameters) for tensor in table.tensors)
    kld = measured(fixed, table, text, threads)

    def predicted(kept: Collection[str]) -> float:
        return table.predict({tensor.name: sensitivity.TYPES[tensor.name in kept] for tensor in table.tensors}).mean

    base = kld([])
    print(f"{name:{WIDTH}} {'':6} {'plain NF4':14} {predicted([]):10.5f} {base:10.5f}", flush=True)
    for above in ABOVE:
        kept = plan.choose(table, capacity=small + int(above * size)).kept
        ours = kld(kept)
        print(f"{name:{WIDTH}} {above:6.0%} {'planned':14} {predicted(kept):10.5f} {ours:10.5f} {ours / base:9.2f}", flush=True)
        for way, choices in naive(fixed, table, int(above * size)):
            found = [(predicted(choice), kld(choice)) for choice in choices]
            foretold, theirs = np.mean(found, axis=0)
            print(f"{name:{WIDTH}} {above:6.0%} {way:14} {foretold:10.5f} {theirs:10.5f} {theirs / base:9.2f} {ours / theirs:9.2f}", flush=True)


def folder_of(name: str, out: Path) -> Path:
    """The owners' folder of the model: one of the repository's, or written to `out` from its package. Raises ToolError when that cannot be fetched."""
    if name in MODELS:
        return MODELS[name]
    fetched.MODELS[name](out)
    return out


def measured(fixed: Path, table: Sensitivity, text: Path, threads: int) -> Callable[[Collection[str]], float]:
    """A function from the modules that stay in 16 bits to the mean KLD of the others in NF4."""
    windows, marks, _ = texts.load(text, CONTEXT)
    first = CONTEXT // 2
    torch.set_num_threads(threads)
    original, network = hf.load_model(fixed), hf.load_model(fixed)
    tokenizer = hf.load_tokenizer(fixed)
    reference, variant = (hf.HfModel(folder=fixed, tokenizer=tokenizer, network=each) for each in (original, network))
    answers = {tuple(window): reference.logits(window, first) for window in windows.tolist()}

    def kld(kept: Collection[str]) -> float:
        with torch.no_grad():
            for tensor in table.tensors:
                weight = original.get_parameter(f"{tensor.name}.weight")
                network.get_parameter(f"{tensor.name}.weight").copy_(weight if tensor.name in kept else nf4.pack(weight).values())
        scores = divergence.compare(lambda tokens, _: answers[tuple(tokens)], variant.logits, windows, scored=marks > 0)
        return divergence.clustered(scores.kld)[0]

    return kld


def naive(fixed: Path, table: Sensitivity, room: int) -> Iterator[tuple[str, Sequence[list[str]]]]:
    """Other choices of layers for at most `room` bytes: by their place, by the weights' relative error, at random."""
    groups = [[table.tensors[place].name for place in group] for group in plan.grouped(table)]
    steps = {tensor.name: 2 * tensor.parameters - nf4.stored_bytes(tensor.parameters) for tensor in table.tensors}
    network = hf.load_model(fixed)
    weights = {tensor.name: network.get_parameter(f"{tensor.name}.weight").detach() for tensor in table.tensors}
    errors = {name: float((nf4.pack(weight).values() - weight).square().sum() / weight.square().sum()) for name, weight in weights.items()}

    def filled(order: Sequence[list[str]]) -> list[str]:
        chosen: list[str] = []
        for group in order:
            if sum(steps[name] for name in (*chosen, *group)) <= room:
                chosen += group
        return chosen

    def layer(group: list[str]) -> int:
        return natural(group[0])[1][0]

    last = max(map(layer, groups))

    def from_ends(group: list[str]) -> tuple[int, str]:
        return min(layer(group), last - layer(group)), group[0].partition(f".{layer(group)}.")[2]  # kind by kind, so that both ends have their share

    yield "first layers", [filled(sorted(groups, key=layer))]
    yield "both ends", [filled(sorted(groups, key=from_ends))]
    yield "weight error", [filled(sorted(groups, key=lambda group: -sum(errors[name] for name in group) / sum(steps[name] for name in group)))]
    yield "random", [filled([groups[place] for place in np.random.default_rng(seed).permutation(len(groups))]) for seed in range(SEEDS)]


if __name__ == "__main__":
    main()
