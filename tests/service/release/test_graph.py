"""The graph of stages: its order, what it refuses, what it says of the demo's recipe, and its picture."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from config.recipe import Gate, Recipe
from config.written import load_recipe
from service.cli.main import app
from service.release.drawing import boxes, draw
from service.release.graph import Call, Data, FileOf, Graph, Phase, Result, Stage, Whole, graph_of
from service.release.kinds import maker
from service.release.way import way

DEMO = Path(__file__).parents[3] / "demo" / "recipe.yaml"


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe(str(DEMO))


def stage(name: str, *also: str, phase: Phase = Phase.BUILD, **fields: object) -> Stage:
    return Stage(name=name, phase=phase, does=name, work=lambda work: None, also=also, **fields)  # type: ignore[arg-type]


def names(graph: Graph) -> list[str]:
    return [stage.name for stage in graph.stages]


def test_a_stage_comes_after_what_it_takes_phase_by_phase_and_else_as_declared() -> None:
    first, late = stage("first", phase=Phase.EXAMINE), stage("late", "last", phase=Phase.JUDGE)
    graph = graph_of([stage("last", "b", phase=Phase.JUDGE), stage("c", "a"), stage("b"), stage("a"), first, late])
    assert names(graph) == ["first", "b", "a", "c", "last", "late"]
    assert names(graph_of([stage("a", after=("b",)), stage("b")])) == ["b", "a"]


def test_a_call_says_itself_what_it_takes(tmp_path: Path) -> None:
    sources = {"model": Whole(stage="fix"), "files": [FileOf(stage="convert"), Data(path=tmp_path)], "again": FileOf(stage="fix", path="a")}
    call = Call(function="m:f", inputs=sources, params={"skip": Result(stage="plan", name="kept"), "most": 3})
    assert call.takes == ("fix", "convert", "plan")
    assert replace(stage("x", "fix", "other"), work=call).takes == ("fix", "convert", "plan", "other")


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([stage("a"), stage("a")], "unique"),
        ([stage("a", "nobody")], "take what no stage makes: .*'a', 'nobody'"),
        ([stage("a", "b"), stage("b", "a"), stage("c")], r"in a circle: \['a', 'b'\]"),
        ([stage("a", "b"), stage("b", phase=Phase.JUDGE)], "later phase makes: .*'a', 'b'"),
    ],
)
def test_a_graph_that_cannot_be_walked_is_refused(stages: list[Stage], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        graph_of(stages)


def test_nothing_is_built_before_every_gate_on_the_release_was_judged(recipe: Recipe) -> None:
    graph = way(recipe)
    gated = {stage.name for stage in graph.stages if stage.gated}
    assert gated == {"text overlap", "conversations", "sanity", "metadata", "parity", "long text", "templates", "imatrix check"}
    assert graph.last_gated == "imatrix check"
    order = names(graph)
    for stage in graph.stages:
        if stage.phase > Phase.EXAMINE:
            assert gated <= set(graph.awaits(stage))
            assert order.index(stage.name) > order.index("imatrix check")


def test_the_way_has_a_stage_for_each_variant_and_for_nothing_else(recipe: Recipe) -> None:
    graph = way(recipe)
    for variant in recipe.variants.listed():
        assert maker(recipe, variant) in graph
        assert f"measure {variant.tag}" in graph
    assert maker(recipe, next(variant for variant in recipe.variants.listed() if variant.tag == "UD-Q4_K_XL")) == "round UD-Q4_K_XL"
    plain = recipe.model_copy(update={"variants": recipe.variants.model_copy(update={"dynamic": (), "bnb_4bit": False, "sixteen_bit": False})})
    assert not {"sensitivity", "build bnb-4bit", "reference 16bit"} & set(names(way(plain)))
    assert "activations" not in graph
    float16 = recipe.model_copy(update={"gates": (*recipe.gates, Gate(name="f", measure="float16.failures", at_most=0))})
    assert "activations" in way(float16)


def test_every_measure_that_the_demo_s_gates_are_on_is_declared_by_a_stage(recipe: Recipe) -> None:
    graph = way(recipe)
    assert {gate.measure for gate in recipe.gates} <= graph.measures
    assert {"kld.chat.mean", "same_top.plain", "plan.error"} <= graph.measures
    one_text = recipe.evaluation.model_copy(update={"divergence": recipe.evaluation.divergence.model_copy(update={"plain": ()})})
    assert "kld.chat.mean" not in way(recipe.model_copy(update={"evaluation": one_text})).measures


def test_stages_that_are_alike_share_a_box(recipe: Recipe) -> None:
    found = {(box.label, len(box.stages)): box for box in boxes(way(recipe))}
    alike = {("build", 11), ("build UD-Q…", 3), ("build bnb-4bit", 1), ("plan UD-Q…", 3), ("round UD-Q…", 3), ("measure", 14), ("measure", 2), ("snapshot", 1)}
    assert alike <= found.keys()
    assert found["imatrix", 1].takes == {"templates"}, "what it also takes, templates have taken before"


def test_the_picture_stands_alone_and_shows_every_box(recipe: Recipe) -> None:
    graph = way(recipe)
    picture = ET.fromstring(draw(graph))  # noqa: S314  our own
    space = "{http://www.w3.org/2000/svg}"
    assert len(picture.findall(f"{space}g")) == len(boxes(graph))
    width, height = float(picture.attrib["width"]), float(picture.attrib["height"])
    corners = [(float(box.attrib["x"]), float(box.attrib["y"])) for box in picture.iter(f"{space}rect")]
    assert len(set(corners)) == len(corners)
    assert all(0 <= x < width and 0 <= y < height for x, y in corners)
    assert picture.find(f".//{space}script") is None


def test_the_picture_in_the_readme_is_the_one_that_the_command_draws(recipe: Recipe) -> None:
    drawn = (DEMO.parents[1] / "docs" / "way.svg").read_text(encoding="utf-8")
    assert drawn == draw(way(recipe)), "sluice stages --recipe demo/recipe.yaml --svg docs/way.svg"


def test_the_command_lists_and_draws_without_a_hub(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["stages", "--recipe", str(DEMO), "--json", "--svg", str(tmp_path / "way.svg")], env={"SLUICE_HUB_ENDPOINT": "http://127.0.0.1:1"}
    )
    assert done.exit_code == 0
    listed = json.loads(done.stdout)
    assert [row["name"] for row in listed][:3] == ["upstream", "snapshot", "text overlap"]
    assert next(row for row in listed if row["name"] == "parity")["measures"][:2] == ["parity.token_mismatches", "parity.known"]
    assert (tmp_path / "way.svg").read_text().startswith("<svg")
    shown = CliRunner().invoke(app, ["stages", "--recipe", str(DEMO)]).stdout
    assert "templates: compare what both engines make of template and tokenizer (its gates may end the run)" in shown
    assert CliRunner().invoke(app, ["stages", "--recipe", str(DEMO), "--svg", str(tmp_path / "way.txt")]).exit_code == 2
    assert "no recipe" in CliRunner().invoke(app, ["stages", "--recipe", "nowhere"]).stderr.lower()
