"""Text that the model writes itself, on the way of a release: who takes it, in which order, what it costs, and how a card calls it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config.prompt import OPENINGS
from config.recipe import Recipe
from config.texts import Text
from config.written import load_recipe
from service.release import costs, functions
from service.release.checks import data, gates
from service.release.graph import Call, Data, FileOf, Graph
from service.release.prospect import Prospect
from service.release.way import way
from tests.service.release.conftest import DATA, RECIPE
from tests.service.release.test_costs import SPEED

MakeRecipe = Callable[..., Recipe]
DEMO = Path(__file__).parents[3] / "demo" / "recipe.yaml"
GATE = {"name": "generated text", "measure": "generated.failures", "at_most": 0, "scope": "release"}
FLOAT16 = {"name": "float16", "measure": "float16.failures", "at_most": 0}
EVALUATION: dict[str, Any] = RECIPE["evaluation"]  # type: ignore[assignment]


@pytest.fixture
def written(recipe: MakeRecipe) -> MakeRecipe:
    """A recipe whose model writes both texts, or what is said instead."""

    def make(calibration: object = True, evaluation: object = True, **more: object) -> Recipe:
        parts = {"calibration": {"generated": calibration}, "evaluation": {**EVALUATION, "divergence": {"generated": evaluation}}}
        return recipe(**{**parts, "gates": [*RECIPE["gates"], GATE, FLOAT16], **more})  # type: ignore[misc]

    return make


def call(graph: Graph, stage: str) -> Call:
    work = graph[stage].work
    assert isinstance(work, Call)
    return work


def test_a_fault_is_found_where_it_arose_and_the_text_is_compared_once_it_is_there(written: MakeRecipe) -> None:
    graph = way(written())
    names = [stage.name for stage in graph.stages]
    order = ["fix", "sanity", "convert", "metadata", "parity", "templates", "generated text", "text overlap", "activations", "imatrix", "evaluation text"]
    assert [name for name in names if name in order] == order
    assert graph["generated text"].gated


def test_everything_that_takes_text_takes_what_the_model_wrote(written: MakeRecipe) -> None:
    graph = way(written(variants={"gguf": ["Q4_0"], "dynamic": ["UD-Q4_K_XL"], "bnb_4bit": True, "dynamic_bnb_4bit": ["dynamic-bnb-4bit"]}))
    takers = {stage.name for stage in graph.stages if "generated text" in stage.takes}
    assert {"text overlap", "activations", "imatrix", "sensitivity", "evaluation text", "divergence", "publish"} <= takers
    assert any("nf4" in name.lower() or "NF4" in name for name in takers), takers
    assert call(graph, "imatrix").inputs["chat"] == [FileOf(stage="generated text", path="calibration.jsonl")]
    assert call(graph, "imatrix").inputs["plain"] == [FileOf(stage="generated text", path="calibration.txt")]
    assert call(graph, "evaluation text").inputs["chat"] == [FileOf(stage="generated text", path="evaluation.jsonl")]
    assert call(graph, "text overlap").inputs["evaluated_plain"] == [FileOf(stage="generated text", path="evaluation.txt")]


def test_it_stands_beside_the_operators_own_text(recipe: MakeRecipe) -> None:
    own = DATA / "evaluation.jsonl"
    parts = {"calibration": {"generated": True}, "evaluation": {**EVALUATION, "divergence": {"chat": [own], "generated": 5000}}}
    graph = way(recipe(**parts, gates=[*RECIPE["gates"], GATE]))  # type: ignore[misc]
    assert call(graph, "evaluation text").inputs["chat"] == [Data(path=own), FileOf(stage="generated text", path="evaluation.jsonl")]
    assert call(graph, "parity").inputs["texts"] == [Data(path=own)]
    assert "kld.plain.mean" in graph.measures
    assert call(graph, "generated text").params == {"tokens": {"calibration": 60_000, "evaluation": 5000}}


def test_engines_are_compared_on_the_openings_before_the_model_writes(written: MakeRecipe) -> None:
    assert call(way(written()), "parity").inputs["texts"] == [Data(path=path) for path in OPENINGS.values()]


@pytest.mark.parametrize(("calibration", "evaluation"), [(True, False), (False, True)])
def test_a_model_may_write_one_of_the_two(recipe: MakeRecipe, calibration: bool, evaluation: bool) -> None:
    parts: dict[str, Any] = {"gates": [*RECIPE["gates"], GATE]}  # type: ignore[misc]
    parts |= {"calibration": {"generated": True}} if calibration else {"evaluation": {**EVALUATION, "divergence": {"generated": True}}}
    graph = way(recipe(**parts))
    (part,) = call(graph, "generated text").params["tokens"]
    assert part == ("calibration" if calibration else "evaluation")
    assert ("generated text" in graph["imatrix"].takes) is calibration
    assert ("generated text" in graph["divergence"].takes) is evaluation


def test_recipes_that_bring_their_text_have_the_same_stages_as_ever() -> None:
    recipe = load_recipe(str(DEMO))
    graph = way(recipe)
    assert "generated text" not in graph
    assert "text overlap" in graph["fix"].after
    assert graph["imatrix"].after == ("templates",)
    files = {"chat": [Data(path=path) for path in recipe.calibration.chat], "plain": [Data(path=path) for path in recipe.calibration.plain]}
    assert call(graph, "imatrix").inputs.items() >= files.items()
    assert call(graph, "parity").inputs["texts"] == [Data(path=path) for path in recipe.evaluation.divergence.plain]


def test_nothing_is_missing_for_a_recipe_without_files(written: MakeRecipe, prospect: Callable[..., Prospect]) -> None:
    found = prospect(recipe=written())
    assert list(data.unusable(found)) == []
    assert list(gates.wrong(found.recipe, gates.measured(way(found.recipe)))) == []


def test_less_than_two_windows_is_said_beforehand(written: MakeRecipe, prospect: Callable[..., Prospect]) -> None:
    (sentence,) = data.unusable(prospect(recipe=written(calibration=1000)))
    assert sentence == "`calibration.generated` asks for 1000 tokens, and two windows of 512 are needed at least. Ask for more."


def test_it_costs_in_proportion_to_its_tokens(written: MakeRecipe, prospect: Callable[..., Prospect]) -> None:
    few, many = (costs.generated(prospect(recipe=written(count, count)), SPEED) for count in (10_000, 40_000))
    assert 2 < many.seconds / few.seconds < 4.5
    assert few.memory == many.memory
    # and what takes the text reckons with as much
    taken = [costs.imatrix(prospect(recipe=written(count, count)), SPEED).seconds for count in (10_000, 40_000)]
    assert taken[1] > taken[0] + 1


def test_texts_by_what_they_hold() -> None:
    assert functions.texts(Text(plain=(DATA / "evaluation_questions.txt",)), "calibration") == {
        "chat": [],
        "plain": [Data(path=DATA / "evaluation_questions.txt")],
    }
    assert functions.written(Text(generated=1), Text(plain=(DATA,))) == ("generated text",)
    assert functions.written(Text(plain=(DATA,))) == ()
