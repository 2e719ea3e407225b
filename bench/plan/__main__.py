"""`make bench-plan`: chooses types in every way, builds and measures the files, prints tables, ratios and costs, and saves a plot.

What was done is kept under --work, so that a run that was interrupted goes on where it ended; other options make other measurements, which are kept beside.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench import divergence
from bench.plan import contest, model, plot, report
from bench.plan.measure import Case, Log, Used, build

EVALUATED = "Q4_K_M"  # the variant whose evaluation by llama-perplexity is timed


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    given.work.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False, width=None if os.isatty(1) else 240)
    settings = model.Settings(
        context=given.context,
        tokens=given.tokens,
        calibration_tokens=given.calibration_tokens,
        other=given.other,
        threads=len(os.sched_getaffinity(0)),
        drawn=given.drawn,
    )
    log = Log(given.work / "measurements.jsonl")
    contests, expenses = [], []
    for name in given.models:
        prepared = model.prepare(name, given.work, settings)
        found = contest.contend(prepared, given.sizes, given.peers, log)
        report.show(console, found.outcomes)
        contests.append((name, found))
        expenses.append(expense(prepared, found))
    outcomes = [item for _, found in contests for item in found.outcomes]
    for line in [*report.summary(outcomes), *report.costs(expenses, contests)]:
        console.print(line)
    plot.draw(outcomes, given.plot)
    console.print(f"plot: {given.plot}")
    if given.markdown:
        given.markdown.write_text(report.markdown(outcomes, detailed=given.models[0]), encoding="utf-8")
        console.print(f"Markdown: {given.markdown}")


def expense(prepared: model.Prepared, found: contest.Contest) -> report.Expense:
    """What planning took, and what one evaluation of the same model takes; the evaluation is timed once and kept."""

    def evaluate(out: Path) -> dict[str, object]:
        text = out / "text.txt"
        text.write_text(divergence.spoken(), encoding="utf-8")
        base = out / "base.gguf"  # llama-perplexity's file of logits is written beside it
        base.symlink_to(prepared.source.gguf.resolve())
        with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
            variant, _ = build(Path(folder), prepared.source, Case(stock=EVALUATED), "variant", threads=prepared.threads)
            _, alone = divergence.with_llama_perplexity(base, [], text, divergence.ALL, divergence.THREADS)
            _, both = divergence.with_llama_perplexity(base, [variant], text, divergence.ALL, divergence.THREADS)
        base.with_name("base.kld").unlink()
        return {"alone": [alone.seconds, alone.cpu_seconds], "both": [both.seconds, both.cpu_seconds]}

    timed = model.once(prepared.folder / "evaluation", evaluate).result
    (alone, alone_cpu), (both, both_cpu) = timed["alone"], timed["both"]
    return report.Expense(
        model=prepared.name,
        sensitivities=prepared.pass_.used,
        windows=int(prepared.pass_.result["windows"]),
        tokens=int(prepared.pass_.result["tokens"]),
        planning=Used(seconds=found.planning.seconds / found.sizes, cpu_seconds=found.planning.cpu_seconds / found.sizes),
        evaluation=Used(seconds=both, cpu_seconds=both_cpu),
        comparison=Used(seconds=max(0.0, both - alone), cpu_seconds=max(0.0, both_cpu - alone_cpu)),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=tuple(model.MODELS), default=list(model.MODELS))
    parser.add_argument("--sizes", nargs="+", choices=contest.SIZES, default=list(contest.SIZES), help="stock mixes whose bytes are filled")
    parser.add_argument("--peers", nargs="*", choices=contest.PEERS, default=list(contest.PEERS))
    parser.add_argument("--tokens", type=int, default=20_000, help="at most, of each evaluation text")
    parser.add_argument("--calibration-tokens", type=int, default=65_536, help="at most, of the sensitivity pass")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--other", type=Path, help="a file of plain text of another kind than the calibration's, to be measured on as well")
    parser.add_argument(
        "--drawn", type=int, default=0, help="so many conversations more in the held-out text, to tell close cases apart; raise --tokens with it"
    )
    parser.add_argument("--work", type=Path, default=Path("build/bench-plan"), help="where results are kept")
    parser.add_argument("--plot", type=Path, default=Path("build/bench-plan.svg"))
    parser.add_argument("--markdown", type=Path, help="write the tables for the README there")
    return parser


if __name__ == "__main__":
    main()
