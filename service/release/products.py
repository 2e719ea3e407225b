"""What the stages of a release hand to one another besides files: variants, what was found about them, and what became of plans."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from config.errors import SluiceError
from config.words import Measurement, Outcome, Sample, Variant, Verdict
from publishers.card import Mix
from publishers.hub import PublishFile
from publishers.report.figures import Position
from qa.relative import Reference
from service.execution.kept import File, Output

_MEASUREMENTS = TypeAdapter(list[Measurement])

Measured = Mapping[str, Measurement]
"""Measurements by name."""

Published = Mapping[str, Reference | None]
"""By tag what was last published of each variant of the same upstream repo; None where nothing was."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """One variant with its files, not measured yet."""

    variant: Variant
    output: Output


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found about one variant."""

    measured: Measured
    errors: Mapping[str, str]  # by measurement, why there is none
    samples: tuple[Sample, ...] = ()  # what the measurements rest on
    positions: tuple[Position, ...] = ()  # divergence along the evaluation window

    def also(self, other: "Found") -> "Found":
        """This and what else was found about the same variant."""
        return Found(
            measured={**self.measured, **other.measured},
            errors={**self.errors, **other.errors},
            samples=(*self.samples, *other.samples),
            positions=self.positions or other.positions,
        )


Outcomes = Mapping[str, Found | SluiceError]
"""By tag what was found about a variant, or why nothing was."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a planned variant promised, what came of it, and what is published under its tag."""

    made: Made
    diverged: Found | SluiceError  # with the measurements `plan.…`
    mix: Mix


@dataclass(frozen=True, kw_only=True)
class Settled:
    """The variants as they will be published, after each planned one was compared with the stock mix of its size."""

    made: Sequence[Made]  # listed variants of which there are files
    stock: Sequence[Made]  # what planned ones are only compared with
    claims: Mapping[str, Claim]  # of planned variants, by tag
    diverged: Outcomes


@dataclass(frozen=True, kw_only=True)
class Built:
    """One variant with its files, what was found about it, and its verdict."""

    variant: Variant
    output: Output
    bpw: float  # bits per weight
    measured: Measured
    verdict: Verdict
    samples: tuple[Sample, ...] = ()
    positions: tuple[Position, ...] = ()  # divergence along the evaluation window
    mix: Mix | None = None  # of a planned variant

    @property
    def bytes(self) -> int:
        """Size of the weights."""
        return sum(file.bytes for file in weights(self.output))

    @property
    def passed(self) -> bool:
        """Whether it may be published."""
        return self.verdict.outcome is Outcome.PASSED


@dataclass(frozen=True, kw_only=True)
class Projected:
    """One projector (mmproj) of a model that reads images, with what was found about it and its verdict."""

    variant: Variant
    output: Output  # of the stage that made them all
    file: File
    parameters: int
    measured: Measured
    verdict: Verdict

    @property
    def bpw(self) -> float:
        """Bits per weight."""
        return 8 * self.file.bytes / self.parameters

    @property
    def passed(self) -> bool:
        """Whether it may be published."""
        return self.verdict.outcome is Outcome.PASSED


PROJECTORS = "mmproj"  # the stage that makes them
COMPARED = "measure mmproj"  # the stage that compares them with the model
DATA = "data"  # the stage that records which texts and questions are used
CLAIMS = "claims"  # the stage that settles what planned variants are
JUDGED = "judge"  # the stage that does it
PARTS = "parts"  # the stage that divides files which are too large for a Hub


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The variants with their verdicts, in the recipe's order."""

    built: Sequence[Built]
    projectors: Sequence[Projected] = ()  # of a model that reads images
    blind: str | None = None  # of one without a projector that passed: why, in words


def weights(output: Output) -> tuple[File, ...]:
    """The files of a stage that hold weights."""
    return tuple(file for file in output.files if file.path.endswith((".gguf", ".safetensors")))


def measurements(output: Output) -> Measured:
    """A measuring stage's result by name."""
    return {item.name: item for item in _MEASUREMENTS.validate_python(output.result["measurements"])}


def from_stage(output: Output, file: File, path: str | None = None) -> PublishFile:
    """A stage's output file, published under its own name or as `path`."""
    return PublishFile.from_path(path or file.path, output.folder / "files" / file.path, sha256=file.sha256)
