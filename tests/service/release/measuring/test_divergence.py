"""Divergence of real variants of the bundled model, measured in stages as a run does, on samples that grow."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders import convert
from config.errors import SluiceError
from config.recipe import Gate, Recipe
from config.settings import Settings
from config.words import Kind, Variant
from config.written import load_recipe
from engines import tools
from qa import gates, texts
from service.execution.kept import Output, StageStore
from service.release.job import Event, Job
from service.release.measuring.divergence import WINDOWS, diverge
from service.release.measuring.samples import PUBLISHED, published_before, references
from service.release.products import Found, Made
from service.store import Store
from tests.service.helpers import at_work, output, queue_run

ROOT = Path(__file__).parents[4]
CONTEXT = 128


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Output, Output, list[Made]]:
    """The 16-bit GGUF, evaluation windows in looks of 4, 8 and 16, and three variants of which one is broken."""
    made: dict[str, Path] = {name: tmp_path_factory.mktemp(name) for name in ("base", "windows", "Q4_0", "Q2_K", "IQ4_NL")}
    for folder in made.values():
        (folder / "files").mkdir()
    result = convert.convert(made["base"] / "files", model=ROOT / "demo" / "model", name="tiny")
    base = output(made["base"], result)
    given = {"chat": [ROOT / "demo/data/evaluation.jsonl"], "plain": [ROOT / "demo/data/evaluation_questions.txt"]}
    looks = texts.prepare(made["windows"] / "files", model=ROOT / "demo" / "model", tokens=4 * CONTEXT, most_tokens=16 * CONTEXT, context=CONTEXT, **given)
    assert looks["looks"] == [4, 8, 16]
    variants = []
    for tag in ("Q4_0", "Q2_K", "IQ4_NL"):
        file = made[tag] / "files" / f"tiny-{tag}.gguf"
        tools.run("llama-quantize", base.file().path, file, tag, "1")
        if tag == "IQ4_NL":
            file.write_bytes(file.read_bytes()[:1000])
        variants.append(Made(variant=Variant(tag=tag, kind=Kind.GGUF), output=output(made[tag], {"file": file.name})))
    return base, output(made["windows"], looks), variants


def recipe(*conditions: Gate) -> Recipe:
    demo = load_recipe(str(ROOT / "demo" / "recipe.yaml"))
    variants = demo.variants.model_copy(update={"gguf": ("Q4_0", "Q2_K", "IQ4_NL"), "dynamic": (), "bnb_4bit": False, "sixteen_bit": False})
    return demo.model_copy(update={"gates": conditions, "variants": variants, "evaluation": demo.evaluation.model_copy(update={"context": CONTEXT})})


def diverged(store: Store, home: Path, built: tuple[Output, Output, list[Made]], *conditions: Gate) -> tuple[Mapping[str, Found | SluiceError], dict[str, str]]:
    """What was found, and the state of each stage by its name."""
    base, windows, made = built
    events: list[Event] = []
    settings = Settings(home=home, threads=1)
    run = queue_run(store)
    job = Job(store=store, run=run, recipe=recipe(*conditions), settings=settings, stages=StageStore(home), listener=events.append)
    products = {"convert": base, WINDOWS: windows, PUBLISHED: published_before(job, [item.variant for item in made])}
    found = diverge(at_work(job, products | {f"build {item.variant.tag}": item.output for item in made}))
    return found, {event.stage: event.state for event in events if event.state not in {"started", "progressed"}}


def test_only_what_a_gate_leaves_undecided_is_measured_on_more(file_store: Store, tmp_path: Path, built: tuple[Output, Output, list[Made]]) -> None:
    unlimited = Gate(name="any", measure="kld.mean", at_most=100)
    found, stages = diverged(file_store, tmp_path, built, unlimited)
    assert stages == {"divergence 1": "done"}
    assert isinstance(found["IQ4_NL"], SluiceError)
    first = found["Q2_K"]
    assert isinstance(first, Found)
    assert [(sample.look, sample.looks) for sample in first.samples] == [(1, 3)]
    assert found["Q4_0"].measured["kld.mean"].value < 0.5 * first.measured["kld.mean"].value

    # a limit at what the first sample found of Q2_K is as undecided as can be, and Q4_0 is far below it
    close = Gate(name="close", measure="kld.mean", at_most=first.measured["kld.mean"].value)
    found, stages = diverged(file_store, tmp_path, built, close)
    assert stages["divergence 1"] == "reused"
    assert "divergence 1 from 4 to 8 windows" in stages
    assert (found["Q4_0"].samples[0].look, found["Q2_K"].samples[0].look) == (1, len(stages))
    assert found["Q2_K"].measured["kld.mean"].n > first.measured["kld.mean"].n
    measured = [value is not None for value in found["Q2_K"].samples[0].influences["kld.mean"]]
    assert sum(measured) > 4

    again, stages = diverged(file_store, tmp_path, built, close)
    assert again["Q2_K"] == found["Q2_K"]
    assert set(stages.values()) == {"reused"}


def test_a_relative_gate_extends_what_it_compares_with(file_store: Store, tmp_path: Path, built: tuple[Output, Output, list[Made]]) -> None:
    found, _ = diverged(file_store, tmp_path, built, Gate(name="any", measure="kld.mean", at_most=100))
    ratio = found["Q2_K"].measured["kld.mean"].value / found["Q4_0"].measured["kld.mean"].value
    close = Gate(name="close", measure="kld.mean", relative_to="Q4_0", compare="ratio", at_most=ratio)
    found, _ = diverged(file_store, tmp_path, built, close)
    assert found["Q4_0"].samples[0].look == found["Q2_K"].samples[0].look > 1
    own = found["Q2_K"]
    variant = Variant(tag="Q2_K", kind=Kind.GGUF, like="Q4_0")
    stock = close.model_copy(update={"relative_to": "stock"})
    (result,) = gates.judge(variant, [stock], own.measured, {}, samples=own.samples, references=references(variant, found, {})).results
    assert result.reference == found["Q4_0"].measured["kld.mean"].value
    independent = [replace(own.samples[0], windows="others")]
    (apart,) = gates.judge(variant, [stock], own.measured, {}, samples=independent, references=references(variant, found, {})).results
    assert 0 < result.margin < apart.margin, "windows that are hard for both are no error of their difference"
    broken = close.model_copy(update={"relative_to": "IQ4_NL"})
    verdict = gates.judge(variant, [broken], own.measured, {}, samples=own.samples, references=references(variant, found, {}))
    assert "IQ4_NL, which the gate close compares with, has no kld.mean: llama.cpp cannot load" in verdict.reasons[0]
    assert np.isfinite(result.margin)
