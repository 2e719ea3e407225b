"""NF4 safetensors: plain ones, and planned ones that keep in 16 bits the linear layers that 4 bits hurt most."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from builders import weights
from builders.ggufs import Stored
from config.recipe import PLAIN_NF4, DynamicNf4, Recipe
from config.words import Kind, Variant
from publishers.card import Kept, Mix
from publishers.form import Form
from service.release import costs, functions
from service.release.checks import budgets
from service.release.costs import sizes
from service.release.costs.engines import NF4_SLOWER
from service.release.graph import Call, Phase, Result, Stage, Whole
from service.release.kinds import TRANSFORMERS, Planned, VariantKind, every_variant
from service.release.kinds.sixteen_bit import content, holds

if TYPE_CHECKING:
    from service.release.checks.smallest import Model
    from service.release.prospect import Prospect

SENSITIVITY = "sensitivity of NF4"
_LAYER = re.compile(r"(?:[A-Za-z_]\w*\.)*(?P<layer>\d+)\.(?P<part>.+)")


def stages(recipe: Recipe) -> Iterator[Stage]:
    """Plain NF4 where it is wanted or compared with, then the table for all planned ones, and of each its plan and its files."""
    if any(variant.tag == PLAIN_NF4 for variant in every_variant(recipe)):
        yield Stage(
            name=f"build {PLAIN_NF4}",
            variant=PLAIN_NF4,
            phase=Phase.BUILD,
            does="quantize the linear layers to NF4",
            work=Call(function="builders.bnb:quantize", inputs={"model": functions.WITH_TERMS}),
            unit="tensors",
            cost=costs.bnb,
        )
    if recipe.variants.dynamic_bnb_4bit:
        text = functions.calibration(recipe.calibration, recipe.evaluation.context)
        network = functions.network(functions.MODEL, text.chat)
        yield Stage(
            name=SENSITIVITY,
            phase=Phase.PLAN,
            does="measure what NF4 in each linear layer does to the model's predictions",
            work=Call(function="builders.sensitivity.nf4:measure", inputs={"model": network, **text.files}, params=text.sizes),
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
        alone=True,
    )
    skip = {"skip": Result(stage=f"plan {entry.tag}", name="kept")}
    yield Stage(
        name=f"build {entry.tag}",
        variant=entry.tag,
        phase=Phase.PLAN,
        does="quantize the other linear layers to NF4",
        work=Call(function="builders.bnb:quantize", inputs={"model": functions.WITH_TERMS}, params=skip),
        unit="tensors",
        cost=costs.nf4(entry.variant),
        alone=True,
    )


def _plain(tag: str) -> tuple[str, str]:
    return f"plain NF4 ({tag})", "plain NF4"


def _kept(mix: Mix, ours: Mapping[str, Stored], theirs: Mapping[str, Stored]) -> Mix:
    """With the modules that stay in 16 bits."""
    return replace(mix, kept=kept([name for name, tensor in theirs.items() if tensor.type == "NF4" and ours[name].type != "NF4"]))


def kept(names: Sequence[str]) -> tuple[Kept, ...]:
    """Modules of one kind together, with their layers: `model.layers.3.mlp.down_proj.weight` is `mlp.down_proj` in layer 3."""
    found: dict[str, list[int]] = {}
    for name in names:
        match = _LAYER.fullmatch(name.removesuffix(".weight"))
        layers = found.setdefault(match["part"] if match else name.removesuffix(".weight"), [])
        if match:
            layers.append(int(match["layer"]))
    return tuple(Kept(module=module, layers=tuple(sorted(layers))) for module, layers in sorted(found.items()))


def _too_small(prospect: "Prospect", variant: Variant, model: "Model") -> str | None:
    entry = prospect.recipe.variants.nf4_mix(variant.tag)
    return None if entry is None else budgets.too_small_nf4(entry.budget, model)


KIND = VariantKind(
    kind=Kind.BNB_4BIT,
    place=2,
    engine=TRANSFORMERS,
    stages=stages,
    maker=lambda recipe, variant: f"build {variant.tag}",
    content=content,
    holds=holds,
    form=Form(word=Kind.BNB_4BIT, title="NF4 safetensors", library="transformers", tags=("bitsandbytes", "4-bit", "nf4"), keeps=True, needs="bitsandbytes"),
    repo=lambda variant: f"-{variant.tag}",
    bits=sizes.nf4_bits,
    slower=NF4_SLOWER,
    planned=Planned(
        larger=True,
        yardstick=_plain,
        stand_in=lambda work, item, stock: stock.output,  # no file's name holds the tag
        stored=lambda output: weights.stored(output.whole.path),
        differences=_kept,
        too_small=_too_small,
    ),
)
