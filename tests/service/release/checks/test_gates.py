"""Gates that could never be judged are found in the recipe alone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from config.recipe import Recipe, load_recipe
from service.release.checks import Remark, gates
from service.release.graph import Phase, Stage, graph_of
from service.release.way import way
from tests.service.release.conftest import DATA, ROOT

MakeRecipe = Callable[..., Recipe]


def said(recipe: Recipe) -> list[str]:
    return list(gates.wrong(recipe, gates.measured(way(recipe))))


def gate(**parts: object) -> dict[str, object]:
    return {"name": "x", "at_most": 0.1, **parts}


CLOSE = {"name": "close", "measure": "kld.mean", "at_most": 0.1}


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("kld.meen", "kld.mean"), ("float16.failure", "float16.failures"), ("Kld.mean", "kld.mean"), ("mmlu.acuracy", "mmlu.accuracy")],
)
def test_a_mistyped_measurement_is_told_with_what_was_meant(recipe: MakeRecipe, wrong: str, meant: str) -> None:
    (sentence,) = said(recipe(gates=[CLOSE, gate(measure=wrong)]))
    assert sentence == f"Gate x is on {wrong}, which nothing in this recipe measures. Did you mean {meant}?"


def test_what_is_like_nothing_is_told_with_everything_there_is(recipe: MakeRecipe) -> None:
    (sentence,) = said(recipe(gates=[CLOSE, gate(measure="zzz")]))
    assert "kld.p999" in sentence
    assert "sanity.failures" in sentence


def test_a_text_s_own_figures_are_there_when_there_are_two(recipe: MakeRecipe) -> None:
    wanted = [gate(name=name, measure=name) for name in ("kld.chat.mean", "same_top.plain", "dp.rms.chat", "kld.plain.p99")]
    assert len(said(recipe(gates=wanted))) == 4
    two = {**recipe().evaluation.model_dump(), "divergence": {"chat": [DATA / "evaluation.jsonl"], "plain": [DATA / "evaluation_questions.txt"]}}
    assert said(recipe(gates=wanted, evaluation=two)) == []


def test_scopes(recipe: MakeRecipe) -> None:
    (sentence,) = said(recipe(gates=[gate(measure="kld.mean", scope="release")]))
    assert "Leave out `scope: release`" in sentence
    assert said(recipe(gates=[gate(measure="sanity.failures", scope="release")])) == []
    # what was measured once is known of every variant
    assert said(recipe(gates=[CLOSE, gate(measure="activation.max", tags=["Q4_0"])])) == []


def test_gates_for_variants_that_are_not_there(recipe: MakeRecipe) -> None:
    (sentence,) = said(recipe(gates=[CLOSE, gate(measure="kld.mean", tags=["Q4_0"], kinds=["bnb-4bit"])]))
    assert sentence == "Gate x is for Q4_0, and none of these is of the kinds bnb-4bit. Correct its `tags` or its `kinds`."
    (sentence,) = said(recipe(gates=[CLOSE, gate(measure="kld.mean", kinds=["bnb-4bit"])]))
    assert isinstance(sentence, Remark)


def test_variants_without_a_gate(recipe: MakeRecipe) -> None:
    (sentence,) = said(recipe(gates=[CLOSE | {"kinds": ["gguf"]}]))
    assert sentence.startswith("No gate is for the variant 16bit")


def test_measurements_that_some_variants_do_not_have(recipe: MakeRecipe) -> None:
    (sentence,) = said(recipe(gates=[gate(measure="weights.failures")]))
    assert "not measured of 16bit" in sentence
    planned = {"sixteen_bit": False, "dynamic": ["UD-Q4_K_XL", {"tag": "own", "bpw": 4}]}
    (sentence,) = said(recipe(variants=planned, gates=[CLOSE, gate(measure="plan.replaced")]))
    assert "not measured of own, so" in sentence
    assert said(recipe(variants=planned, gates=[CLOSE, gate(measure="plan.error")])) == []


@pytest.mark.parametrize("path", ["demo/recipe.yaml", "tests/acceptance/recipe.yaml"])
def test_recipes_that_work_are_found_sound(path: str) -> None:
    assert said(load_recipe(str(ROOT / path))) == []


def test_the_default_recipe_is_sound(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("calibration.jsonl", "evaluation.jsonl", "wiki.test.raw", "mmlu"):
        (tmp_path / "data" / name).touch()
    (tmp_path / "default.yaml").write_bytes((ROOT / "config/recipes/default.yaml").read_bytes())
    assert said(load_recipe(str(tmp_path / "default.yaml"))) == []


def test_a_graph_tells_what_is_measured_once() -> None:
    done = {"does": "", "work": lambda work: None}
    graph = graph_of(
        [
            Stage(name="sanity", phase=Phase.EXAMINE, measures=("sanity.failures",), gated=True, **done),
            Stage(name="divergence", phase=Phase.MEASURE, measures=("kld.mean",), **done),
        ]
    )
    assert gates.measured(graph) == gates.Measured(once={"sanity.failures"}, each={"kld.mean"}, own={})
