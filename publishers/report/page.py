"""Write a run's report: a stage, so that the page is made once, kept with the run, and the same for the same findings.

Every string may be a stranger's (a reason quotes upstream text): Jinja2 escapes all that is not a plot of ours.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from config.words import GateResult, Kind, Measurement, Outcome, Patch, Waiver
from publishers import grades, shown
from publishers.naming import PLOT, PLOT_SVG, REPORT
from publishers.report import plots, tensors
from publishers.report.figures import Block, Report, ReportedVariant, read

VERSION = 5  # raise when outputs change

QUANTILES = (("median", "kld.median"), ("90 %", "kld.p90"), ("99 %", "kld.p99"), ("99.9 %", "kld.p999"), ("largest", "kld.max"))
EXCERPT = 300  # characters of a patched value that are shown


def write(out: Path, *, contents: Sequence[Path], figures: dict[str, Any]) -> dict[str, Any]:
    """Write the page from `Report.as_json` and, where there are files to describe, what `builders.contents` wrote about them; and the cards' plot, if any."""
    found = read(figures)
    rows: dict[str, Any] = {name: listed for path in contents for name, listed in json.loads(path.read_text(encoding="utf-8")).items()}
    variants = tuple(replace(item, blocks=_blocks(rows.get(item.file or ""))) for item in found.variants)
    (out / REPORT).write_text(render(replace(found, variants=variants)), encoding="utf-8")
    if (drawn := plots.size_pictures(variants, found.compared)) is not None:
        for name, content in zip((PLOT_SVG, PLOT), drawn, strict=True):
            (out / name).write_bytes(content)
    return {"file": REPORT}


def _blocks(rows: Sequence[Sequence[Any]] | None) -> tuple[Block, ...]:
    return tuple(Block(layer=layer, role=role, type=kind, bytes=size, weights=weights) for layer, role, kind, size, weights in rows or ())


def render(report: Report) -> str:
    """The page as HTML; equal reports give equal text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parents[1] / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"size": shown.size, "nats": shown.nats, "share": shown.share, "figure": _figure, "excerpts": _excerpts}
    environment.filters |= {"listed": shown.listed, "tensors": shown.tensors}
    variants = report.variants
    colors = tensors.type_colors(variants)
    context = {
        "report": report,
        "quantiles": QUANTILES,
        "asked": any("mmlu.accuracy" in item.measured for item in variants),
        "counts": _counts(variants),
        "waivers": _waivers(variants),
        "plans": [_plan(item) for item in variants if item.planned],
        "results": _results,
        "outdone": _outdone(variants),
        "size_plot": _svg(plots.size_plot(variants, report.compared)),
        "unplotted": [item.tag for item in variants if item.bytes and not plots.mean_of(item) > 0],
        "position_plot": _svg(plots.position_plot(variants)),
        "totals_plot": _svg(tensors.totals_plot(variants, colors)),
        "tensor_plots": {item.tag: _svg(tensors.tensor_plot(item, f"tensors-{number}", colors)) for number, item in enumerate(variants)},
    }
    return environment.get_template("report.html.j2").render(context)


def _svg(drawn: str | None) -> Markup | None:
    return None if drawn is None else Markup(drawn)  # noqa: S704 - our own drawing, in which matplotlib escaped all text


def _counts(variants: Sequence[ReportedVariant]) -> dict[str, int]:
    """How many variants came out how."""
    found: dict[str, int] = {}
    for item in variants:
        outcome = "not judged" if item.verdict is None else {"passed": "passed"}.get(item.verdict.outcome.value, "blocked")
        found[outcome] = found.get(outcome, 0) + 1
    return dict(sorted(found.items(), reverse=True))


def _waivers(variants: Sequence[ReportedVariant]) -> list[Waiver]:
    return [waiver for item in variants if item.verdict is not None for waiver in item.verdict.waivers]


def _outdone(variants: Sequence[ReportedVariant]) -> list[tuple[str, list[str]]]:
    """Published GGUF files with those that they outdo, as the card tells them."""
    standing = [
        grades.Standing(tag=item.tag, bytes=item.bytes, measurements=item.measured, waivers=item.verdict.waivers)
        for item in variants
        if item.kind == Kind.GGUF and item.bytes and item.verdict is not None and item.verdict.outcome is Outcome.PASSED
    ]
    return grades.outdone(standing)


class GateLine(NamedTuple):
    """A gate's result and what it was applied to."""

    result: GateResult
    measurement: Measurement | None


def _results(item: ReportedVariant) -> list[GateLine]:
    """The variant's gates, those that blocked first."""
    results = () if item.verdict is None else item.verdict.results
    return [GateLine(result, item.measured.get(result.measure)) for result in sorted(results, key=lambda result: result.outcome.value == "passed")]


class PlanLine(NamedTuple):
    """Predicted and measured divergence of a planned variant."""

    tag: str
    predicted: Measurement
    measured: Measurement | None
    ratio: float | None  # measured / predicted
    error: Measurement | None
    remarks: tuple[str, ...]


def _plan(item: ReportedVariant) -> PlanLine:
    predicted, found = item.measured["plan.predicted"], item.measured.get("kld.mean")
    ratio = found.value / predicted.value if found is not None and predicted.value > 0 else None
    return PlanLine(item.tag, predicted, found, ratio, item.measured.get("plan.error"), item.remarks)


def _figure(value: float | None, measurement: Measurement | None) -> str:
    """A number in its measurement's unit: shares in per cent, counts whole, the rest with four significant digits."""
    if value is None:
        return "—"
    unit = measurement.unit if measurement is not None else ""
    if unit == "share":
        return f"{100 * value:.4g} %"
    number = f"{value:,.0f}" if unit == "count" else f"{value:.4g}"
    return number if unit in {"", "count", "ratio"} else f"{number} {unit}"


def _excerpts(patch: Patch) -> tuple[str, str]:
    """What a patch found and left, shortened around the place where the two part."""
    return shown.excerpts(patch.before, patch.after, EXCERPT)
