"""Prints what the contest found: a table for each model and text, the summary with the goals, and Markdown for the README."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from bench.plan.contest import Contest, Outcome
from bench.plan.measure import Used

NAMES = {"error": "relative weighted error", "probes": "our own by probes", "greedy": "greedy by probes", "random": "random", "uniform": "uniform"}
GOAL, WORST, BEHIND, EVALUATIONS = 0.60, 0.90, 1.05, 12


@dataclass(frozen=True, kw_only=True)
class Expense:
    """What one model's planning took, beside one KLD evaluation of the same model by llama-perplexity: the 16-bit pass and one variant's."""

    model: str
    sensitivities: Used
    windows: int
    tokens: int  # of the sensitivity pass
    planning: Used  # of one size, on average
    evaluation: Used
    comparison: Used  # the variant's pass alone

    @property
    def total(self) -> Used:
        """Sensitivities and one plan."""
        return Used(seconds=self.sensitivities.seconds + self.planning.seconds, cpu_seconds=self.sensitivities.cpu_seconds + self.planning.cpu_seconds)


def mean(values: Iterable[float]) -> float:
    """Geometric mean."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def show(console: Console, outcomes: Sequence[Outcome]) -> None:
    """One table for each model and text: KLD of every way at every size, and the ratios."""
    for model, text in dict.fromkeys((item.model, item.text) for item in outcomes):
        chosen = [item for item in outcomes if (item.model, item.text) == (model, text)]
        peers = [peer for peer in NAMES if any(peer in item.peers for item in chosen)]
        title = f"{model}, {text} text: mean KLD in nats at the bytes of each stock mix"
        figures = ("size of", "bytes", "stock", "planned", "predicted", "and rounded", "± (1 s.e.)", *(NAMES[peer] for peer in peers))
        table = Table(*figures, "rounded / stock", "planned / best peer", "same top: stock → rounded", title=title, title_justify="left")
        for item in chosen:
            best = f"{item.planned / item.best[1]:.3f} {NAMES[item.best[0]]}" if item.best else ""
            table.add_row(
                item.size,
                f"{item.bytes:,}",
                _nats(item.stock),
                _nats(item.planned),
                "" if item.predicted is None else _nats(item.predicted),
                _nats(item.rounded),
                _nats(item.rounded_error),
                *(_nats(item.peers[peer]) if peer in item.peers else "" for peer in peers),
                f"{item.ratio:.3f}",
                best,
                f"{100 * item.same_top[0]:.1f} → {100 * item.same_top[1]:.1f} %",
            )
        console.print(table)


def summary(outcomes: Sequence[Outcome]) -> list[str]:
    """Lines that say whether the goals are met."""
    worst = max(outcomes, key=lambda item: item.ratio)
    lines = [
        f"planned and rounded / stock, geometric mean of {len(outcomes)} cases: {mean(item.ratio for item in outcomes):.3f} (goal {GOAL:.2f})",
        f"planned / stock, llama.cpp's own rounding in both: {mean(item.planned / item.stock for item in outcomes):.3f}",
        f"worst case: {worst.ratio:.3f}, {_where(worst)} (goal {WORST:.2f})",
    ]
    for way, name in (("rounded", "planned and rounded"), ("planned", "planned")):
        behind = [(getattr(item, way) / item.best[1], item, item.best[0]) for item in outcomes if item.best]
        if behind:
            ratio, item, peer = max(behind, key=lambda found: found[0])
            count = sum(ratio > BEHIND for ratio, *_ in behind)
            lines.append(f"{name} / best peer of a case, worst: {ratio:.3f}, {NAMES[peer]}, {_where(item)} (goal {BEHIND:.2f})")
            lines.append(f"{name}: worse than the best peer by more than 5 % in {count} of {len(behind)} cases")
    for peer, name in NAMES.items():
        if ratios := [item.planned / item.peers[peer] for item in outcomes if peer in item.peers]:
            lines.append(f"planned / {name}, geometric mean of {len(ratios)} cases: {mean(ratios):.3f}, worst {max(ratios):.3f}")
    if known := [item for item in outcomes if item.predicted is not None]:
        factors = [item.planned / item.predicted for item in known if item.predicted]
        spread = math.exp(math.sqrt(sum(math.log(factor) ** 2 for factor in factors) / len(factors)))
        lines.append(f"measured / predicted, geometric mean of {len(factors)} cases: {mean(factors):.3f}, typical factor off {spread:.2f}")
    gaps = [(abs(share), item, way) for item in outcomes for way, share in item.off.items()]
    gap, item, way = max(gaps, key=lambda found: found[0])
    lines.append(f"largest difference of a file's bytes from the stock file's: {100 * gap:.2f} % ({NAMES.get(way, way)}, {_where(item)})")
    return lines


