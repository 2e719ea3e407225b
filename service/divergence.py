"""Measures divergence: a first sample of every variant, and more of those whose gates it leaves undecided; and says what relative gates compare with."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from config.errors import MeasurementError, SluiceError
from config.words import Kind, Sample, Variant
from publishers import naming
from publishers.report.figures import Position
from qa import gates, group
from qa.relative import Reference, References
from service.built import Checked, Found, Made, Yardstick
from service.groups import groups, memory_for_models
from service.job import Job
from service.stages import Inputs


@dataclass(kw_only=True)
class _Progress:
    """What has been measured of one variant so far."""

    made: Made
    parts: list[group.Part] = field(default_factory=list)
    error: SluiceError | None = None

    @property
    def end(self) -> int:
        """Windows of the sample."""
        return self.parts[-1].end if self.parts else 0


def diverge(
    job: Job, checked: Checked, yardstick: Yardstick, made: Sequence[Made], published: Mapping[str, Reference | None]
) -> Mapping[str, Found | SluiceError]:
    """The divergence of each variant by its tag, or why there is none.

    A variant with a gate that its sample does not decide is measured on further windows, with those that the gate is relative to, until every gate is decided
    or all windows are used. Which stages are done follows from what the earlier ones found, so a run that is carried out again finds them all.
    """
    looks: list[int] = yardstick.windows.result["looks"]
    basis = _basis(job)
    progress = {item.variant.tag: _Progress(made=item) for item in made}
    pending = list(progress)
    found: dict[str, Found | SluiceError] = {}
    for look, end in enumerate(looks, start=1):
        _measure(job, checked, yardstick, [progress[tag] for tag in pending], end, "" if look == 1 else f" to {end} windows")
        for tag in pending:
            found[tag] = progress[tag].error or _found(job, yardstick, progress[tag], Sample(basis=basis, look=look, looks=len(looks)))
        pending = _undecided(job, [item.variant for item in made], found, published)
        if not pending:
            break
    return found


def _measure(job: Job, checked: Checked, yardstick: Yardstick, items: Sequence[_Progress], end: int, suffix: str) -> None:
    """Measure each variant from where its sample ends to `end` windows; the 16-bit model is evaluated once for each group that memory holds."""
    context = job.recipe.evaluation.context
    by_tag = {item.made.variant.tag: item for item in items}

    def together(name: str, batch: Sequence[Made], start: int) -> None:
        windows, ours = yardstick.windows.whole, batch[0].output
        if batch[0].variant.kind is Kind.GGUF:
            inputs: Inputs = {"reference": checked.base.file(), "variants": [item.output.file() for item in batch], "windows": windows}
            output = job.apart(name, "qa.group:measure", inputs, context=context, start=start, end=end)
        else:
            inputs = {"reference": checked.model.whole, "variant": ours.whole, "windows": windows}
            output = job.apart(name, "qa.group:measure_transformers", inputs, context=context, start=start, end=end)
        for position, item in enumerate(batch):
            progress = by_tag[item.variant.tag]
            if message := output.result["errors"].get(str(position)):
                progress.error = MeasurementError(message)
            else:
                progress.parts.append(group.Part(file=output.file(f"{position}.npy").path, start=start, end=end))

    for start in sorted({item.end for item in items}):
        here = [item.made for item in items if item.end == start]
        batches = {f"divergence {number}": batch for number, batch in enumerate(groups(here, checked.base, memory_for_models(job.settings)), start=1)}
        batches |= {f"divergence {item.variant.tag}": [item] for item in here if item.variant.kind is not Kind.GGUF}
        since = f" from {start}" if start else ""
        for name, batch in batches.items():
            try:
                together(f"{name}{since}{suffix}", batch, start)
            except SluiceError as error:
                if len(batch) == 1:
                    by_tag[batch[0].variant.tag].error = error
                    continue
                # one variant that ends the process must not cost the others their figures
                for item in batch:
                    try:
                        together(f"divergence {item.variant.tag}{since}{suffix}", [item], start)
                    except SluiceError as own:
                        by_tag[item.variant.tag].error = own


def _found(job: Job, yardstick: Yardstick, item: _Progress, sample: Sample) -> Found:
    pooled = group.pool(item.parts, yardstick.windows.whole.path, job.recipe.evaluation.context)
    measured = {measurement.name: measurement for measurement in pooled.measurements}
    positions = tuple(Position(**asdict(bucket)) for bucket in pooled.positions)
    return Found(measured=measured, errors={}, sample=replace(sample, windows=pooled.windows, influences=pooled.influences), positions=positions)


def _undecided(job: Job, variants: Iterable[Variant], found: Mapping[str, Found | SluiceError], published: Mapping[str, Reference | None]) -> list[str]:
    """Tags of the variants with a gate that more text could decide, and of those which such a gate is relative to."""
    wanted: set[str] = set()
    judged = set(job.recipe.variants.listed())  # not the stock mixes that planned ones are only compared with
    for variant in judged.intersection(variants):
        item = found[variant.tag]
        if isinstance(item, SluiceError) or item.sample is None:
            continue
        due = [gate for gate in job.recipe.gates if gate.measure in item.sample.influences]
        compared = references(variant, found, published)
        for result in gates.judge(variant, due, item.measured, {}, sample=item.sample, references=compared).results:
            if result.undecided:
                gate = next(gate for gate in due if gate.name == result.gate)
                other = variant.like if gate.relative_to == "stock" else gate.relative_to
                wanted |= {variant.tag} | ({other} if other is not None and isinstance(found.get(other), Found) else set())
    return [tag for tag in found if tag in wanted]


def references(variant: Variant, found: Mapping[str, Found | SluiceError], published: Mapping[str, Reference | None]) -> References:
    """What the gates of a variant can be relative to, by what they call it."""
    known: dict[str, Reference | None] = {tag: _reference(tag, item) for tag, item in found.items()}
    if variant.like in known:
        known["stock"] = known[variant.like]
    if variant.tag in published:
        known["published"] = published[variant.tag]
    return known


def _reference(tag: str, item: Found | SluiceError) -> Reference:
    if isinstance(item, SluiceError):
        return Reference(name=tag, measurements={}, error=str(item))
    return Reference(name=tag, measurements=item.measured, sample=item.sample, error=" ".join(dict.fromkeys(item.errors.values())))


def published_before(job: Job, variants: Iterable[Variant]) -> dict[str, Reference | None]:
    """By tag what was last published of each variant of the same upstream repo; None where nothing was."""
    before: dict[str, Reference | None] = {}
    for variant in variants:
        last = job.store.published_before(job.run.id, naming.repo_id(variant.kind, job.run.namespace, job.run.release.name), variant.tag)
        before[variant.tag] = None
        if last is not None:
            run, record = last
            measured = {item.name: item for item in record.measurements}
            before[variant.tag] = Reference(name=f"{variant.tag} as run {run} published it", measurements=measured, sample=record.sample)
    return before


def _basis(job: Job) -> dict[str, str]:
    """By the first word of a measurement's name what it was measured on: figures on other text or questions cannot be compared."""
    evaluation = job.recipe.evaluation
    text, mmlu = evaluation.divergence, evaluation.mmlu
    windows = _digest([*(job.data(path).digest for path in text.chat), "plain", *(job.data(path).digest for path in text.plain), evaluation.context])
    questions = _digest([job.data(mmlu.data).digest, mmlu.form, mmlu.shots, mmlu.questions_per_subject])
    answers = _digest([list(evaluation.generation.prompts), evaluation.generation.max_tokens])
    families = {windows: ("kld", "same_top", "dp", "ppl"), questions: ("mmlu", "flips", "efficiency"), answers: ("generation",)}
    return {name: digest for digest, names in families.items() for name in names}


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
