"""Asks multiple-choice questions: a first sample of every variant, and more of those whose gates it leaves undecided, each paired with the 16-bit model."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from config.errors import ConfigurationError, NoSpace, SluiceError
from config.texts import Mmlu
from config.words import Sample
from qa import measure, mmlu
from service.execution.kept import Input, Output
from service.release.graph import Call, Data
from service.release.job import Job
from service.release.kinds import Engine, kind_of
from service.release.measuring.samples import PUBLISHED, Plan, basis, since, take_until_decided
from service.release.products import Found, Made, Outcomes, Published, weights
from service.release.work import Work

QUESTIONS = "evaluation questions"  # the stage that reads them


@dataclass(kw_only=True)
class _Asked:
    """What a model has been asked so far."""

    name: str  # of its first stage
    model: Input
    parts: list[Output] = field(default_factory=list)
    end: int = 0  # questions of each subject
    error: SluiceError | None = None  # why it could not be asked more

    def extend(self, work: Work, end: int) -> None:
        """Ask it the questions that are missing to so many of each subject. Raises the stage's error, again when it is tried again."""
        if self.error is not None:
            raise self.error
        if self.end < end:
            try:
                self.parts.append(ask(work, self.name, self.model, start=self.end, end=end))
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


def ask(work: Work, name: str, model: Input, *, start: int = 0, end: int) -> Output:
    """The answers of a GGUF file or a folder of safetensors to the questions of each subject from row `start` to before row `end`."""
    asked = _questions(work.job)
    params = {"form": asked.form, "shots": asked.shots, "start": start, "end": end}
    call = Call(function="qa.measure:ask", inputs={"model": model, "mmlu": Data(path=asked.data)}, params=params)
    return work.call(name + since(start, end, "questions"), call)


def _questions(job: Job) -> Mmlu:
    """What the recipe asks; only a recipe that asks something has the stages that come here."""
    if job.recipe.evaluation.mmlu is None:
        raise ConfigurationError("The recipe has no questions under `evaluation.mmlu`, so none can be asked.")
    return job.recipe.evaluation.mmlu


def question(work: Work, made: Sequence[Made]) -> dict[str, Found | SluiceError]:
    """What the answers of each variant are worth, by its tag, or why there are none.

    A larger sample holds the smaller ones, and of what was asked before nothing is asked again, neither of the variants nor of the 16-bit model, which each
    engine is asked no more than one of its variants needs.
    """
    looks: list[int] = work.output(QUESTIONS).result["looks"]
    engines = {kind_of(item.variant).engine for item in made}
    originals = {engine: _original(work, engine, looks[0]) for engine in engines}
    items = {item.variant.tag: item for item in made}
    asked = {tag: _Asked(name=f"questions {tag}", model=kind_of(item.variant).engine.model(item.output)) for tag, item in items.items()}

    def take(tags: Sequence[str], end: int, sample: Sample) -> Outcomes:
        for engine in dict.fromkeys(kind_of(items[tag].variant).engine for tag in tags):
            with suppress(SluiceError):  # which whatever is compared with it fails by
                originals[engine].extend(work, end)

        def take_one(tag: str) -> Found | SluiceError:
            original = originals[kind_of(items[tag].variant).engine]
            try:
                original.extend(work, end)
                asked[tag].extend(work, end)
                return _found(items[tag], original, asked[tag], sample)
            except NoSpace:
                raise
            except SluiceError as error:
                return error

        return dict(zip(tags, work.job.each(take_one, tags), strict=True))

    published: Published = work.of(PUBLISHED, dict)
    plan = Plan(looks=looks, basis=_basis(work.job))
    return take_until_decided(work.job, [item.variant for item in made], published, plan, take)


def _original(work: Work, engine: Engine, first: int) -> _Asked:
    """The 16-bit model in that engine; a stage of its own asked it the first questions, unless its variants are only compared with."""
    original = _Asked(name=engine.asked, model=work.input(engine.original))
    answered = work.maybe(engine.asked, Output)
    return original if answered is None else replace(original, parts=[answered], end=first)


def _basis(job: Job) -> dict[str, str]:
    """A first sample of another size weighs the subjects otherwise, so it counts as other questions."""
    asked = _questions(job)
    return basis(mmlu.NAMES, job.data(asked.data).digest, asked.form, asked.shots, asked.questions_per_subject)


def _found(item: Made, original: _Asked, asked: _Asked, sample: Sample) -> Found:
    before, given = original.answers, asked.answers
    size = sum(file.bytes for file in weights(item.output))
    measured = {score.name: score for score in measure.scores(before, given, list(asked.remarks), size)}
    return Found(measured=measured, errors={}, samples=(replace(sample, answers=mmlu.encode(before, given)),))
