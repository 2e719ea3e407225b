"""What variants are measured with: windows of evaluation text, questions, the 16-bit model's own answers, and what was published before."""

from collections.abc import Iterator, Mapping
from typing import Any

from config.recipe import Recipe
from config.texts import Mmlu
from service.execution.kept import Output
from service.release import costs, functions, kinds
from service.release.graph import Call, Data, Phase, Stage
from service.release.kinds import Engine
from service.release.measuring.divergence import WINDOWS
from service.release.measuring.questions import QUESTIONS, ask
from service.release.measuring.samples import PUBLISHED, published_before
from service.release.work import Work


def stages(recipe: Recipe) -> Iterator[Stage]:
    """Text and questions, and for each engine that variants are measured with the answers to the first of these."""
    evaluation, text = recipe.evaluation, recipe.evaluation.divergence
    yield Stage(
        name=WINDOWS,
        phase=Phase.PREPARE,
        does="cut the evaluation text into windows",
        work=functions.windows(text, context=evaluation.context),
        cost=costs.evaluation_text,
    )
    if evaluation.mmlu is not None:
        yield from _asking(recipe, evaluation.mmlu)
    asked = functions.greedy(evaluation.generation)
    yield from (_greedy(engine, asked) for engine in dict.fromkeys(kinds.kind_of(variant).engine for variant in recipe.variants.listed()))
    yield Stage(
        name=PUBLISHED,
        phase=Phase.MEASURE,
        does="look up what was published of the same variants before",
        work=lambda work: published_before(work.job, work.recipe.variants.listed()),
    )


def _asking(recipe: Recipe, asked: Mmlu) -> Iterator[Stage]:
    most = {"shots": asked.shots, "questions_per_subject": asked.questions_per_subject, "most": asked.most}
    yield Stage(
        name=QUESTIONS,
        phase=Phase.PREPARE,
        does="read the questions",
        work=Call(function="qa.measure:questions", inputs={"mmlu": Data(path=asked.data)}, params=most, threaded=False),
        cost=costs.listed,
    )
    for engine in dict.fromkeys([kinds.LLAMA_CPP, *(kinds.kind_of(variant).engine for variant in recipe.variants.listed())]):
        yield _reference(engine)


def _greedy(engine: Engine, params: Mapping[str, Any]) -> Stage:
    return Stage(
        name=engine.greedy,
        phase=Phase.PREPARE,
        does=f"read the 16-bit model's own greedy answers in {engine.name}",
        work=Call(function="qa.greedy:original", inputs={"model": engine.original}, params=params),
        unit="answers",
        cost=costs.greedy(engine),
    )


def _reference(engine: Engine) -> Stage:
    def answers(work: Work) -> Output:
        first: int = work.output(QUESTIONS).result["looks"][0]
        return ask(work, engine.asked, work.input(engine.original), end=first)

    return Stage(
        name=engine.asked,
        phase=Phase.PREPARE,
        does=f"let the 16-bit model answer the first questions in {engine.name}",
        work=answers,
        also=(engine.original.stage, QUESTIONS),
        unit="questions",
        cost=costs.reference(engine),
    )
