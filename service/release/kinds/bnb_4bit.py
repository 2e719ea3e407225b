"""NF4 safetensors: plain ones, and planned ones that keep in 16 bits the linear layers that 4 bits hurt most."""

from collections.abc import Iterator

from config.recipe import PLAIN_NF4, DynamicNf4, Recipe
from config.words import Kind
from service.release import costs, functions
from service.release.checks import budgets
from service.release.graph import Call, Phase, Result, Stage, Whole
from service.release.kinds import TRANSFORMERS, VariantKind, every_variant
from service.release.kinds.sixteen_bit import content

SENSITIVITY = "sensitivity of NF4"


def stages(recipe: Recipe) -> Iterator[Stage]:
    """Plain NF4 where it is wanted or compared with, then the table for all planned ones, and of each its plan and its files."""
    if any(variant.tag == PLAIN_NF4 for variant in every_variant(recipe)):
        yield Stage(
            name=f"build {PLAIN_NF4}",
            variant=PLAIN_NF4,
            phase=Phase.BUILD,
            does="quantize the linear layers to NF4",
            work=Call(function="builders.bnb:quantize", inputs={"model": functions.MODEL}),
            unit="tensors",
            cost=costs.bnb,
        )
    if recipe.variants.dynamic_bnb_4bit:
        text = functions.calibration(recipe.calibration, recipe.evaluation.context)
        yield Stage(
            name=SENSITIVITY,
            phase=Phase.PLAN,
            does="measure what NF4 in each linear layer does to the model's predictions",
            work=Call(function="builders.sensitivity.nf4:measure", inputs={"model": functions.MODEL, **text.files}, params=text.sizes),
            unit="windows",
            cost=costs.nf4_sensitivity,
            alone=True,
        )
    for entry in recipe.variants.dynamic_bnb_4bit:
        yield from _planned(entry)


def _planned(entry: DynamicNf4) -> Iterator[Stage]:
    inputs = {"sensitivity": Whole(stage=SENSITIVITY), "model": functions.MODEL, "plain": Whole(stage=f"build {PLAIN_NF4}")}
    params = {"budget": entry.budget.model_dump(mode="json", exclude_none=True)}
    yield Stage(
        name=f"plan {entry.tag}",
        variant=entry.tag,
        phase=Phase.PLAN,
        does="choose the layers that stay in 16 bits",
        work=Call(function="builders.plan.nf4:plan", inputs=inputs, params=params),
        cost=costs.nf4_mix(entry.variant),
        checks=(budgets.CHECK,),
        alone=True,
    )
    skip = {"skip": Result(stage=f"plan {entry.tag}", name="kept")}
    yield Stage(
        name=f"build {entry.tag}",
        variant=entry.tag,
        phase=Phase.PLAN,
        does="quantize the other linear layers to NF4",
        work=Call(function="builders.bnb:quantize", inputs={"model": functions.MODEL}, params=skip),
        unit="tensors",
        cost=costs.nf4(entry.variant),
        alone=True,
    )


BNB_4BIT = VariantKind(
    kind=Kind.BNB_4BIT,
    engine=TRANSFORMERS,
    stages=stages,
    maker=lambda recipe, variant: f"build {variant.tag}",
    content=content,
)
