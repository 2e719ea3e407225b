"""KL divergence of eight variants of one model: ours, in lockstep and without a file, against llama-perplexity, with its file of base logits.

Same GGUF files, same text, same windows, same number of threads; each way runs once after the other, every program of it as a process of its own, and its
wall time, CPU time, peak memory and written bytes are taken of whole processes, so that starting, loading and tokenizing count in both. The models are the
bundled one and a randomly initialised one of 67M parameters with a vocabulary of 32,000 tokens, whose tokenizer is the bundled one filled up with tokens that
never occur: what is measured is the same work as for a trained model, but its divergences say nothing about quantization.

Where the time goes is printed as well: what llama-perplexity writes in its log of loading and evaluating, and the same of ours. Wall time and threads that wait
for each other depend on what else the machine does, so the CPU time of each way on one thread is given too: there nothing waits.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
PHASES = ("loading", "evaluation", "scoring")
TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What processes used, one after the other."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0  # of the largest
    written: int = 0  # bytes
    phases: Mapping[str, float] = field(default_factory=dict)  # wall seconds of each of PHASES

    def plus(self, other: "Cost") -> "Cost":
        """Both, one after the other."""
        return Cost(
            seconds=self.seconds + other.seconds,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            peak_bytes=max(self.peak_bytes, other.peak_bytes),
            written=self.written + other.written,
            phases={phase: self.phases.get(phase, 0.0) + other.phases.get(phase, 0.0) for phase in PHASES},
        )


def main() -> None:
    """Build the models and their variants, measure them both ways, print a table for each."""
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name:
        folder = Path(name)
        fixed, random = folder / "tiny-chat", folder / "random-67M"
        fixed.mkdir()
        fixes.repair(fixed, snapshot=DEMO / "model", repo="upstream/tiny-chat", fixes=True)
        make_random(random, tokenizer=fixed)
        text = folder / "text.txt"
        text.write_text(spoken(), encoding="utf-8")
        for model, windows in ((fixed, ALL), (random, 16)):
            measure_both(model, text, windows)


def spoken() -> str:
    """The held-out text as llama-perplexity can read it, which parses no special tokens: what is said in the conversations, then the plain text."""
    lines = (DEMO / "data" / "evaluation.jsonl").read_text(encoding="utf-8").splitlines()
    said = "".join(message["content"] + "\n" for line in lines for message in json.loads(line)["messages"])
    return said + (DEMO / "data" / "evaluation_questions.txt").read_text(encoding="utf-8")


def measure_both(model: Path, text: Path, windows: int) -> None:
    """Measure both ways on all threads, and on one; print a table and the ratios of costs for the first, and CPU times for the second."""
    base, variants = quantized(model)
    theirs, their_cost = with_llama_perplexity(base, variants, text, windows, THREADS)
    ours, our_cost = in_lockstep(base, variants, text, windows, THREADS)
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
    alone = [way(base, variants, text, windows, 1)[1] for way in (with_llama_perplexity, in_lockstep)]
    console.print(profile(model.name, {f"{THREADS} threads": (their_cost, our_cost), "1 thread": (alone[0], alone[1])}))
    one, other = (cost.cpu_seconds for cost in alone)
    console.print(f"CPU time on one thread: llama-perplexity {one:.2f} s, Sluice {other:.2f} s, ratio {other / one:.2f}")


def profile(name: str, costs: Mapping[str, tuple[Cost, Cost]]) -> Table:
    """Where the wall time goes, by number of threads: seconds, and shares of llama-perplexity's whole time, so that the columns can be compared.

    "the rest" is starting programs, tokenizing, statistics, and with several threads also waiting. Theirs writes and reads the base file while it scores.
    """
    title = f"{name}: where the wall time goes, in seconds (share of llama-perplexity's time)"
    table = Table("part", *(f"{way}\n{threads}" for threads in costs for way in ("llama-perplexity", "Sluice")), title=title, title_justify="left")
    for part in (*PHASES, "the rest", "all"):
        cells = []
        for pair in costs.values():
            for cost in pair:
                known = {**cost.phases, "the rest": cost.seconds - sum(cost.phases.values()), "all": cost.seconds}
                cells.append(f"{known[part]:.2f} ({known[part] / pair[0].seconds:.0%})")
        table.add_row(part, *cells)
    return table


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
    model.to(torch.bfloat16).save_pretrained(folder)  # type: ignore[arg-type] # as the library's own examples do
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


def with_llama_perplexity(base: Path, variants: Sequence[Path], text: Path, windows: int, threads: int) -> tuple[list[float], Cost]:
    """Mean KLD of each variant, and the cost of the base file and of each comparison with it."""
    logits = base.with_name("base.kld")
    common = ("-c", str(CONTEXT), "-t", str(threads), "-ngl", "0", "--no-warmup", "-lv", "4", "--kl-divergence-base", str(logits))
    program = toolchain.tool("llama-perplexity")
    chunks = () if windows == ALL else ("--chunks", str(windows))
    first = r"([0-9.]+) seconds per pass[\s\S]*"
    clocks = r"[\s\S]*load time =\s+([0-9.]+) ms[\s\S]*prompt eval time =\s+([0-9.]+) ms[\s\S]*total time =\s+([0-9.]+) ms"
    match, cost = timed([program, "-m", base, "-f", text, *chunks, *common], first + "Final estimate()" + clocks)
    cost = with_phases(cost, match)
    means = []
    for variant in variants:
        match, more = timed([program, "-m", variant, "--kl-divergence", *common], first + r"Mean\s+KLD:\s+(-?[0-9.]+)" + clocks)
        means.append(float(match[2]))
        cost = cost.plus(with_phases(more, match))
    return means, cost.plus(Cost(written=logits.stat().st_size))


def with_phases(cost: Cost, log: re.Match[str]) -> Cost:
    """A program's cost with what its log says of its parts. Its clock starts when the model is read; what is neither loading nor evaluating is scoring.

    llama.cpp's clock of evaluation leaves out the first batch, of several windows; that is what the "pass" took which the log tells apart.
    """
    first, loading, evaluation, total = float(log[1]), *(float(log[group]) / 1000 for group in (3, 4, 5))
    evaluation += first
    return replace(cost, phases={"loading": loading, "evaluation": evaluation, "scoring": total - loading - evaluation})


def in_lockstep(base: Path, variants: Sequence[Path], text: Path, windows: int, threads: int) -> tuple[list[float], Cost]:
    """The same, ours."""
    out = base.with_name(f"lockstep-{threads}")
    out.mkdir()
    numbers = ("--context", str(CONTEXT), "--threads", str(threads), "--windows", str(windows))
    match, cost = timed([sys.executable, "-m", "bench.lockstep", "--text", text, "--out", out, *numbers, base, *variants], r"^(\[.*\])\n(\{.*\})$")
    written = sum(file.stat().st_size for file in out.iterdir())
    return json.loads(match[1]), replace(cost, phases=json.loads(match[2]), written=written)


def timed(command: Sequence[str | Path], expected: str) -> tuple[re.Match[str], Cost]:
    """What a program printed, and what it used. llama-perplexity may end before its log is written out; it is then run again, and the last run counts."""
    code, said = 0, ""
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
