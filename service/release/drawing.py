"""Draws a graph of stages as SVG: one box for stages that differ only in their variant, phase by phase from left to right."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from service.release.graph import Graph, Phase, Stage

WIDTH, HEIGHT, GAP, LANE = 148, 34, 14, 44  # pixels: a box, between two of a column, between two columns
TOP, MARGIN = 46, 12
COLUMN = 8  # boxes of a phase in one column, before another begins

_STYLE = """
  .way { font: 11px system-ui, sans-serif; background: #fff }
  .way text { fill: #1f2933 } .way .phase { font-weight: 600; fill: #52606d } .way .count { fill: #52606d }
  .way rect { fill: #f0f4f8; stroke: #829ab1 } .way .gated rect { fill: #fff3c4; stroke: #cb6e17 } .way .publish rect { fill: #e3f9e5; stroke: #2f8132 }
  .way path { fill: none; stroke: #829ab1 } .way .far { stroke: #d9e2ec }
  @media (prefers-color-scheme: dark) {
    .way { background: #102a43 } .way text, .way .phase, .way .count { fill: #f0f4f8 } .way rect { fill: #243b53; stroke: #829ab1 }
    .way .gated rect { fill: #513c06 } .way .publish rect { fill: #0f3f14 } .way path { stroke: #829ab1 } .way .far { stroke: #334e68 }
  }
"""  # under a class, for it may stand in a page with others


@dataclass(frozen=True, kw_only=True)
class Box:
    """Stages that differ only in their variant."""

    name: str
    stages: Sequence[Stage]
    takes: frozenset[str]  # names of boxes

    @property
    def title(self) -> str:
        """What a pointer shows: what it does, and for which variants."""
        variants = ", ".join(stage.variant for stage in self.stages if stage.variant)
        return f"{self.stages[0].does}{f' ({variants})' if variants else ''}"

    @property
    def label(self) -> str:
        """What is written on it: the name of a single stage, else what the names have in common."""
        alike = os.path.commonprefix([stage.variant for stage in self.stages])  # noqa: RUF071  letters are meant
        return self.stages[0].name if len(self.stages) == 1 else f"{self.stages[0].family} {f'{alike}…' if alike else ''}".rstrip()


def boxes(graph: Graph) -> list[Box]:
    """The graph with stages that do the same for several variants taken together; a box takes nothing that one of those it takes has taken already."""
    alike: dict[str, list[Stage]] = {}
    for stage in graph.stages:
        alike.setdefault(stage.like, []).append(stage)
    groups = {stages[0].name: stages for stages in alike.values()}
    of = {stage.name: name for name, stages in groups.items() for stage in stages}
    waits: dict[str, set[str]] = {}  # of each stage, all that comes before it
    for stage in graph.stages:
        waits[stage.name] = set(stage.awaited).union(*(waits[other] for other in stage.awaited))
    before = {name: {of[other] for stage in stages for other in waits[stage.name]} - {name} for name, stages in groups.items()}
    takes = {name: {of[other] for stage in stages for other in stage.awaited} - {name} for name, stages in groups.items()}
    return [
        Box(name=name, stages=stages, takes=frozenset(taken for taken in takes[name] if not any(taken in before[other] for other in takes[name] - {taken})))
        for name, stages in groups.items()
    ]


def draw(graph: Graph, marks: Mapping[str, str] | None = None) -> str:
    """The picture, as a document of its own that needs no script; with `marks`, the state of each box by its name, for a page that brings the style along."""
    found = boxes(graph)
    places, edge = _places(found)
    bottom = max(y for _, y in places.values()) + HEIGHT + MARGIN
    size = f'width="{edge}" height="{bottom}" viewBox="0 0 {edge} {bottom}"'
    lines = [f'<svg class="way" xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="The stages of a release">']
    lines += [f"<style>{_STYLE}</style>"] if marks is None else []
    columns = {phase: min(places[box.name][0] for box in found if box.stages[0].phase is phase) for phase in {box.stages[0].phase for box in found}}
    lines += [f'<text class="phase" x="{x}" y="{TOP - 18}">{phase.name.lower()}</text>' for phase, x in sorted(columns.items())]
    arrows = [_arrow(places[name], places[box.name]) for box in found for name in sorted(box.takes)]
    lines += sorted(arrows, key=lambda arrow: "far" not in arrow)
    lines += [_box(box, *places[box.name], mark=(marks or {}).get(box.name, "")) for box in found]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _places(found: Sequence[Box]) -> tuple[Mapping[str, tuple[int, int]], int]:
    """Where each box's upper left corner is, and how wide all is."""
    places: dict[str, tuple[int, int]] = {}
    x = MARGIN
    for phase in Phase:
        inside = [box for box in found if box.stages[0].phase is phase]
        for start in range(0, len(inside), COLUMN):
            for row, box in enumerate(inside[start : start + COLUMN]):
                places[box.name] = (x, TOP + row * (HEIGHT + GAP))
            x += WIDTH + LANE
    return places, x - LANE + MARGIN


def _box(box: Box, x: int, y: int, *, mark: str) -> str:
    first = box.stages[0]
    kind = "gated" if first.gated else "publish" if first.phase is Phase.PUBLISH else "plain"
    count = f' <tspan class="count">× {len(box.stages)}</tspan>' if len(box.stages) > 1 else ""
    title = f"{box.title}: {mark}" if mark else box.title
    return (
        f'<g class="{kind}{f" {mark}" if mark else ""}" aria-label={quoteattr(title)}><title>{escape(title)}</title>'
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5"/>'
        f'<text x="{x + 10}" y="{y + HEIGHT // 2 + 4}">{escape(box.label)}{count}</text></g>'
    )


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    (x0, y0), (x1, y1) = start, end
    if x0 == x1:  # in one column: from below to above, or around what lies between
        if y1 - y0 == HEIGHT + GAP:
            return f'<path d="M{x0 + WIDTH // 2} {y0 + HEIGHT} V{y1}"/>'
        side = x0 + WIDTH
        return f'<path d="M{side} {y0 + HEIGHT // 2} C{side + LANE // 2} {y0 + HEIGHT // 2} {side + LANE // 2} {y1 + HEIGHT // 2} {side} {y1 + HEIGHT // 2}"/>'
    left, right = x0 + WIDTH, x1
    middle, far = (left + right) // 2, ' class="far"' if right - left > LANE else ""  # it goes behind the boxes of a column between
    return f'<path{far} d="M{left} {y0 + HEIGHT // 2} C{middle} {y0 + HEIGHT // 2} {middle} {y1 + HEIGHT // 2} {right} {y1 + HEIGHT // 2}"/>'
