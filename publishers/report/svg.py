"""Matplotlib figures as SVG that stands inside a page, in the page's colours, so that light and dark both fit; or as files of their own. Equal figures give
equal bytes.
"""

import io
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# stand-ins that become the page's CSS variables
INK, MUTED, GRID, BAD, PAGE, STOCK, PLANNED = (f"#0{number}0{number}0{number}" for number in range(1, 8))
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", BAD: "bad", PAGE: "page", STOCK: "stock", PLANNED: "planned"}


@dataclass(frozen=True, kw_only=True)
class Colors:
    """What a figure is painted with."""

    ink: str
    muted: str
    grid: str
    bad: str
    page: str
    stock: str
    planned: str


PAGES = Colors(ink=INK, muted=MUTED, grid=GRID, bad=BAD, page=PAGE, stock=STOCK, planned=PLANNED)
# those of a light page in report.css
PRINTED = Colors(ink="#1b1f24", muted="#5d6672", grid="#e3e7ec", bad="#c62828", page="#ffffff", stock="#2f6bce", planned="#a04ec2")

DPI = 72  # so that a point of a figure is a unit of its SVG
PIXELS = 3  # of a printed figure to each of its units: sharp on every screen


def _style(colors: Colors) -> Any:  # matplotlib types it by every setting's name
    """The settings of all figures."""
    return {
        "svg.fonttype": "none",  # text stays text: small, sharp, to be searched and copied
        "text.parse_math": False,  # a name is a name
        "font.family": ["DejaVu Sans"],  # comes with matplotlib, so that all machines lay out alike
        "font.size": 12,
        "figure.dpi": DPI,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "axes.edgecolor": colors.muted,
        "axes.labelcolor": colors.ink,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": colors.grid,
        "grid.linewidth": 0.8,
        "text.color": colors.ink,
        "xtick.color": colors.muted,
        "ytick.color": colors.muted,
        "xtick.labelcolor": colors.ink,
        "ytick.labelcolor": colors.ink,
        "legend.frameon": False,
    }


_ANONYMOUS: Any = {"Date": None, "Creator": None, "Format": None, "Type": None}  # of an SVG file
_FONT = re.compile(r"'DejaVu Sans'(?:, [^;\"]*)?")
_COORDINATES = re.compile(r' (?:d|x|y|transform|points)="[^"]*"')
_LONG = re.compile(r"(\.\d\d)\d+")


def draw(name: str, title: str, paint: Callable[["Figure"], None]) -> str:
    """What `paint` puts on an empty figure, as one `<svg>` element; `name` is unique in the page, `title` is read out in place of the plot.

    `paint` makes axes, and may set the figure's size in inches. No global state of matplotlib is left changed.
    """
    with _painted(name, paint, PAGES) as figure:
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata=_ANONYMOUS)
    return _inline(stream.getvalue(), name, title)


def pictures(name: str, paint: Callable[["Figure"], None]) -> tuple[bytes, bytes]:
    """What `paint` puts on an empty figure in the colours PRINTED, on white, as the content of an SVG file and of a PNG file."""
    with _painted(name, paint, PRINTED) as figure:
        figure.set_facecolor(PRINTED.page)
        drawn, pixels = io.StringIO(), io.BytesIO()
        figure.savefig(drawn, format="svg", metadata=_ANONYMOUS)
        figure.savefig(pixels, format="png", dpi=PIXELS * DPI, metadata={"Software": None})
    shortened = _COORDINATES.sub(lambda found: _LONG.sub(r"\1", found[0]), drawn.getvalue())
    return _FONT.sub("system-ui, sans-serif", shortened).encode(), pixels.getvalue()


@contextmanager
def _painted(name: str, paint: Callable[["Figure"], None], colors: Colors) -> Iterator["Figure"]:
    """The painted figure, while the settings that it was painted with hold."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context({**_style(colors), "svg.hashsalt": name}):
        figure = Figure(layout="constrained")
        FigureCanvasAgg(figure)  # measures text while `paint` looks for room
        paint(figure)
        yield figure


def _inline(document: str, name: str, title: str) -> str:
    from markupsafe import escape

    body = document[document.index("<svg") : document.rindex("</svg>") + len("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # named for editors; the same names stand in every figure
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body)
    if box is None:
        raise ValueError(f"the figure {name} has no size")
    opening = f'<svg viewBox="0 0 {box[1]} {box[2]}" role="img" aria-label="{escape(title)}" style="max-width: {float(box[1]):.0f}px">'
    body = opening + body[body.index(">") + 1 :]
    body = _FONT.sub("system-ui, sans-serif", _COORDINATES.sub(lambda found: _LONG.sub(r"\1", found[0]), body))
    for color, variable in _VARIABLES.items():
        body = body.replace(color, f"var(--{variable})")
    return re.sub(r"\n\s*", "\n", body)


def color(lightness: float, chroma: float, hue: float) -> str:
    """An sRGB colour as #rrggbb, from OKLCH (lightness 0 … 1, hue in degrees), where equal lightness looks equally light (Ottosson 2020)."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    encoded = (12.92 * max(part, 0) if part <= 0.0031308 else 1.055 * part ** (1 / 2.4) - 0.055 for part in linear)
    return "#" + "".join(f"{round(255 * min(part, 1)):02x}" for part in encoded)
