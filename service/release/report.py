"""The report of a run: collects what was found, has the page made by a stage of its own, and finds it again."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from config.words import GateResult, Measurement, Verdict
from publishers.report.figures import DataUsed, Position, Report, ReportedVariant
from service.execution.kept import Inputs, Output
from service.release.drawing import draw
from service.release.kinds import LLAMA_CPP, kind_of
from service.release.products import CLAIMS, DATA, JUDGED, Built, Found, Judged, Settled, weights
from service.release.tools import tools
from service.release.work import Work
from service.runs.report import STAGE
from service.runs.summary import remarks
from service.store import VariantRecord

_USED = tuple(field.name for field in fields(DataUsed))


def report(work: Work) -> Output:
    """Make the page from the verdicts on record; without judged variants, because a gate on the release blocked them all, it has no plots."""
    judged = work.maybe(JUDGED, Judged)
    built = judged.built if judged is not None else ()
    files = [item.output.file() for item in built if kind_of(item.variant).engine is LLAMA_CPP]
    inputs: Inputs = {"contents": []}
    if files:
        inputs = {"contents": [work.job.apart("contents", "builders.contents:describe", {"variants": files}, threaded=False).file()]}
    return work.job.apart(STAGE, "publishers.report.page:write", inputs, threaded=False, figures=figures(work, built).as_json())


def figures(work: Work, built: Sequence[Built]) -> Report:
    """What the page says, from what the store keeps about the run: the same after a restart or a second publication."""
    job = work.job
    positions = {item.variant.tag: item.positions for item in built}
    outputs = {item.variant.tag: item.output for item in built}
    variants = tuple(_variant(record, outputs.get(record.variant.tag), positions.get(record.variant.tag, ())) for record in job.store.variants(job.run.id))
    return Report(
        release=job.run.release,
        recipe_name=job.recipe.label,
        recipe_digest=job.run.recipe_digest,
        tools=tools(),
        patches=job.store.patches(job.run.id),
        variants=variants,
        data=tuple(DataUsed(**{name: item[name] for name in _USED if name in item}) for item in sources(work)),
        compared=_compared(work),
        way=draw(work.graph),
        missing=None if built else _why_nothing(variants),
    )


def sources(work: Work) -> Sequence[Mapping[str, Any]]:
    """What was recorded of texts and questions, see `builders.datasets.record`; nothing of a run that was ended before."""
    recorded = work.maybe(DATA, Output)
    return () if recorded is None else recorded.result["sources"]


def _variant(record: VariantRecord, made: Output | None, positions: Sequence[Position]) -> ReportedVariant:
    return ReportedVariant(
        tag=record.variant.tag,
        kind=record.variant.kind,
        file=None if made is None else weights(made)[0].path,
        bytes=record.bytes,
        bpw=record.bpw,
        measurements=tuple(_finite(item) for item in record.measurements if math.isfinite(item.value)),
        verdict=None if record.verdict is None else _told(record.verdict),
        positions=tuple(positions),
        remarks=tuple(remarks({item.name: item for item in record.measurements})),
        fallbacks={} if made is None else made.result.get("fallbacks", {}),
    )


def _compared(work: Work) -> tuple[ReportedVariant, ...]:
    """The stock variants that are no product of this recipe, with their divergence where it could be measured."""
    settled = work.maybe(CLAIMS, Settled)
    found = [] if settled is None else [(item, settled.diverged.get(item.variant.tag)) for item in settled.stock]
    return tuple(
        ReportedVariant(
            tag=item.variant.tag,
            kind=item.variant.kind,
            file=None,
            bytes=sum(file.bytes for file in weights(item.output)),
            bpw=None,
            measurements=tuple(_finite(one) for one in diverged.measured.values() if math.isfinite(one.value)),
            verdict=None,
        )
        for item, diverged in found
        if isinstance(diverged, Found)
    )


def _finite(item: Measurement) -> Measurement:
    """JSON has no infinity. What was counted stands in the reasons, so the details stay out of the page."""
    return replace(item, stderr=item.stderr if item.stderr is not None and math.isfinite(item.stderr) else None, details=())


def _told(verdict: Verdict) -> Verdict:
    return replace(verdict, results=tuple(_result(result) for result in verdict.results))


def _result(result: GateResult) -> GateResult:
    value, error = (number if number is not None and math.isfinite(number) else None for number in (result.value, result.stderr))
    return replace(result, value=value, stderr=error)


def _why_nothing(variants: Sequence[ReportedVariant]) -> str:
    """In words, which gates on the release ended the run."""
    reasons = dict.fromkeys(reason for item in variants if item.verdict is not None for reason in item.verdict.reasons)
    return "A gate on the release itself blocked all variants before any was built, so there are no files to measure and nothing to plot. " + " ".join(reasons)
