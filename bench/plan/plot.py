"""Draws KLD against size: one panel for each model and text."""

from collections.abc import Sequence
from pathlib import Path

from bench.plan.contest import Outcome
from bench.plan.report import NAMES

STYLES = {
    "stock": ("stock mix", "#555555", "o"),
    "planned": ("planned", "#f4a582", "d"),
    "rounded": ("planned and rounded", "#c8102e", "D"),
    "error": (NAMES["error"], "#1f77b4", "s"),
    "probes": (NAMES["probes"], "#17becf", "v"),
    "greedy": (NAMES["greedy"], "#2ca02c", "^"),
    "random": (NAMES["random"], "#bbbbbb", "x"),
    "uniform": (NAMES["uniform"], "#9467bd", "v"),
}


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Save the plot; the ending of `path` says in which format."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    models, texts = (list(dict.fromkeys(getattr(item, part) for item in outcomes)) for part in ("model", "text"))
    with mpl.rc_context({"svg.hashsalt": "sluice", "font.size": 8}):
        figure, axes = plt.subplots(len(texts), len(models), figsize=(4 * len(models), 3.2 * len(texts)), squeeze=False, sharey="row")
        for row, text in enumerate(texts):
            for column, model in enumerate(models):
                chosen = sorted((item for item in outcomes if (item.model, item.text) == (model, text)), key=lambda item: item.bytes)
                axis = axes[row][column]
                for way, (label, color, marker) in STYLES.items():
                    points = [(item.bytes / 1e6, value) for item in chosen if (value := value_of(item, way)) is not None]
                    if points:
                        axis.plot(*zip(*points, strict=True), label=label, color=color, marker=marker, markersize=3, linewidth=1)
                axis.set(yscale="log", title=f"{model}, {text} text", xlabel="file size in MB")
                axis.grid(visible=True, which="both", alpha=0.2)
            axes[row][0].set_ylabel("mean KLD in nats")
        axes[0][0].legend(fontsize=7)
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)


def value_of(item: Outcome, way: str) -> float | None:
    """The KLD that one way of choosing came to."""
    return {"stock": item.stock, "planned": item.planned, "rounded": item.rounded, **item.peers}.get(way)
