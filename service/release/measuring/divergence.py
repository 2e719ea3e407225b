"""Measures divergence: a first sample of every variant, and more of those whose gates it leaves undecided."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from config.errors import MeasurementError, SluiceError
from config.words import Kind, Sample
from publishers.report.figures import Position
from qa import group
from qa.relative import Reference
from service.execution.kept import Inputs
from service.release.built import Checked, Found, Made, Yardstick
from service.release.job import Job
from service.release.measuring.groups import groups, memory_for_models
from service.release.measuring.samples import Outcomes, basis, since, take_until_decided


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
) -> dict[str, Found | SluiceError]:
    """The divergence of each variant by its tag, or why there is none."""
    progress = {item.variant.tag: _Progress(made=item) for item in made}

    def take(tags: Sequence[str], end: int, sample: Sample) -> Outcomes:
        _measure(job, checked, yardstick, [progress[tag] for tag in tags], end)
        return {tag: progress[tag].error or _found(job, yardstick, progress[tag], sample) for tag in tags}

    looks: list[int] = yardstick.windows.result["looks"]
    return take_until_decided(job, [item.variant for item in made], published, looks=looks, basis=_basis(job), take=take)


def _basis(job: Job) -> dict[str, str]:
    text = job.recipe.evaluation.divergence
    files = [*(job.data(path).digest for path in text.chat), "plain", *(job.data(path).digest for path in text.plain)]
    return basis(group.NAMES, *files, job.recipe.evaluation.context)


def _measure(job: Job, checked: Checked, yardstick: Yardstick, items: Sequence[_Progress], end: int) -> None:
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
        for name, batch in batches.items():
            try:
                together(name + since(start, end, "windows"), batch, start)
            except SluiceError as error:
                if len(batch) == 1:
                    by_tag[batch[0].variant.tag].error = error
                    continue
                # one variant that ends the process must not cost the others their figures
                for item in batch:
                    try:
                        together(f"divergence {item.variant.tag}" + since(start, end, "windows"), [item], start)
                    except SluiceError as own:
                        by_tag[item.variant.tag].error = own


def _found(job: Job, yardstick: Yardstick, item: _Progress, sample: Sample) -> Found:
    pooled = group.pool(item.parts, yardstick.windows.whole.path, job.recipe.evaluation.context)
    measured = {measurement.name: measurement for measurement in pooled.measurements}
    positions = tuple(Position(**asdict(bucket)) for bucket in pooled.positions)
    return Found(measured=measured, errors={}, samples=(replace(sample, windows=pooled.windows, influences=pooled.influences),), positions=positions)
