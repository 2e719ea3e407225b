"""Measures divergence: a first sample of every variant, and more of those whose gates it leaves undecided."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial

from config.errors import MeasurementError, NoSpace, SluiceError
from config.words import Sample
from publishers.report.figures import Position
from qa import group
from service.execution.kept import Output
from service.release import functions
from service.release.graph import Call, Whole
from service.release.kinds import LLAMA_CPP, every_variant, kind_of, maker
from service.release.measuring.groups import BESIDE, MOST, groups, memory_for_models
from service.release.measuring.samples import PUBLISHED, Plan, basis, since, take_until_decided
from service.release.products import Found, Made, Outcomes, Published
from service.release.work import Work

DIVERGENCE = "divergence"  # the stage that measures it
WINDOWS = "evaluation text"  # the stage that cuts it


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


def diverge(work: Work) -> dict[str, Found | SluiceError]:
    """The divergence of each variant of which there are files by its tag, or why there is none."""
    made = every_file(work)
    progress = {item.variant.tag: _Progress(made=item) for item in made}
    published: Published = work.of(PUBLISHED, dict)

    def take(tags: Sequence[str], end: int, sample: Sample) -> Outcomes:
        _measure(work, [progress[tag] for tag in tags], end)
        return {tag: progress[tag].error or _found(work, progress[tag], sample) for tag in tags}

    plan = Plan(looks=work.output(WINDOWS).result["looks"], basis=_basis(work))
    return take_until_decided(work.job, [item.variant for item in made], published, plan, take)


def every_file(work: Work) -> list[Made]:
    """The variants of which there are files, and those that planned ones are only compared with, in the recipe's order."""
    found = ((variant, work.maybe(maker(work.recipe, variant), Output)) for variant in every_variant(work.recipe))
    return [Made(variant=variant, output=output) for variant, output in found if output is not None]


def _basis(work: Work) -> dict[str, str]:
    evaluation = work.recipe.evaluation
    files = functions.texts(evaluation.divergence, "evaluation")
    chat, plain = ([work.input(source).digest for source in files[form]] for form in ("chat", "plain"))
    return basis(group.NAMES, *chat, "plain", *plain, evaluation.context)


def _measure(work: Work, items: Sequence[_Progress], end: int) -> None:
    """Measure each variant from where its sample ends to `end` windows; the 16-bit model is evaluated once for each group that memory holds."""
    for start in sorted({item.end for item in items}):
        here = [item for item in items if item.end == start]
        work.job.each(partial(_batch, work, (start, end)), list(_batches(work, here).items()))


def _batch(work: Work, part: tuple[int, int], named: tuple[str, Sequence[_Progress]]) -> None:
    """Measure some variants on a part of the windows, together if that can be done."""
    name, batch = named
    try:
        _together(work, name, batch, part)
    except NoSpace:
        raise
    except SluiceError as error:
        if len(batch) == 1:
            batch[0].error = error
            return
        # one variant that ends the process must not cost the others their figures
        for item in batch:
            try:
                _together(work, f"divergence {item.made.variant.tag}", [item], part)
            except NoSpace:
                raise
            except SluiceError as own:
                item.error = own


def _batches(work: Work, items: Sequence[_Progress]) -> dict[str, list[_Progress]]:
    """Which variants are measured together, by the name of the stage: those of llama.cpp that memory holds, others one by one."""
    by_tag = {item.made.variant.tag: item for item in items}
    most = BESIDE if work.job.place.wide else MOST
    together = groups([item.made for item in items], work.output("convert"), memory_for_models(work.job.settings), most=most)
    batches = {f"divergence {number}": [by_tag[made.variant.tag] for made in batch] for number, batch in enumerate(together, start=1)}
    return batches | {f"divergence {tag}": [item] for tag, item in by_tag.items() if kind_of(item.made.variant).engine is not LLAMA_CPP}


def _together(work: Work, name: str, batch: Sequence[_Progress], part: tuple[int, int]) -> None:
    """Measure some variants on the windows from the first number to before the second. Raises the stage's error."""
    start, end = part
    engine = kind_of(batch[0].made.variant).engine
    variants = [engine.compared_with(item.made.output) for item in batch]
    inputs = {"reference": engine.reference, "windows": Whole(stage=WINDOWS)}
    function, given = ("qa.group:measure", {"variants": variants}) if engine is LLAMA_CPP else ("qa.group:measure_transformers", {"variant": variants[0]})
    params = {"context": work.recipe.evaluation.context, "start": start, "end": end}
    output = work.call(name + since(start, end, "windows"), Call(function=function, inputs={**inputs, **given}, params=params))
    for position, item in enumerate(batch):
        if message := output.result["errors"].get(str(position)):
            item.error = MeasurementError(message)
        else:
            item.parts.append(group.Part(file=output.file(f"{position}.npy").path, start=start, end=end))


def _found(work: Work, item: _Progress, sample: Sample) -> Found:
    pooled = group.pool(item.parts, work.output(WINDOWS).whole.path, work.recipe.evaluation.context)
    measured = {measurement.name: measurement for measurement in pooled.measurements}
    positions = tuple(Position(**asdict(bucket)) for bucket in pooled.positions)
    return Found(measured=measured, errors={}, samples=(replace(sample, windows=pooled.windows, influences=pooled.influences),), positions=positions)
