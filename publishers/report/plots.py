"""The plots of divergence: against size, and along the evaluation window."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from config.words import Kind, Outcome
from publishers.report.figures import ReportedVariant
from publishers.report.svg import INK, PAGES, PRINTED, Colors, color, draw, pictures
from publishers.shown import unit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 15.0  # inches of a figure, at 72 points to the inch
CARD = (7.0, 5.6)  # of one on a card, which telephones show
_PLACES = (
    (8, 0),
    (8, 8),
    (8, -8),
    (0, 12),
    (0, -12),
    (-8, 0),
    (-8, 8),
    (-8, -8),
    (14, 16),
    (14, -16),
    (-14, 16),
    (-14, -16),
    (0, 24),
    (0, -24),
    (20, 28),
    (20, -28),
)


def size_plot(variants: Sequence[ReportedVariant], compared: Sequence[ReportedVariant] = ()) -> str | None:
    """Mean KL divergence with its error against the size of the weights; None when no variant has both. One without divergence has no place on a log axis.

    `compared` are stock variants that were built to compare planned ones with, and are not offered.
    """
    if (paint := _sizes(variants, compared, PAGES, (WIDTH, 6.4))) is None:
        return None
    return draw("size", "Mean KL divergence against size, one point for each variant", paint)


def size_pictures(variants: Sequence[ReportedVariant], compared: Sequence[ReportedVariant] = ()) -> tuple[bytes, bytes] | None:
    """The same as the content of an SVG file and of a PNG file, narrow enough for a telephone; None when no variant has both."""
    if (paint := _sizes(variants, compared, PRINTED, CARD)) is None:
        return None
    return pictures("size", paint)


def _sizes(
    variants: Sequence[ReportedVariant], compared: Sequence[ReportedVariant], colors: Colors, inches: tuple[float, float]
) -> Callable[["Figure"], None] | None:
    """What paints the plot of sizes."""
    if not any(item.bytes and mean_of(item) > 0 for item in variants):
        return None
    shown = [item for item in (*variants, *compared) if item.bytes and mean_of(item) > 0]
    unit, name = unit_of(max(item.bytes or 0 for item in shown))
    styles = [_style(item, colors, offered=item in variants) for item in shown]

    def paint(figure: "Figure") -> None:
        figure.set_size_inches(*inches)
        axes = figure.add_subplot()
        _log_axis(axes)
        points = [((item.bytes or 0) / unit, mean_of(item)) for item in shown]
        for item, (x, y), style in zip(shown, points, styles, strict=True):
            error = item.measured["kld.mean"].stderr or 0.0
            axes.errorbar(x, y, yerr=[[min(error, 0.999 * y)], [error]], fmt=style.marker, color=style.edge, markersize=6.5, markeredgewidth=1.4,
                          markerfacecolor=style.fill, ecolor=style.edge, elinewidth=1.2, capsize=5)  # fmt: skip
        axes.set_xlabel(f"size of the weights, {name}")
        axes.set_ylabel("mean KL divergence, nats per token")
        axes.margins(x=0.08, y=0.1)
        _legend(axes, styles)
        _label(figure, axes, [item.tag for item in shown], points, colors.muted)

    return paint


class _Style(NamedTuple):
    """How a variant is drawn."""

    marker: str
    edge: str
    fill: str
    meaning: str


def _style(item: ReportedVariant, colors: Colors, *, offered: bool) -> _Style:
    """Shape says what the variant is, a red outline without filling that it was blocked, a blue one that it is there for comparison only."""
    marker = "D" if item.planned else "o" if item.kind == Kind.GGUF else "s"
    name = {"D": "planned mix", "o": "stock GGUF", "s": "safetensors"}[marker]
    if not offered:
        return _Style(marker, colors.stock, colors.page, f"{name}, not offered")
    if item.verdict is None or item.verdict.outcome is not Outcome.PASSED:
        return _Style(marker, colors.bad, colors.page, f"{name}, blocked")
    tint = colors.planned if item.planned else colors.stock
    return _Style(marker, tint, tint, name)


def _legend(axes: "Axes", styles: Sequence[_Style]) -> None:
    for style in sorted(set(styles), key=lambda style: style.meaning):
        look: dict[str, Any] = {"marker": style.marker, "color": style.edge, "markerfacecolor": style.fill, "markersize": 6.5, "markeredgewidth": 1.4}
        axes.plot([], [], linestyle="none", label=style.meaning, **look)
    axes.legend(loc="best")  # where it covers the fewest points; in the upper right where it covers none


def _label(figure: "Figure", axes: "Axes", tags: Sequence[str], points: Sequence[tuple[float, float]], muted: str) -> None:
    """Write each point's tag beside it, where it covers no other point or tag if there is such a place."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # places the axes
    figure.set_layout_engine("none")
    at = axes.transData.transform(points)
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in at]
    legend = axes.get_legend()
    if legend is not None:
        box = legend.get_window_extent()
        legend.set_loc(tuple(axes.transAxes.inverted().transform((box.x0, box.y0))))  # it stays there, whatever is written beside points
        taken.append(box)
    frame = axes.get_window_extent()
    for tag, point in zip(tags, points, strict=True):
        best: tuple[float, Any] | None = None
        for rank, (right, up) in enumerate(_PLACES):
            note = axes.annotate(
                tag, point, xytext=(right, up), textcoords="offset points", fontsize=11, ha="left" if right > 0 else "right" if right < 0 else "center",
                va="center", arrowprops={"arrowstyle": "-", "color": muted, "linewidth": 0.6, "shrinkB": 5} if max(abs(right), abs(up)) > 12 else None,
            )  # fmt: skip
            box = note.get_window_extent()
            note.remove()
            overlap = sum(max(0.0, min(box.x1, other.x1) - max(box.x0, other.x0)) * max(0.0, min(box.y1, other.y1) - max(box.y0, other.y0)) for other in taken)
            outside = box.x1 > min(frame.x1 + 40, figure.bbox.x1 - 2) or box.x0 < frame.x0 or box.y0 < frame.y0 or box.y1 > frame.y1
            cost = overlap + (1000.0 if outside else 0.0) + 0.01 * rank
            if best is None or cost < best[0]:
                best = (cost, (note, box))
        if best is not None:
            note, box = best[1]
            axes.add_artist(note)
            taken.append(box)


