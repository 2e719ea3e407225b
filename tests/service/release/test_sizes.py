"""Sizes that are told before anything is built, of the bundled model."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from config.recipe import Recipe, Variants
from service.release.costs.sizes import STOCK_BITS
from service.release.prospect import Prospect
from service.release.sizes import PlannedVariant, size_of


def sizes(ahead: Prospect, variants: dict[str, object], **known: int) -> dict[str, PlannedVariant]:
    recipe = ahead.recipe.model_copy(update={"variants": Variants.model_validate({"sixteen_bit": False, **variants})})
    return {variant.tag: size_of(variant, replace(ahead, recipe=recipe), known) for variant in recipe.variants.listed()}


def test_a_planned_variant_is_as_large_as_its_budget(prospect: Callable[..., Prospect], recipe: Callable[..., Recipe]) -> None:
    ahead = prospect()
    entries = ["UD-Q8_K_XL", {"tag": "a", "bytes": "700kB"}, {"tag": "b", "bpw": 4}, {"tag": "c", "fit": {"memory": "600kB"}}, {"tag": "d", "bytes": "9GB"}]
    found = sizes(ahead, {"dynamic": entries}, b=5)
    assert found["UD-Q8_K_XL"].bytes == pytest.approx(ahead.parameters * STOCK_BITS["Q8_0"] / 8, rel=0.01)
    assert (found["a"].bytes, found["c"].bytes, found["a"].exact) == (700_000, 600_000, False)
    assert found["d"].bytes == pytest.approx(ahead.weights, rel=0.01), "no more than 16 bits"
    assert found["b"] == PlannedVariant(tag="b", bytes=5, exact=True), "what was built once is known"


def test_sizes_are_near_those_of_the_files(prospect: Callable[..., Prospect]) -> None:
    ahead = prospect()
    built = {"Q8_0": 3_960_000, "Q4_K_M": 2_380_000, "Q2_K": 1_640_000, "bnb-4bit": 2_730_000}  # as the demo's table in the README has them
    found = sizes(ahead, {"gguf": ["Q8_0", "Q4_K_M", "Q2_K"], "bnb_4bit": True})
    assert {tag: item.bytes for tag, item in found.items()} == {tag: pytest.approx(size, rel=0.06) for tag, size in built.items()}
    above = sizes(ahead, {"dynamic_bnb_4bit": ["dynamic-bnb-4bit", {"tag": "a-bnb-4bit", "bpw": 8}]})
    assert above["dynamic-bnb-4bit"].bytes == pytest.approx(1.1 * found["bnb-4bit"].bytes, rel=0.01)
    assert above["a-bnb-4bit"].bytes == pytest.approx(ahead.parameters, rel=0.01)