def costs(expenses: Sequence[Expense], contests: Sequence[tuple[str, Contest]]) -> list[str]:
    """Lines that compare planning with evaluations."""
    lines = []
    for item in expenses:
        whole, evaluation = item.total, item.evaluation
        lines.append(
            f"{item.model}: sensitivities {item.sensitivities.seconds:.1f} s ({item.sensitivities.cpu_seconds:.1f} s CPU; {item.windows} windows, "
            f"{item.tokens} tokens), one plan {item.planning.seconds:.2f} s; one KLD evaluation by llama-perplexity {evaluation.seconds:.1f} s "
            f"({evaluation.cpu_seconds:.1f} s CPU), the variant's part {item.comparison.seconds:.1f} s: planning costs "
            f"{whole.seconds / evaluation.seconds:.1f} evaluations ({whole.cpu_seconds / evaluation.cpu_seconds:.1f} by CPU time; goal < {EVALUATIONS})"
        )
    for model, contest in contests:
        if contest.probes:
            lines.append(f"{model}: greedy took {contest.probes} probes, {contest.probing:.0f} s; weighted errors took {contest.weighing:.0f} s")
    return lines


def markdown(outcomes: Sequence[Outcome], *, detailed: str) -> str:
    """Two tables: geometric means of planned over each way by model and text, and every size of the model `detailed`."""
    peers = [peer for peer in NAMES if any(peer in item.peers for item in outcomes)]
    lines = [
        f"| model, text | planned and rounded / stock | worst | planned / stock | {' | '.join(f'planned / {NAMES[peer]}' for peer in peers)} |",
        f"|---|---|---|---|{'---|' * len(peers)}",
    ]
    for pair in [*dict.fromkeys((item.model, item.text) for item in outcomes), None]:
        chosen = [item for item in outcomes if pair in (None, (item.model, item.text))]
        ratios = [[item.planned / item.peers[peer] for item in chosen if peer in item.peers] for peer in peers]
        cells = [f"{mean(found):.2f}" if found else "" for found in ratios]
        name = "all" if pair is None else f"{pair[0]}, {pair[1]}"
        alone = mean(item.planned / item.stock for item in chosen)
        both, worst = mean(item.ratio for item in chosen), max(item.ratio for item in chosen)
        lines.append(f"| {name} | **{both:.2f}** | {worst:.2f} | {alone:.2f} | {' | '.join(cells)} |")
    chosen = [item for item in outcomes if item.model == detailed]
    for text in dict.fromkeys(item.text for item in chosen):
        lines += ["", f"{detailed}, {text} text:", ""]
        lines.append(f"| size of | bytes | stock | predicted | planned | and rounded | ratio | {' | '.join(NAMES[peer] for peer in peers)} |")
        lines.append(f"|---|---|---|---|---|---|---|{'---|' * len(peers)}")
        for item in chosen:
            if item.text == text:
                others = [_nats(item.peers[peer]) if peer in item.peers else "" for peer in peers]
                predicted = "" if item.predicted is None else _nats(item.predicted)
                figures = [_nats(item.stock), predicted, _nats(item.planned), _nats(item.rounded), f"**{item.ratio:.2f}**"]
                cells = [item.size, f"{item.bytes:,}", *figures, *others]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _where(item: Outcome) -> str:
    return f"{item.model} at {item.size}, {item.text} text"


def _nats(value: float) -> str:
    """Three figures, or five decimals where that is more."""
    return f"{value:.{max(3, min(6, 2 - math.floor(math.log10(value))))}f}" if value > 0 else f"{value:.5f}"
