"""The plot of divergence against size as SVG in the classes of the page's style, so that it fits light and dark and needs no style of its own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from config.words import Kind
from publishers.shown import unit_of
from service.runs.summary import VariantSummary
from service.store import VariantRecord

WIDTH, HEIGHT = 760, 380  # units of the picture
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 18, 46
FLOOR = HEIGHT - BOTTOM
LETTER, LINE = 6.7, 15  # of a label: width of a letter, height
_PLACES = ((9, 4), (9, -8), (9, 16), (-9, 4), (-9, -8), (-9, 16), (0, -12), (0, 24), (14, -20), (14, 28), (-14, -20), (-14, 28))


@dataclass(frozen=True, kw_only=True)
class Point:
    """A variant in the plot."""

    tag: str
    kind: str  # its class: "planned", "stock" or "other"
    blocked: bool
    size: float  # in the unit of the axis
    mean: float  # nats per token
    stderr: float
    x: float = 0.0
    y: float = 0.0


def size_plot(variants: Sequence[VariantSummary], records: Sequence[VariantRecord]) -> Markup | None:
    """One point for each variant that has a size and a divergence above 0; None when there is none."""
    kinds = {record.variant.tag: record.variant.kind for record in records}
    shown = [item for item in variants if item.bytes and item.kld.mean and item.kld.mean > 0]
    if not shown:
        return None
    unit, name = unit_of(max(item.bytes or 0 for item in shown))
    points = [
        Point(
            tag=item.tag,
            kind="planned" if item.plan else "stock" if kinds.get(item.tag) == Kind.GGUF else "other",
            blocked=item.verdict != "passed",
            size=(item.bytes or 0) / unit,
            mean=item.kld.mean or 0.0,
            stderr=item.kld.stderr or 0.0,
        )
        for item in shown
    ]
    return Markup(_drawn(points, name))  # noqa: S704 - every text in it is escaped


def _drawn(points: Sequence[Point], unit: str) -> str:
    low, high = _span([point.size for point in points], 0.08)
    down, up = (math.log10(value) for value in _log_span(points))

    def x(size: float) -> float:
        return LEFT + (size - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(mean: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(mean) - down) / (up - down) * (HEIGHT - TOP - BOTTOM)

    lines = [f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Mean KL divergence against size, one point for each variant">']
    rows, columns = ((value, y(value)) for value in _decades(10**down, 10**up)), ((value, x(value)) for value in _steps(low, high))
    lines += [f'<path class="grid" d="M{LEFT} {at:.1f} H{WIDTH - RIGHT}"/>{_tick(value, "end", LEFT - 8, at + 4)}' for value, at in rows]
    lines += [f'<path class="grid" d="M{at:.1f} {TOP} V{FLOOR}"/>{_tick(value, "mid", at, FLOOR + 18)}' for value, at in columns]
    lines.append(f'<text class="axis mid" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 6}">size of the weights, {unit}</text>')
    lines.append(f'<text class="axis" x="{LEFT}" y="{TOP - 5}">mean KL divergence, nats per token</text>')
    placed = [(point, x(point.size), y(point.mean)) for point in points]
    for point, at_x, at_y in placed:
        lower, upper = y(max(point.mean - point.stderr, 10**down)), y(min(point.mean + point.stderr, 10**up))
        lines.append(_mark(point, at_x, at_y, lower, upper))
    lines += _labels(placed)
    return "\n".join([*lines, "</svg>"])


def _tick(value: float, anchor: str, x: float, y: float) -> str:
    return f'<text class="tick {anchor}" x="{x:.1f}" y="{y:.1f}">{value:g}</text>'


def _mark(point: Point, x: float, y: float, lower: float, upper: float) -> str:
    shapes = {
        "planned": f'<path d="M{x:.1f} {y - 6:.1f} L{x + 6:.1f} {y:.1f} L{x:.1f} {y + 6:.1f} L{x - 6:.1f} {y:.1f} Z"/>',
        "stock": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.6"/>',
        "other": f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9"/>',
    }
    title = f"{point.tag}: {point.size:.4g}, {point.mean:.4g} ± {point.stderr:.2g} nats{', blocked' if point.blocked else ''}"
    error = f'<path class="error" d="M{x:.1f} {lower:.1f} V{upper:.1f}"/>'
    return f'<g class="point {point.kind}{" blocked" if point.blocked else ""}"><title>{escape(title)}</title>{error}{shapes[point.kind]}</g>'


def _labels(placed: Sequence[tuple[Point, float, float]]) -> list[str]:
    """Each tag beside its point, where it covers no other point or tag if there is such a place."""
    taken = [(x - 7, y - 7, x + 7, y + 7) for _, x, y in placed]
    lines = []
    for point, x, y in sorted(placed, key=lambda item: item[2]):
        width = LETTER * len(point.tag)
        best: tuple[float, str, tuple[float, float, float, float]] | None = None
        for rank, (right, below) in enumerate(_PLACES):
            anchor = "start" if right > 0 else "end" if right < 0 else "middle"
            start = x + right - (0 if right > 0 else width if right < 0 else width / 2)
            box = (start, y + below - LINE + 3, start + width, y + below + 3)
            outside = max(0.0, LEFT - box[0]) + max(0.0, box[2] - WIDTH) + max(0.0, TOP - box[1]) + max(0.0, box[3] - HEIGHT + BOTTOM)
            cost = rank + 100 * outside + sum(_shared(box, other) for other in taken)
            if best is None or cost < best[0]:
                best = cost, f'<text class="label {anchor}" x="{x + right:.1f}" y="{y + below:.1f}">{escape(point.tag)}</text>', box
        if best is not None:
            lines.append(best[1])
            taken.append(best[2])
    return lines


def _shared(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    wide, high = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def _span(values: Sequence[float], margin: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = margin * (high - low) or 0.1 * high
    return max(0.0, low - room), high + room


def _log_span(points: Sequence[Point]) -> tuple[float, float]:
    low, high = min(point.mean for point in points), max(point.mean + point.stderr for point in points)
    return low / 1.5, high * 1.5


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade between these."""
    found = [part * 10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for part in (1, 2, 5)]
    return [float(f"{value:.3g}") for value in found if low <= value <= high]


def _steps(low: float, high: float) -> list[float]:
    """About six round numbers between these."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(part * power for part in (1, 2, 5, 10) if part * power >= rough)
    return [float(f"{number * step:.6g}") for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
