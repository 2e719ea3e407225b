"""What a report is made from: plain records that the service fills in and hands over as JSON."""

from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from config.words import Measurement, Patch, Release, Verdict


@dataclass(frozen=True, kw_only=True)
class Position:
    """Mean KL divergence over neighbouring positions of the evaluation windows."""

    first: int  # position in the window, counted from 0
    last: int  # included
    mean: float  # nats
    stderr: float | None
    n: int  # scored tokens


@dataclass(frozen=True, kw_only=True)
class Block:
    """The tensors of one role in one layer of a GGUF file."""

    layer: int | None  # None outside of layers
    role: str
    type: str  # of ggml
    bytes: int
    weights: int


@dataclass(frozen=True, kw_only=True)
class ReportedVariant:
    """One variant: what it is, what was measured, how its gates came out."""

    tag: str
    kind: str
    file: str | None  # None when it was never built
    bytes: int | None  # of all its weights
    bpw: float | None  # bits per weight
    measurements: tuple[Measurement, ...]
    verdict: Verdict | None
    positions: tuple[Position, ...] = ()
    remarks: tuple[str, ...] = ()  # on the plan of a planned one: what a person should look at
    blocks: tuple[Block, ...] = ()
    fallbacks: dict[str, dict[str, list[int]]] = field(default_factory=dict)  # types that stand in, by role the layers; see `builders.quantize`

    @property
    def planned(self) -> bool:
        """Whether its mix of types was planned for this model."""
        return "plan.predicted" in self.measured

    @property
    def measured(self) -> dict[str, Measurement]:
        """Measurements by name."""
        return {item.name: item for item in self.measurements}


@dataclass(frozen=True, kw_only=True)
class DataUsed:
    """A text, or the questions, that variants were calibrated or measured on."""

    use: str  # "calibration.chat", "evaluation.plain", "evaluation.mmlu", …
    name: str
    sha256: str
    commit: str | None = None  # of a data set on the Hub
    license: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a report says. It carries no time, host or run number, so that equal findings give equal bytes."""

    release: Release
    recipe_name: str
    recipe_digest: str
    tools: dict[str, str]  # name -> version
    patches: tuple[Patch, ...]
    variants: tuple[ReportedVariant, ...]
    data: tuple[DataUsed, ...] = ()  # the texts and questions that were read
    compared: tuple[ReportedVariant, ...] = ()  # stock variants that planned ones were compared with, and that are not offered
    way: str = ""  # the stages of the recipe, as an SVG of ours
    missing: str | None = None  # why no variant was built and there is nothing to plot

    def as_json(self) -> dict[str, Any]:
        """JSON values of which `read` makes an equal report."""
        found: dict[str, Any] = _REPORT.dump_python(self, mode="json")
        return found


def read(values: dict[str, Any]) -> Report:
    """The report whose `as_json` gave `values`. Raises ValidationError."""
    found: Report = _REPORT.validate_python(values)
    return found


_REPORT = TypeAdapter(Report)
