"""Gates that could never be judged are found in the recipe alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from config.data import as_written
from config.recipe import Recipe
from config.written import load_recipe
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


@pytest.mark.parametrize("name", ["default", "reference"])
def test_bundled_recipes_are_sound_wherever_they_are_read(name: str) -> None:
    assert said(load_recipe(name, locate=as_written)) == []


@pytest.mark.parametrize(
    "variants", [{"gguf": ["Q4_K_M"]}, {"gguf": ["F16"], "sixteen_bit": False}, {"sixteen_bit": False, "dynamic_bnb_4bit": ["dynamic-bnb-4bit"]}, {}]
)
@pytest.mark.parametrize("questions", [True, False])
def test_gates_by_default_suit_what_is_built_and_measured(tmp_path: Path, variants: dict[str, object], questions: bool) -> None:
    path = tmp_path / "own.yaml"
    evaluation = {"mmlu": {"data": str(DATA / "tiny_mmlu")}} if questions else {}
    path.write_text(yaml.safe_dump({"name": "own", "variants": variants, "evaluation": evaluation}))
    found = load_recipe(str(path))
    assert said(found) == []
    assert any(gate.measure == "mmlu.difference" for gate in found.gates) is questions


def test_without_questions_nothing_that_rests_on_them_is_measured(recipe: MakeRecipe) -> None:
    asked = recipe()
    bare = asked.model_copy(update={"evaluation": asked.evaluation.model_copy(update={"mmlu": None})})
    names, with_questions = (gates.measured(way(item)).each for item in (bare, asked))
    assert {name.partition(".")[0] for name in with_questions - names} == {"mmlu", "flips", "efficiency"}
    assert {"kld.mean", "generation.failures", "file.failures"} <= names
    assert not [stage.name for stage in way(bare).stages if "question" in stage.name or "reference" in stage.name]


def test_a_graph_tells_what_is_measured_once() -> None:
    done = {"does": "", "work": lambda work: None}
    graph = graph_of(
        [
            Stage(name="sanity", phase=Phase.EXAMINE, measures=("sanity.failures",), gated=True, **done),
            Stage(name="divergence", phase=Phase.MEASURE, measures=("kld.mean",), **done),
        ]
    )
    assert gates.measured(graph) == gates.Measured(once={"sanity.failures"}, each={"kld.mean"}, own={})


def test_what_images_become_is_measured_of_projectors_alone(recipe: MakeRecipe) -> None:
    assert said(recipe(gates=[CLOSE, gate(measure="mmproj.error", kinds=["mmproj"])])) == []
    assert said(recipe(gates=[CLOSE, gate(measure="mmproj.float16", tags=["mmproj-F16"])])) == []
    (sentence,) = said(recipe(gates=[CLOSE, gate(measure="mmproj.error")]))
    assert "which is not measured of" in sentence
    (sentence,) = said(recipe(gates=[CLOSE, gate(measure="kld.mean", kinds=["mmproj"])]))
    assert "not measured of mmproj-BF16, mmproj-F16, mmproj-Q8_0" in sentence
