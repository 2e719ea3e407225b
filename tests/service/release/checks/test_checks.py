"""Terms and architecture, and how the checks of a graph are run together."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from config.errors import ConfigurationError, HubError, UpstreamError
from config.written import load_recipe
from service.release import checks
from service.release.checks import Remark, architecture, terms
from service.release.graph import Check, Phase, Stage, graph_of
from service.release.prospect import Prospect
from service.release.way import way
from tests.service.release.conftest import ROOT

MakeProspect = Callable[..., Prospect]


def test_a_gated_release_is_refused_and_one_without_a_licence_remarked(prospect: MakeProspect) -> None:
    known = prospect()
    assert list(terms.unfit(known)) == []
    said = terms.unfit(replace(known, upstream=replace(known.upstream, gated=True, license=None)))
    unstated = next(said)
    assert "states no licence" in unstated
    assert isinstance(unstated, Remark)
    with pytest.raises(UpstreamError, match="is gated"):
        next(said)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"architectures": ["Qwen3ForCausalLM"]}, None),
        ({"architectures": ["StrangeForCausalLM"]}, "has the architecture StrangeForCausalLM, which the converter"),
        ({"architectures": None}, None),
        ({"architectures": [], "model_type": None}, r"does not say which architecture the model has \(`architectures`\)\. Ask its owner"),
        ({"architectures": None, "model_type": "strange"}, "has no language model of the model_type 'strange'"),
        ({"architectures": None, "text_config": {"architectures": ["LlamaForCausalLM"]}}, None),
        ({"architectures": ["StrangeForConditionalGeneration"], "text_config": {"architectures": ["LlamaForCausalLM"]}}, None),
        ({"architectures": ["StrangeForConditionalGeneration"], "text_config": {}}, "has the architecture StrangeForConditionalGeneration, which"),
        ({"architectures": ["Qwen2VLForConditionalGeneration"], "text_config": {}}, None),
    ],
)
def test_architectures(prospect: MakeProspect, changes: dict[str, object], words: str | None) -> None:
    known = prospect()
    with pytest.raises(UpstreamError, match=words) if words else nullcontext():
        assert list(architecture.unknown(replace(known, config={**known.config, **changes}))) == []


def test_each_check_runs_once_and_is_told_under_the_first_stage_that_has_it(prospect: MakeProspect) -> None:
    asked = []

    def look(known: Prospect) -> Iterator[str]:
        asked.append(known)
        yield "This is wrong."
        yield Remark("This is odd.")

    def fail(known: Prospect) -> Iterator[str]:
        raise HubError("The Hub is down.")

    twice, broken = Check(name="twice", stage="a", look=look), Check(name="broken", stage="c", look=fail)
    stages = [Stage(name=name, phase=Phase.BUILD, does="", work=lambda work: None, checks=(twice,)) for name in "ab"]
    graph = graph_of([*stages, Stage(name="c", phase=Phase.PUBLISH, does="", work=lambda work: None, checks=(broken, twice))])
    found = checks.problems(graph, prospect())
    assert len(asked) == 1
    assert [(item.stage, item.check, item.sentence, item.fatal) for item in found] == [
        ("a", "twice", "This is wrong.", True),
        ("a", "twice", "This is odd.", False),
        ("c", "broken", "The Hub is down.", True),
    ]
    with pytest.raises(ConfigurationError, match=r"^This is wrong\. The Hub is down\.$"):
        checks.refuse(found)
    checks.refuse(found[1:2])
    with pytest.raises(HubError, match=r"^The Hub is down\.$"):
        checks.refuse(found[2:])


def test_what_takes_a_process_can_be_left_out_or_looked_for_alone(prospect: MakeProspect) -> None:
    made = [Check(name=name, stage="a", look=lambda known: ("This is wrong.",), apart=apart) for name, apart in (("cheap", False), ("dear", True))]
    graph = graph_of([Stage(name="a", phase=Phase.BUILD, does="", work=lambda work: None, checks=tuple(made))])
    found = [[item.check for item in checks.problems(graph, prospect(), apart=apart)] for apart in (None, False, True)]
    assert found == [["cheap", "dear"], ["cheap"], ["dear"]]


FILE = """
from service.release.graph import Check


def look(prospect):
    yield f"The name {prospect.upstream.release.name} is too short."


CHECKS = (Check(name="names", stage="plan", look=look),)
"""


def test_one_file_is_a_check_of_every_stage_of_its_name(prospect: MakeProspect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "names.py").write_text(FILE, encoding="utf-8")
    monkeypatch.setattr(checks, "__path__", [*checks.__path__, str(tmp_path)])
    checks.every.cache_clear()
    try:
        recipe = load_recipe(str(ROOT / "demo" / "recipe.yaml"))
        graph = way(recipe)
        assert {stage.family for stage in graph.stages for check in stage.checks if check.name == "names"} == {"plan"}
        told = [item for item in checks.problems(graph, prospect(recipe=recipe)) if item.check == "names"]
        assert [(item.stage, item.sentence) for item in told] == [("plan UD-Q4_K_XL", "The name model is too short.")]
    finally:
        checks.every.cache_clear()


def test_every_check_is_of_a_stage_that_there_is() -> None:
    families = {stage.family for stage in way(load_recipe(str(ROOT / "demo" / "recipe.yaml"))).stages}
    assert {check.stage for check in checks.every()} <= families
    assert {check.name for check in checks.every()} >= {"gates", "architecture", "budgets", "terms", "data", "publishing token", "target repos"}
