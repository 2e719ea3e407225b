"""Asks multiple-choice questions: a first sample of every variant, and more of those whose gates it leaves undecided, each paired with the 16-bit model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from config.errors import SluiceError
from config.words import Kind, Sample
from qa import measure, mmlu
from qa.relative import Reference
from service.execution.kept import Input, Output
from service.release.built import Checked, Found, Made, Yardstick, weights
from service.release.job import Job
from service.release.measuring.samples import Outcomes, basis, since, take_until_decided


@dataclass(kw_only=True)
class _Asked:
    """What a model has been asked so far."""

    name: str  # of its first stage
    model: Input
    parts: list[Output] = field(default_factory=list)
    end: int = 0  # questions of each subject
    error: SluiceError | None = None  # why it could not be asked more

    def extend(self, job: Job, end: int) -> None:
        """Ask it the questions that are missing to so many of each subject. Raises the stage's error, again when it is tried again."""
        if self.error is not None:
            raise self.error
        if self.end < end:
            try:
                self.parts.append(ask(job, self.name, self.model, self.end, end))
            except SluiceError as error:
                self.error = error
                raise
            self.end = end

    @property
    def answers(self) -> list[mmlu.Answer]:
        """Those of all parts."""
        return [answer for part in self.parts for answer in measure.answers(part.file().path)]

    @property
    def remarks(self) -> Iterator[str]:
        """About what had to be left out."""
        return (remark for part in self.parts for remark in part.result["remarks"])


def ask(job: Job, name: str, model: Input, start: int, end: int) -> Output:
    """The answers of a GGUF file or a folder of safetensors to the questions of each subject from row `start` to before row `end`."""
    asked = job.recipe.evaluation.mmlu
    inputs = {"model": model, "mmlu": job.data(asked.data)}
    name += since(start, end, "questions")
    return job.apart(name, "qa.measure:ask", inputs, form=asked.form, shots=asked.shots, start=start, end=end)


def question(
    job: Job, checked: Checked, yardstick: Yardstick, made: Sequence[Made], published: Mapping[str, Reference | None]
) -> dict[str, Found | SluiceError]:
    """What the answers of each variant are worth, by its tag, or why there are none.

    A larger sample holds the smaller ones, and of what was asked before nothing is asked again, neither of the variants nor of the 16-bit model, which each
    engine is asked no more than one of its variants needs.
    """
    looks: list[int] = yardstick.questions.result["looks"]
    gguf = _Asked(name="reference", model=checked.base.file(), parts=[yardstick.gguf], end=looks[0])
    folder = _Asked(name="reference 16bit", model=checked.model.whole)
    if yardstick.transformers is not None:
        folder = replace(folder, parts=[yardstick.transformers], end=looks[0])
    items = {item.variant.tag: item for item in made}
    asked = {tag: _Asked(name=f"questions {tag}", model=_model(item)) for tag, item in items.items()}

    def take(tags: Sequence[str], end: int, sample: Sample) -> Outcomes:
        found: dict[str, Found | SluiceError] = {}
        for tag in tags:
            original = gguf if items[tag].variant.kind is Kind.GGUF else folder
            try:
                original.extend(job, end)
                asked[tag].extend(job, end)
                found[tag] = _found(items[tag], original, asked[tag], sample)
            except SluiceError as error:
                found[tag] = error
        return found

    return take_until_decided(job, [item.variant for item in made], published, looks=looks, basis=_basis(job), take=take)


def _basis(job: Job) -> dict[str, str]:
    """A first sample of another size weighs the subjects otherwise, so it counts as other questions."""
    asked = job.recipe.evaluation.mmlu
    return basis(mmlu.NAMES, job.data(asked.data).digest, asked.form, asked.shots, asked.questions_per_subject)


def _model(item: Made) -> Input:
    return item.output.file() if item.variant.kind is Kind.GGUF else item.output.whole


def _found(item: Made, original: _Asked, asked: _Asked, sample: Sample) -> Found:
    before, given = original.answers, asked.answers
    size = sum(file.bytes for file in weights(item.output))
    measured = {score.name: score for score in measure.scores(before, given, list(asked.remarks), size)}
    return Found(measured=measured, errors={}, samples=(replace(sample, answers=mmlu.encode(before, given)),))
