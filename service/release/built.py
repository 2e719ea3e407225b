"""What the stages of a release hand to one another: the checked 16-bit model, what variants are measured with, and the variants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from config.words import Measurement, Patch, Sample, Variant, Verdict
from publishers.card import Mix
from publishers.report.figures import Position
from service.execution.kept import File, Output

Measured = Mapping[str, Measurement]
"""Measurements by name."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The fixed 16-bit model after the checks that concern every variant."""

    fetched: Output
    model: Output
    base: Output  # the 16-bit GGUF
    imatrix: Output
    patches: Sequence[Patch]
    measured: Measured


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """What variants are measured with: evaluation windows, questions, and the 16-bit model's own answers to the first of these, one set for each engine."""

    windows: Output
    questions: Output
    gguf: Output
    transformers: Output | None  # None: no variant needs it


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


@dataclass(frozen=True, kw_only=True)
class Built:
    """One variant with its files and what was found about it."""

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


def weights(output: Output) -> tuple[File, ...]:
    """The files of a stage that hold weights."""
    return tuple(file for file in output.files if file.path.endswith((".gguf", ".safetensors")))
