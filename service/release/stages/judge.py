"""From measurements to verdicts, and the page that tells them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from config.errors import SluiceError
from config.recipe import Gate, Recipe
from config.words import Measurement, Outcome, Variant, Verdict
from qa import gates
from qa.relative import References
from service.execution.kept import Output
from service.release import costs
from service.release.graph import Phase, Stage
from service.release.kinds import maker
from service.release.measuring.among import AMONG, among
from service.release.measuring.samples import PUBLISHED, references
from service.release.products import CLAIMS, COMPARED, DATA, JUDGED, PROJECTORS, Built, Found, Judged, Made, Projected, Published, Settled, weights
from service.release.report import report
from service.release.stages import images
from service.release.stages.measure import found, found_by, unmeasured
from service.release.work import Work
from service.runs.report import STAGE as REPORT
from service.store import VariantRecord

SMALL = "(Quick: a small sample, no full measurement.)"
SAMPLED = (
    "kld",
    "same_top",
    "dp.",
    "ppl.",
    "mmlu.",
    "flips",
    "efficiency",
    "generation.",
    "plan.",
)  # measurements that rest on as much text as the recipe says


def stages(recipe: Recipe) -> Iterator[Stage]:
    """All verdicts in one stage, since gates compare variants; the report also of a run that a gate on the release ended."""
    listed = recipe.variants.listed()
    makers = dict.fromkeys(maker(recipe, variant) for variant in listed)
    seeing = (PROJECTORS, COMPARED) if recipe.variants.projectors() else ()
    yield Stage(
        name=JUDGED,
        phase=Phase.JUDGE,
        does="apply the gates to every variant",
        work=judge,
        also=(*found_by(recipe), PUBLISHED, "convert", *(f"measure {variant.tag}" for variant in listed), *makers, *seeing),
        cost=costs.judge,
        measures=AMONG,
        tolerant=True,
        records=True,
    )
    yield Stage(
        name=REPORT,
        phase=Phase.JUDGE,
        does="make the report",
        work=report,
        also=(JUDGED, CLAIMS, DATA),
        after=("patches",),
        cost=costs.report,
        tolerant=True,
        always=True,
        records=True,
    )


def blocked(work: Work, stage: Stage) -> bool:
    """Judge the gates on the release that can be judged after a stage; when one fails, every variant is blocked by it, which is recorded."""
    measured, last = work.measured, stage.name == work.graph.last_gated
    due: list[Gate] = [gate for gate in work.recipe.gates if gate.scope == "release" and (last or gate.measure in measured)]
    verdicts = [(variant, gates.judge(variant, due, measured, {}, work.job.waivers)) for variant in work.recipe.variants.listed()]
    # a kind of variant that none of these gates is for is not blocked by them
    if any(verdict.outcome is Outcome.PASSED or not verdict.results for _, verdict in verdicts):
        return False
    for variant, verdict in verdicts:
        _unbuilt(work, variant, measured, verdict)
    return True


def judge(work: Work) -> Judged:
    """The verdict on every variant, recorded; those without files lack what their gates want, which no waiver can make good."""
    settled, together = work.of(CLAIMS, Settled), dict(found(work))
    measured = {item.variant.tag: work.of(f"measure {item.variant.tag}", Found) for item in settled.made}
    published: Published = work.of(PUBLISHED, dict)
    compared = {item.variant.tag: references(item.variant, {**together, **measured}, published) for item in settled.made}
    others = [gate for gate in work.recipe.gates if gate.measure not in AMONG]
    beside = among(work, [_judged(work, item, measured[item.variant.tag], compared[item.variant.tag], others) for item in settled.made])
    built = []
    for item in settled.made:
        tag = item.variant.tag
        built.append(_judged(work, item, measured[tag].also(beside[tag]), compared[tag], work.recipe.gates))
        _record(work, built[-1])
    for variant in work.recipe.variants.listed():
        if (error := _without_files(work, variant)) is not None:
            _unbuilt(work, variant, work.measured, gates.judge(variant, work.recipe.gates, work.measured, unmeasured(work, error)))
    projectors = images.judged(work)
    for part in projectors:
        _record_part(work, part)
    return Judged(built=built, projectors=projectors, blind=images.lacking(work, projectors))


def _without_files(work: Work, variant: Variant) -> SluiceError | None:
    """Why there are no files of a variant; None where there are."""
    return work.failure(maker(work.recipe, variant))


def _judged(work: Work, item: Made, own: Found, compared: References, applied: Sequence[Gate]) -> Built:
    """The variant with its verdict by these gates; `compared` is what they can be relative to."""
    verdict = gates.judge(item.variant, applied, own.measured, own.errors, work.job.waivers, samples=own.samples, references=compared)
    if work.recipe.quick:
        verdict = marked(verdict)
    claim = work.of(CLAIMS, Settled).claims.get(item.variant.tag)
    return Built(
        variant=item.variant,
        output=item.output,
        bpw=_bits_per_weight(work, item.output),
        measured=own.measured,
        verdict=verdict,
        samples=own.samples,
        positions=own.positions,
        mix=claim.mix if claim else None,
    )


def marked(verdict: Verdict) -> Verdict:
    """The verdict with a word on small samples in each reason that rests on one."""
    words = {result.reason: f"{result.reason} {SMALL}" for result in verdict.results if result.value is not None and result.measure.startswith(SAMPLED)}
    return replace(
        verdict,
        reasons=tuple(words.get(reason, reason) for reason in verdict.reasons),
        results=tuple(replace(result, reason=words.get(result.reason, result.reason)) for result in verdict.results),
    )


def _bits_per_weight(work: Work, output: Output) -> float:
    """Of the whole file or files, so that it and the size tell the same story."""
    return 8 * sum(file.bytes for file in weights(output)) / int(work.output("convert").result["parameters"])


def _unbuilt(work: Work, variant: Variant, measured: Mapping[str, Measurement], verdict: Verdict) -> None:
    """Record a variant of which there is no file."""
    _write(work, VariantRecord(variant=variant, file=None, bytes=None, bpw=None, measurements=tuple(measured.values()), verdict=verdict))


def _record(work: Work, item: Built) -> None:
    """Record a variant with its measurements and its verdict."""
    record = VariantRecord(
        variant=item.variant,
        file=item.output.result.get("file"),
        bytes=item.bytes,
        bpw=item.bpw,
        measurements=tuple(item.measured.values()),
        verdict=item.verdict,
        samples=item.samples,
    )
    _write(work, record)


def _record_part(work: Work, part: Projected) -> None:
    """Likewise a projector."""
    measured = tuple(part.measured.values())
    _write(
        work,
        VariantRecord(variant=part.variant, file=part.file.path, bytes=part.file.bytes, bpw=part.bpw, measurements=measured, verdict=part.verdict),
    )


def _write(work: Work, record: VariantRecord) -> None:
    places = (*work.recipe.variants.listed(), *work.recipe.variants.projectors())
    work.job.store.record_variant(work.job.run.id, record, position=places.index(record.variant))
    if record.verdict is not None:
        work.job.verdict(record.variant, record.verdict)
