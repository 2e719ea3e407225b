"""KL divergence of several variants of the bundled model: ours, in lockstep and without a file, against llama-perplexity, with its file of base logits.

Same GGUF files, same text, same windows, same threads; each way is run once after the other in the same process tree, and wall time is taken of each whole.
"""

import json
import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from builders import calibrate, convert, fixes, quantize
from engines import llama, tools
from qa import divergence, texts

DEMO = Path(__file__).parents[1] / "demo"
TYPES = ("Q8_0", "Q6_K", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K")
CONTEXT = 512
THREADS = len(os.sched_getaffinity(0))


@dataclass(frozen=True, kw_only=True)
class Models:
    """What both ways read."""

    fixed: Path
    base: Path
    variants: dict[str, Path]
    text: Path  # what is said in the evaluation conversations: llama-perplexity takes plain text only


def main() -> None:
    """Build the variants, measure them both ways, print a table."""
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name:
        models = prepare(Path(name))
        theirs, their_seconds, their_bytes = measure_with_llama_perplexity(models, Path(name))
        ours, our_seconds = measure_in_lockstep(models, Path(name))
    table = Table(
        "variant", "llama-perplexity", "Sluice", "ratio", title=f"mean KLD in nats, {THREADS} threads, windows of {CONTEXT} tokens", title_justify="left"
    )
    for tag in models.variants:
        table.add_row(tag, f"{theirs[tag]:.6f}", f"{ours[tag]:.6f}", f"{ours[tag] / theirs[tag]:.4f}")
    console.print(table)
    console.print(
        f"wall time for {len(TYPES)} variants: llama-perplexity {their_seconds:.1f} s, Sluice {our_seconds:.1f} s, ratio {our_seconds / their_seconds:.2f}"
    )
    console.print(f"bytes written for base logits: llama-perplexity {their_bytes / 1e6:.1f} MB, Sluice 0")


def prepare(folder: Path) -> Models:
    """Fix, convert and quantize the bundled model."""
    for part in ("fixed", "base", "imatrix", *TYPES):
        (folder / part).mkdir()
    fixed, data = folder / "fixed", DEMO / "data"
    fixes.repair(fixed, snapshot=DEMO / "model", repo="upstream/tiny-chat", fixes=True)
    base = folder / "base" / str(convert.convert(folder / "base", model=fixed, name="tiny-chat")["file"])
    plain = [data / "calibration_questions.txt"]
    found = calibrate.imatrix(
        folder / "imatrix", model=fixed, gguf=base, chat=[data / "calibration.jsonl"], plain=plain, tokens=20_000, context=CONTEXT, threads=THREADS
    )
    imatrix = folder / "imatrix" / str(found["file"])
    variants = {}
    for tag in TYPES:
        made = quantize.quantize(folder / tag, gguf=base, imatrix=imatrix, type=tag, name="tiny-chat", threads=THREADS)
        variants[tag] = folder / tag / str(made["file"])
    text = folder / "text.txt"
    lines = (data / "evaluation.jsonl").read_text(encoding="utf-8").splitlines()
    text.write_text("".join(message["content"] + "\n" for line in lines for message in json.loads(line)["messages"]), encoding="utf-8")
    return Models(fixed=fixed, base=base, variants=variants, text=text)


def measure_with_llama_perplexity(models: Models, folder: Path) -> tuple[dict[str, float], float, int]:
    """Mean KLD by variant, seconds, and bytes of the file of base logits."""
    logits = folder / "base.kld"
    common = ("-c", str(CONTEXT), "-t", str(THREADS), "-ngl", "0", "--no-warmup")
    started = time.perf_counter()
    tools.run("llama-perplexity", "-m", models.base, "-f", models.text, "--kl-divergence-base", logits, *common)
    found = {}
    for tag, variant in models.variants.items():
        said = tools.run("llama-perplexity", "-m", variant, "--kl-divergence-base", logits, "--kl-divergence", *common)
        match = re.search(r"Mean\s+KLD:\s+(-?[0-9.]+)", said)
        if match is None:
            raise SystemExit(f"llama-perplexity printed no mean KLD for {tag}:\n{said[-2000:]}")
        found[tag] = float(match[1])
    return found, time.perf_counter() - started, logits.stat().st_size


def measure_in_lockstep(models: Models, folder: Path) -> tuple[dict[str, float], float]:
    """Mean KLD by variant, and seconds."""
    started = time.perf_counter()
    out = folder / "windows"
    out.mkdir()
    texts.prepare(out, model=models.fixed, chat=[], plain=[models.text], tokens=10**9, context=CONTEXT)
    windows = np.load(out / "tokens.npy")
    found = {}
    for tag, variant in models.variants.items():
        with llama.open_model(models.base, context=CONTEXT, threads=THREADS) as original, llama.open_model(variant, context=CONTEXT, threads=THREADS) as model:
            scores = divergence.compare(original.logits, model.logits, windows)
        found[tag] = next(item.value for item in divergence.measurements(scores) if item.name == "kld.mean")
    return found, time.perf_counter() - started
