"""Kinds of variants: each is one file, so a file that is put beside them is a kind, from the recipe to the repo."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from config.errors import ConfigurationError
from config.recipe import Recipe, Variants
from config.words import Kind, Variant
from service.machine.speed import Speed
from service.release import costs, kinds
from service.release.checks import gates
from service.release.paths import may_publish
from service.release.prospect import Prospect
from service.release.sizes import size_of
from service.release.way import way

FILE = '''
"""Blocks of 32 without an importance matrix."""

from config.words import Variant
from publishers.form import Form
from service.release import costs, functions
from service.release.graph import Call, OfRelease, Phase, Stage
from service.release.kinds import LLAMA_CPP, VariantKind


def stages(recipe):
    for entry in recipe.variants.others.get("blocks", ()):
        params = {"type": entry.options["type"], "name": OfRelease(name="name")}
        call = Call(function="builders.quantize:quantize", inputs={"gguf": functions.GGUF}, params=params)
        yield Stage(name=f"build {entry.tag}", variant=entry.tag, phase=Phase.BUILD, does="quantize in blocks", work=call, unit="tensors")


KIND = VariantKind(
    kind="blocks",
    place=7,
    engine=LLAMA_CPP,
    stages=stages,
    maker=lambda recipe, variant: f"build {variant.tag}",
    content=lambda work, passed: [],
    holds=lambda name, variants, upstream: lambda path: path == f"{name}-blocks.gguf",
    form=Form(word="blocks", title="blocks of 32", library="gguf", tags=("gguf",)),
    repo=lambda variant: "-blocks",
    bits=lambda prospect, variant: 5.5,
)
'''


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kinds with one file more."""
    (tmp_path / "blocks_of_32.py").write_text(FILE, encoding="utf-8")
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    kinds.every.cache_clear()
    yield
    kinds.every.cache_clear()


def test_the_kinds_are_those_that_recipes_have_words_for_in_the_order_of_building() -> None:
    assert list(kinds.every()) == [Kind.GGUF, Kind.SIXTEEN_BIT, Kind.BNB_4BIT]


@pytest.mark.parametrize(
    ("variant", "repo"),
    [
        (Variant(tag="Q4_K_M", kind=Kind.GGUF), "acme/tiny-chat-GGUF"),
        (Variant(tag="16bit", kind=Kind.SIXTEEN_BIT), "acme/tiny-chat"),
        (Variant(tag="bnb-4bit", kind=Kind.BNB_4BIT), "acme/tiny-chat-bnb-4bit"),
        (Variant(tag="dynamic-bnb-4bit", kind=Kind.BNB_4BIT), "acme/tiny-chat-dynamic-bnb-4bit"),
    ],
)
def test_each_kind_has_its_repo_and_each_nf4_variant_one_of_its_own(variant: Variant, repo: str) -> None:
    assert kinds.repo_of(variant, "acme", "tiny-chat") == repo


@pytest.mark.usefixtures("beside")
def test_one_file_is_a_kind(recipe: Callable[..., Recipe], prospect: Callable[..., Prospect]) -> None:
    wanted = recipe(
        variants={"gguf": ["Q4_0"], "sixteen_bit": False, "others": {"blocks": [{"tag": "B5", "options": {"type": "Q5_0"}}]}},
        gates=[{"name": "close", "measure": "kld.mean", "at_most": 0.1}, {"name": "whole", "measure": "weights.failures", "at_most": 0, "kinds": ["blocks"]}],
    )
    variant = wanted.variants.listed()[-1]
    assert variant == Variant(tag="B5", kind="blocks")
    graph, ahead = way(wanted), prospect(recipe=wanted)
    assert graph["build B5"].takes == ("convert",)
    assert {"build B5", "measure B5"} <= {name for stage in graph.stages for name in (stage.name, *stage.takes)}
    assert ahead.targets == {"ours/model-GGUF": (wanted.variants.listed()[0],), "ours/model-blocks": (variant,)}
    held = may_publish([variant], "model", ["LICENSE"])
    assert [held(path) for path in ("model-blocks.gguf", "README.md", "LICENSE", "model-B5.gguf")] == [True, True, True, False]
    assert size_of(variant, ahead, {}).bytes == round(ahead.parameters * 5.5 / 8)
    assert list(gates.wrong(wanted, gates.measured(graph))) == []
    alone = prospect(recipe=recipe(variants={"gguf": ["Q4_0"], "sixteen_bit": False}))
    assert costs.divergence(ahead, Speed(threads=2)).seconds > costs.divergence(alone, Speed(threads=2)).seconds


def test_a_kind_that_no_file_declares_is_told_with_those_there_are(recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(ConfigurationError, match=r"no kind of variants called blokcs, of which the recipe wants B5: there are gguf, 16bit, bnb-4bit\."):
        way(recipe(variants={"others": {"blokcs": ["B5"]}}))


def test_a_gate_for_a_kind_that_does_not_exist_is_told_when_the_recipe_is_read(recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(ValidationError, match="gate close is for variants of the kinds ggfu, which do not exist; there are gguf, 16bit, bnb-4bit"):
        recipe(gates=[{"name": "close", "measure": "kld.mean", "at_most": 0.1, "kinds": ["ggfu"]}])


def test_a_tag_is_one_variant_whatever_its_kind() -> None:
    with pytest.raises(ValidationError, match="repeated: q4_0"):
        Variants.model_validate({"others": {"blocks": ["q4_0"]}})
