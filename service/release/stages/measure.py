"""Every variant against the 16-bit model: divergence, what planned ones promised, questions, greedy answers and the file itself."""

from collections.abc import Iterable, Iterator

from config.errors import NoSpace, SluiceError
from config.recipe import Recipe
from config.words import Sample, Variant
from qa import mmlu
from service.release import claims, costs, functions
from service.release.graph import Call, FileOf, Phase, Source, Stage
from service.release.kinds import asked_older, every_variant, kind_of, maker
from service.release.measuring.divergence import DIVERGENCE, WINDOWS, diverge
from service.release.measuring.questions import QUESTIONS, question
from service.release.measuring.samples import PUBLISHED, basis
from service.release.products import CLAIMS, Found, Measured, Outcomes, Settled, measurements
from service.release.work import Work

ANSWERS = "questions"
ANSWERED = (
    "mmlu.accuracy", "mmlu.macro", "mmlu.single_letter", "mmlu.difference", "mmlu.wins", "mmlu.losses", "mmlu.mcnemar_p", "flips", "flips.share", "efficiency",
)  # fmt: skip
GREEDY = ("generation.failures", "generation.repetition", "generation.excused")


def stages(recipe: Recipe) -> Iterator[Stage]:
    """Divergence and questions of all variants, whose samples grow together, then one stage for each variant."""
    engines = dict.fromkeys(kind_of(variant).engine for variant in every_variant(recipe))
    originals = dict.fromkeys(["convert", *(engine.original.stage for engine in engines)])  # memory for a group is reckoned with the 16-bit GGUF file
    makers = {maker(recipe, variant): None for variant in every_variant(recipe)}
    plans = [f"plan {tag}" for tag in recipe.variants.planned]
    yield Stage(
        name=DIVERGENCE,
        phase=Phase.MEASURE,
        does="compare every variant's predictions with the 16-bit model's, on more text where a gate is undecided",
        work=diverge,
        also=(WINDOWS, PUBLISHED, *functions.written(recipe.evaluation.divergence), *originals, *makers),
        unit="windows",
        cost=costs.divergence,
        measures=_divergences(recipe),
        tolerant=True,
    )
    yield Stage(
        name=CLAIMS,
        phase=Phase.MEASURE,
        does="compare planned variants with what they promised, and with the stock ones of their size",
        work=claims.settle,
        also=(DIVERGENCE, *plans, *makers),
        measures=("plan.predicted", "plan.measured", "plan.error", "plan.stock", "plan.replaced") if plans else (),
        tolerant=True,
    )
    if recipe.evaluation.mmlu is not None:
        yield _asking(recipe, originals)
    yield from (_measured(recipe, variant) for variant in recipe.variants.listed())


def _asking(recipe: Recipe, originals: Iterable[str]) -> Stage:
    asked = dict.fromkeys(kind_of(variant).engine.asked for variant in recipe.variants.listed())
    return Stage(
        name=ANSWERS,
        phase=Phase.MEASURE,
        does="ask every variant questions, and more of them where a gate is undecided",
        work=answer,
        also=(CLAIMS, QUESTIONS, PUBLISHED, *asked, *originals),
        unit="questions",
        cost=costs.questions,
        measures=ANSWERED,
    )


def _divergences(recipe: Recipe) -> tuple[str, ...]:
    """Names of the figures; with two kinds of text those of each follow."""
    text = recipe.evaluation.divergence
    suffixes = ("", ".chat", ".plain") if sum(map(bool, (text.chat, text.plain, text.generated))) > 1 else ("",)
    quantities = ("mean", "median", "p90", "p99", "p999", "max")
    return tuple(
        name for end in suffixes for name in (*(f"kld{end}.{quantity}" for quantity in quantities), f"same_top{end}", f"dp.rms{end}", f"ppl.ratio{end}")
    )


def _measured(recipe: Recipe, variant: Variant) -> Stage:
    return Stage(
        name=f"measure {variant.tag}",
        variant=variant.tag,
        phase=Phase.MEASURE,
        does=f"read greedy answers, and {kind_of(variant).engine.compared}",
        work=lambda work: measure(work, variant),
        also=(*found_by(recipe), kind_of(variant).engine.original.stage, kind_of(variant).engine.greedy),
        unit="answers",
        cost=costs.measure(variant),
        measures=(*GREEDY, *kind_of(variant).engine.compares, *filter(None, [asked_older(recipe, variant)])),
    )


def found_by(recipe: Recipe) -> tuple[str, ...]:
    """The stages that tell what was found of all variants together."""
    return (CLAIMS,) if recipe.evaluation.mmlu is None else (CLAIMS, ANSWERS)


def found(work: Work) -> Outcomes:
    """What these found: divergence, and, where the recipe asks questions, what the answers are worth."""
    return work.of(CLAIMS, Settled).diverged if work.recipe.evaluation.mmlu is None else work.of(ANSWERS, dict)


def answer(work: Work) -> Outcomes:
    """What was found of the variants' divergence with what their answers are worth; stock mixes are asked only where a gate compares answers with theirs."""
    settled = work.of(CLAIMS, Settled)
    compared = any(gate.relative_to == "stock" and gate.measure.partition(".")[0] in mmlu.NAMES for gate in work.recipe.gates)
    items = [item for item in (*settled.made, *(settled.stock if compared else ())) if isinstance(settled.diverged[item.variant.tag], Found)]
    answered = dict(settled.diverged)
    for tag, item in question(work, items).items():
        before = answered[tag]
        answered[tag] = before.also(item) if isinstance(before, Found) and isinstance(item, Found) else item
    return answered


def measure(work: Work, variant: Variant) -> Found | None:
    """Everything that was found about a variant, and, where measuring itself failed, why: a gate without its measurement blocks. None without files."""
    made = next((item for item in work.of(CLAIMS, Settled).made if item.variant == variant), None)
    if made is None:
        return None
    engine, answered = kind_of(variant).engine, found(work)[variant.tag]
    params = functions.greedy(work.recipe.evaluation.generation)
    try:
        if isinstance(answered, SluiceError):
            raise answered
        inputs = {"reference": engine.original, "variant": engine.model(made.output), "original": FileOf(stage=engine.greedy)}
        output = work.call(f"measure {variant.tag}", Call(function="qa.greedy:check", inputs=inputs, params=params))
        read = older(work, variant, engine.model(made.output))
    except NoSpace:
        raise
    except SluiceError as error:
        return Found(measured=work.measured, errors=unmeasured(work, error))
    sample = Sample(basis=basis(("generation",), params["prompts"], params["max_tokens"]))
    own = Found(measured={**measurements(output), **read}, errors={}, samples=(sample,))
    return Found(measured=work.measured, errors={}).also(answered).also(own)


def older(work: Work, variant: Variant, files: Source) -> Measured:
    """What an older version of its engine makes of a variant, where a gate is on that. Raises the stage's error."""
    if asked_older(work.recipe, variant) is None:
        return {}
    return measurements(work.call(f"read {variant.tag} by an older version", functions.older(files, variant.kind)))


def unmeasured(work: Work, error: SluiceError) -> dict[str, str]:
    """Why each measurement that gates want of a variant, and not of the release, is missing."""
    return dict.fromkeys({gate.measure for gate in work.recipe.gates} - work.measured.keys(), str(error))