def position_plot(variants: Sequence[ReportedVariant]) -> str | None:
    """Mean KL divergence along the window, one line for each variant; None when there is no series with more than one part above 0."""
    shown = [item for item in variants if sum(part.mean > 0 for part in item.positions) > 1]
    if not shown:
        return None
    shown.sort(key=mean_of, reverse=True)

    def paint(figure: "Figure") -> None:
        figure.set_size_inches(WIDTH, max(5.6, 1.2 + 0.24 * len(shown)))
        axes = figure.add_subplot()
        _log_axis(axes)
        ends = []
        for rank, item in enumerate(shown):
            parts = [part for part in item.positions if part.mean > 0]
            tint = color(0.64, 0.16, 25 + 245 * rank / max(1, len(shown) - 1))
            middles = [(part.first + part.last) / 2 for part in parts]
            axes.plot(middles, [part.mean for part in parts], color=tint, linewidth=1.6, linestyle="--" if item.planned else "-")
            ends.append((middles[-1], parts[-1].mean, item.tag, tint))
        axes.set_xlabel("position of the token in its window")
        axes.set_ylabel("mean KL divergence, nats per token")
        axes.margins(x=0.01)
        _label_ends(figure, axes, ends)

    return draw("positions", "Mean KL divergence by the token's position in the window, one line for each variant", paint)


def _label_ends(figure: "Figure", axes: "Axes", ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write each line's tag at its right end, moved up or down until no two touch."""
    figure.draw_without_rendering()
    gap = 15.0  # points between two labels
    ordered = sorted(ends, key=lambda end: end[1])
    heights = [float(axes.transData.transform((x, y))[1]) for x, y, _, _ in ordered]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + gap)
    top = float(axes.get_window_extent().y1) + gap  # nothing may grow out of the figure
    if heights:
        heights[-1] = min(heights[-1], top)
    for index in range(len(heights) - 2, -1, -1):
        heights[index] = min(heights[index], heights[index + 1] - gap)
    right = float(axes.get_window_extent().x1)
    for (x, y, tag, tint), height in zip(ordered, heights, strict=True):
        end = axes.transData.transform((x, y))
        axes.annotate(
            tag, (x, y), xytext=(right - float(end[0]) + 14, height - float(end[1])), textcoords="offset points", fontsize=11, va="center", color=INK,
            annotation_clip=False, arrowprops={"arrowstyle": "-", "color": tint, "linewidth": 0.8, "shrinkA": 1, "shrinkB": 0},
        )  # fmt: skip


def _log_axis(axes: "Axes") -> None:
    """A logarithmic y axis with plain numbers at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=30))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.5f}".rstrip("0").rstrip(".") if value >= 1e-5 else f"{value:.0e}"))


def mean_of(item: ReportedVariant) -> float:
    """The variant's mean KL divergence in nats, 0 where it is not known."""
    found = item.measured.get("kld.mean")
    return found.value if found is not None else 0.0
