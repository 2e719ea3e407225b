"""Whoever releases a model that was trained for a type is told where the recipe does not build it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from config.recipe import Recipe
from config.words import Release
from service.release.checks import Remark, trained
from service.release.prospect import Prospect


@pytest.mark.parametrize(
    ("name", "variants", "said"),
    [
        ("m-qat-q4_0", {"gguf": ["Q8_0"]}, ["builds no Q4_0: let the recipe say `qat: Q4_0`"]),
        ("m-qat", {"gguf": ["Q8_0"]}, ["(its name): let the recipe say `qat: its type`"]),
        ("m-qat-q4_0", {"gguf": ["Q4_0"]}, []),
        ("m-qat", {"gguf": ["Q8_0"], "qat": "q4_0"}, []),
        ("m", {"gguf": ["Q8_0"]}, []),
    ],
)
def test_a_recipe_without_the_type(
    prospect: Callable[..., Prospect], recipe: Callable[..., Recipe], name: str, variants: dict[str, object], said: list[str]
) -> None:
    known = prospect(recipe=recipe(variants=variants))
    found = list(trained.missing(replace(known, upstream=replace(known.upstream, release=Release(repo=f"upstream/{name}", sha="1" * 40)))))
    assert len(found) == len(said)
    assert all(words in sentence and isinstance(sentence, Remark) for words, sentence in zip(said, found, strict=True))
