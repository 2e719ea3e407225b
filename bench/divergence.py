"""KL divergence of eight variants of one model: ours, in lockstep and without a file, against llama-perplexity, with its file of base logits.

Same GGUF files, same text, same windows, same number of threads; each way runs once after the other, every program of it as a process of its own, and its
wall time, CPU time, peak memory and written bytes are taken of whole processes, so that starting, loading and tokenizing count in both. The models are the
bundled one and a randomly initialised one of 67M parameters with a vocabulary of 32,000 tokens, whose tokenizer is the bundled one filled up with tokens that
never occur: what is measured is the same work as for a trained model, but its divergences say nothing about quantization.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from builders import fixes
from engines import toolchain, tools

DEMO = Path(__file__).parents[1] / "demo"
TYPES = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_NL", "Q3_K_M", "Q2_K")
CONTEXT = 512
THREADS = len(os.sched_getaffinity(0))
ALL = 10**6  # more windows than the text has
TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What processes used, one after the other."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0  # of the largest
    written: int = 0  # bytes

    def plus(self, other: "Cost") -> "Cost":
        """Both, one after the other."""
        return Cost(
            seconds=self.seconds + other.seconds,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            peak_bytes=max(self.peak_bytes, other.peak_bytes),
            written=self.written + other.written,
        )


def main() -> None:
    """Build the models and their variants, measure them both ways, print a table for each."""
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name:
        folder = Path(name)
        fixed, random = folder / "tiny-chat", folder / "random-67M"
        fixed.mkdir()
        fixes.repair(fixed, snapshot=DEMO / "model", repo="upstream/tiny-chat", fixes=True)
        make_random(random, tokenizer=fixed)
        # llama-perplexity takes plain text only: what is said in the evaluation conversations
        text = folder / "text.txt"
        lines = (DEMO / "data" / "evaluation.jsonl").read_text(encoding="utf-8").splitlines()
        text.write_text("".join(message["content"] + "\n" for line in lines for message in json.loads(line)["messages"]), encoding="utf-8")
        for model, windows in ((fixed, ALL), (random, 8)):
            measure_both(model, text, windows)


def measure_both(model: Path, text: Path, windows: int) -> None:
    base, variants = quantized(model)
    theirs, their_cost = with_llama_perplexity(base, variants, text, windows)
    ours, our_cost = in_lockstep(base, variants, text, windows)
    console = Console(highlight=False)
    title = f"{model.name}: mean KLD in nats, {THREADS} threads, windows of {CONTEXT} tokens"
    table = Table("variant", "llama-perplexity", "Sluice", "ratio", title=title, title_justify="left")
    for tag, one, other in zip(TYPES, theirs, ours, strict=True):
        table.add_row(tag, f"{one:.6f}", f"{other:.6f}", f"{other / one:.4f}")
    console.print(table)
    for what, one, other, unit in (
        ("wall time", their_cost.seconds, our_cost.seconds, "s"),
        ("CPU time", their_cost.cpu_seconds, our_cost.cpu_seconds, "s"),
        ("peak memory", their_cost.peak_bytes / 1e6, our_cost.peak_bytes / 1e6, "MB"),
        ("written", their_cost.written / 1e6, our_cost.written / 1e6, "MB"),
    ):
        console.print(f"{what}: llama-perplexity {one:.2f} {unit}, Sluice {other:.2f} {unit}, ratio {other / one:.2f}")


def make_random(folder: Path, *, tokenizer: Path) -> None:
    """A Llama of 67M parameters with random weights, and 32,000 tokens, of which the converter makes up those that `tokenizer` does not have."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=10,
        num_attention_heads=8,
        num_key_value_heads=8,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data *= 6  # logits that spread by 2.7 nats: distributions about as sharp as a trained model's
    model.to(torch.bfloat16).save_pretrained(folder)
    for name in TOKENIZER:
        (folder / name).write_bytes((tokenizer / name).read_bytes())


def quantized(model: Path) -> tuple[Path, list[Path]]:
    """The 16-bit GGUF and its variants, without an importance matrix: it changes no running time."""
    base = model / "BF16.gguf"
    tools.convert(model, "--outtype", "bf16", "--outfile", base)
    variants = [model / f"{tag}.gguf" for tag in TYPES]
    for tag, file in zip(TYPES, variants, strict=True):
        tools.run("llama-quantize", base, file, tag, str(THREADS))
    return base, variants


def with_llama_perplexity(base: Path, variants: Sequence[Path], text: Path, windows: int) -> tuple[list[float], Cost]:
    """Mean KLD of each variant, and the cost of the base file and of each comparison with it."""
    logits = base.with_name("base.kld")
    common = ("-c", str(CONTEXT), "-t", str(THREADS), "-ngl", "0", "--no-warmup", "--kl-divergence-base", str(logits))
    program = toolchain.tool("llama-perplexity")
    chunks = () if windows == ALL else ("--chunks", str(windows))
    _, cost = timed([program, "-m", base, "-f", text, *chunks, *common], r"Final estimate")
    means = []
    for variant in variants:
        match, more = timed([program, "-m", variant, "--kl-divergence", *common], r"Mean\s+KLD:\s+(-?[0-9.]+)")
        means.append(float(match[1]))
        cost = cost.plus(more)
    return means, cost.plus(Cost(written=logits.stat().st_size))


def in_lockstep(base: Path, variants: Sequence[Path], text: Path, windows: int) -> tuple[list[float], Cost]:
    """The same, ours."""
    out = base.with_name("lockstep")
    out.mkdir()
    numbers = ("--context", str(CONTEXT), "--threads", str(THREADS), "--windows", str(windows))
    match, cost = timed([sys.executable, "-m", "bench.lockstep", "--text", text, "--out", out, *numbers, base, *variants], r"^\[.*\]$")
    return json.loads(match[0]), cost.plus(Cost(written=sum(file.stat().st_size for file in out.iterdir())))


def timed(command: Sequence[str | Path], expected: str) -> tuple[re.Match[str], Cost]:
    """What a program printed, and what it used. llama-perplexity may end before its log is written out; it is then run again, and the last run counts."""
    for _ in range(10):
        with tempfile.TemporaryFile() as output, tempfile.NamedTemporaryFile(suffix=".json") as report:
            whole = [sys.executable, "-m", "bench.timer", report.name, *map(str, command)]
            code = subprocess.run(whole, stdout=output, stderr=output, check=False).returncode
            output.seek(0)
            said = output.read().decode(errors="replace")
            if code != 0:
                break
            if match := re.search(expected, said, re.MULTILINE):
                return match, Cost(**json.load(report))
    raise SystemExit(f"{command[0]} ended with {code} and printed nothing like {expected}:\n{said[-2000:]}")
