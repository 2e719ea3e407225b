"""Draws predicted KL divergence against size: planned mixes as a line, stock mixes as points."""

from collections.abc import Sequence
from pathlib import Path

from builders.plan.curve import Point


def draw(path: Path, planned: Sequence[Point], stock: Sequence[Point], *, title: str) -> None:
    """Write the drawing to `path`, in the form that its extension says; the divergence is on a logarithmic axis, with one standard error around the line."""
    import matplotlib as mpl  # takes a second to import
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "sluice"  # equal curves give equal files
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    shown = [point for point in planned if point.mean > 0]
    bits, means = [point.bpw for point in shown], [point.mean for point in shown]
    low = [max(point.mean - point.stderr, point.mean / 10) for point in shown]
    axes.fill_between(bits, low, [point.mean + point.stderr for point in shown], alpha=0.2, linewidth=0)
    axes.plot(bits, means, marker=".", label="planned mixes")
    above = [point for point in stock if point.mean > 0]
    axes.scatter([point.bpw for point in above], [point.mean for point in above], color="tab:red", marker="x", label="llama.cpp's stock mixes")
    for position, point in enumerate(sorted(above, key=lambda point: (point.bpw, point.mean))):
        side, offset = (("left", 4), ("right", -4))[position % 2]  # neighbours in size would write over one another
        axes.annotate(point.name, (point.bpw, point.mean), xytext=(offset, 3), textcoords="offset points", ha=side, fontsize=7)
    axes.set(yscale="log", xlabel="bits per weight", ylabel="predicted KLD to the 16-bit model, nats per token", title=title)
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend()
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
