"""The names of what a recipe measures, as its stages declare them: the one place where checks that have no graph at hand ask for them."""

from config.recipe import Recipe
from config.words import Kind
from qa import divergence
from service.release.checks.gates import ON_REQUEST, Measured

_ONCE = (
    "overlap.share", "overlap.shared", "sanity.failures", "metadata.failures", "parity.token_mismatches", "parity.kld", "parity.max_difference",
    "template.failures", "template.remarks", "tokenizer.mismatches", "imatrix.failures",
)  # fmt: skip
_EACH = (
    "mmlu.accuracy", "mmlu.macro", "mmlu.single_letter", "mmlu.difference", "mmlu.wins", "mmlu.losses", "mmlu.mcnemar_p", "flips", "flips.share", "efficiency",
    "generation.failures", "generation.repetition", "file.failures",
)  # fmt: skip
_PLANNED = ("plan.predicted", "plan.measured", "plan.error", "plan.stock", "plan.replaced")


def of_recipe(recipe: Recipe) -> Measured:
    """What is measured of a release, and of its variants."""
    text = recipe.evaluation.divergence
    forms = ("", ".chat", ".plain") if text.chat and text.plain else ("",)
    shares = [f"{name}{form}" for form in forms for name in ("same_top", "dp.rms", "ppl.ratio")]
    diverged = [*shares, *(f"kld{form}.{name}" for form in forms for name in ("mean", *divergence.QUANTILES))]
    compared = ("weights.failures",) if any(variant.kind is Kind.GGUF for variant in recipe.variants.listed()) else ()
    return Measured(
        once=frozenset([*_ONCE, *(ON_REQUEST if any(gate.measure in ON_REQUEST for gate in recipe.gates) else ())]),
        each=frozenset([*diverged, *_EACH, *compared, *(_PLANNED if recipe.variants.planned else ())]),
    )
