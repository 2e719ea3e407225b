"""The plots of what GGUF files are made of: bytes by type in all of them, and the type of every tensor in one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from publishers.report.figures import Block, ReportedVariant
from publishers.report.plots import WIDTH
from publishers.report.svg import PAGE, color, draw
from publishers.shown import unit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Affine2D

ON_TYPE = "#16181d"  # text on a type's colour, which is light in both themes
LINE = 0.34  # inches for a bar


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A piece of a row, in the units of the axis."""

    row: int
    left: float
    width: float
    type: str


def totals_plot(variants: Sequence[ReportedVariant], colors: Mapping[str, str]) -> str | None:
    """Bytes of each GGUF variant, stacked by type in `type_colors`; None when no file was read."""
    shown = [item for item in variants if item.blocks]
    if not shown:
        return None
    unit, name = unit_of(max(item.bytes or 0 for item in shown))

    def paint(figure: "Figure") -> None:
        figure.set_size_inches(WIDTH, 1.0 + LINE * len(shown))
        axes = figure.add_subplot()
        widest = max(sum(block.bytes for block in item.blocks) for item in shown) / unit
        bars = []
        for row, item in enumerate(shown):
            left = 0.0
            for kind, size in _by_type(item.blocks, colors):
                bars.append(Bar(row=row, left=left, width=size / unit, type=kind))
                left += size / unit
        _paint(axes, bars, colors, room=0.05 * widest)
        _legend(axes, bars, colors)
        axes.set_xlim(0, widest)
        _rows(axes, [item.tag for item in shown])
        axes.set_xlabel(f"bytes of tensors, {name}")

    return draw("types", "Bytes of each GGUF variant by type", paint)


def tensor_plot(item: ReportedVariant, name: str, colors: Mapping[str, str]) -> str | None:
    """One GGUF variant: bytes of each role on the left, the type in each layer on the right; None when the file was not read."""
    if not item.blocks:
        return None
    roles = list(dict.fromkeys(block.role for block in sorted(item.blocks, key=lambda block: (block.layer is not None, -block.bytes))))
    sizes = {role: sum(block.bytes for block in item.blocks if block.role == role) for role in roles}
    roles.sort(key=lambda role: -sizes[role])
    layers = 1 + max((block.layer for block in item.blocks if block.layer is not None), default=0)
    unit, shown_unit = unit_of(max(sizes.values()))

    def paint(figure: "Figure") -> None:
        figure.set_size_inches(WIDTH, 1.0 + LINE * len(roles))
        sizes_axes, grid = figure.subplots(1, 2, sharey=True, width_ratios=(3, 5))
        bars, cells = [], []
        for row, role in enumerate(roles):
            blocks = [block for block in item.blocks if block.role == role]
            left = 0.0
            for kind, size in _by_type(blocks, colors):
                bars.append(Bar(row=row, left=left, width=size / unit, type=kind))
                left += size / unit
            cells += [Bar(row=row, left=start, width=end - start, type=kind) for start, end, kind in _runs(blocks, layers)]
        largest = max(sizes.values()) / unit
        _paint(sizes_axes, bars, colors, room=0.16 * largest)
        _paint(grid, cells, colors, room=0.07 * layers)
        _legend(grid, bars, colors)
        sizes_axes.set_xlim(0, largest)
        _rows(sizes_axes, roles)
        sizes_axes.set_xlabel(f"bytes, {shown_unit}")
        grid.set_xlabel("layer; tensors outside of layers take the whole width")
        grid.set_xlim(0, layers)
        step = max(1, round(layers / 12))
        ticks = range(0, layers, step)
        grid.set_xticks([tick + 0.5 for tick in ticks], [str(tick) for tick in ticks])
        grid.grid(visible=False)
        grid.tick_params(length=0)
        grid.spines[:].set_visible(False)

    return draw(name, f"Types of the tensors of {item.tag} by role and layer", paint)


def type_colors(variants: Iterable[ReportedVariant]) -> dict[str, str]:
    """A light colour for each type in the report, the fewest bits first: red to blue, neighbours of different lightness; grey above 17 bits."""
    sums: dict[str, list[int]] = {}
    for block in (block for item in variants for block in item.blocks):
        total = sums.setdefault(block.type, [0, 0])
        total[0] += block.bytes
        total[1] += block.weights
    bits = {kind: 8 * size / max(1, weights) for kind, (size, weights) in sums.items()}
    order = sorted(bits, key=lambda kind: (bits[kind], kind))
    found = {}
    for rank, kind in enumerate(order):
        found[kind] = color(0.87 if rank % 2 else 0.77, 0.0 if bits[kind] > 17 else 0.11, 20 + 260 * rank / max(1, len(order) - 1))
    return found


def _by_type(blocks: Iterable[Block], order: Iterable[str]) -> list[tuple[str, int]]:
    """Bytes of each type that is there, in `order`."""
    found: dict[str, int] = {}
    for block in blocks:
        found[block.type] = found.get(block.type, 0) + block.bytes
    return [(kind, found[kind]) for kind in order if kind in found]


def _runs(blocks: Sequence[Block], layers: int) -> list[tuple[int, int, str]]:
    """First layer, the one after the last, and type, of neighbouring layers with the same type; a layer with several shows that of the most bytes."""
    if any(block.layer is None for block in blocks):
        return [(0, layers, max(blocks, key=lambda block: block.bytes).type)]
    largest: dict[int, Block] = {}
    for block in blocks:
        layer = block.layer or 0
        if layer not in largest or largest[layer].bytes < block.bytes:
            largest[layer] = block
    runs = []
    # neighbours have the same difference between layer and place
    for (_, kind), group in groupby(enumerate(sorted(largest)), key=lambda pair: (pair[1] - pair[0], largest[pair[1]].type)):
        members = [layer for _, layer in group]
        runs.append((members[0], members[-1] + 1, kind))
    return runs


def _paint(axes: "Axes", bars: Sequence[Bar], colors: Mapping[str, str], *, room: float) -> None:
    """The bars, each with its type's name when it is wider than `room`. All bars of a type are one path: a model has a thousand tensors."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    for kind, tint in colors.items():
        rectangles = [Path.unit_rectangle().transformed(_placed(bar)) for bar in bars if bar.type == kind]
        if rectangles:
            axes.add_patch(PathPatch(Path.make_compound_path(*rectangles), facecolor=tint, edgecolor=PAGE, linewidth=0.7, clip_on=False))
    for bar in bars:
        if bar.width > room:
            axes.text(bar.left + bar.width / 2, bar.row, bar.type, ha="center", va="center_baseline", fontsize=10, color=ON_TYPE)


def _legend(axes: "Axes", bars: Sequence[Bar], colors: Mapping[str, str]) -> None:
    """The colours of the types that are there, to the right of the axes: short bars have no name on them."""
    from matplotlib.patches import Patch

    there = {bar.type for bar in bars}
    axes.legend(handles=[Patch(color=tint, label=kind) for kind, tint in colors.items() if kind in there], loc="center left", bbox_to_anchor=(1.0, 0.5))


def _placed(bar: Bar) -> "Affine2D":
    from matplotlib.transforms import Affine2D

    return Affine2D().scale(bar.width, 0.84).translate(bar.left, bar.row - 0.42)


def _rows(axes: "Axes", names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines[:].set_visible(False)
