"""The bench of estimates: steps are counted to their stages, and the real model is the one that is meant."""

from pathlib import Path

import pytest

from bench.estimate import RECIPE, Row, owner, rows, table
from bench.models import real
from builders import convert
from config.digests import file_sha256
from config.errors import ToolError
from config.written import load_recipe
from engines import hf, llama

NAMES = ("reference", "reference 16bit", "build Q4_0", "divergence", "questions", "report", "publish", "imatrix", "imatrix check")


@pytest.mark.parametrize(
    ("step", "stage"),
    [
        ("divergence 1", "divergence"),
        ("divergence bnb-4bit from 8 to 16 windows", "divergence"),
        ("questions Q4_0", "questions"),
        ("reference", "reference"),
        ("reference 16bit", "reference 16bit"),
        ("reference from 3 to 6 questions", "reference"),
        ("imatrix check", "imatrix check"),
        ("contents", "report"),
        ("chat", "publish"),
        ("something else", "something else"),
    ],
)
def test_a_step_belongs_to_the_stage_whose_words_it_begins_with(step: str, stage: str) -> None:
    assert owner(step, NAMES) == stage


def test_steps_are_summed_and_none_is_lost() -> None:
    estimated = [{"name": "questions", "seconds": 10.0}, {"name": "judge", "seconds": 0.5}]
    taken = [{"name": "questions Q4_0", "seconds": 3.0}, {"name": "questions Q8_0", "seconds": 4.0}, {"name": "chat", "seconds": 2.0}]
    found = rows(estimated, taken)
    assert found == [
        Row(name="questions", estimated=10.0, taken=7.0),
        Row(name="judge", estimated=0.5, taken=0.0),
        Row(name="chat", estimated=0.0, taken=2.0),
    ]
    assert [str(column.footer) for column in table("x", found).columns] == ["all", "10.5", "9.0", "1.17"]


def test_the_recipe_takes_samples_that_do_not_grow() -> None:
    recipe = load_recipe(str(RECIPE))
    assert recipe.evaluation.divergence.most == recipe.evaluation.divergence.tokens
    assert recipe.evaluation.mmlu.most == recipe.evaluation.mmlu.questions_per_subject


@pytest.mark.slow
def test_the_real_model_is_made_the_same_every_time_and_works_in_both_engines(tmp_path: Path) -> None:
    model = tmp_path / "model"
    try:
        real.smollm2(model)
    except ToolError as error:
        pytest.skip(str(error))
    assert file_sha256(model / "model.safetensors") == WEIGHTS, "figures of the bench are of these weights"
    (tmp_path / "gguf").mkdir()
    made = convert.convert(tmp_path / "gguf", model=model, name="SmolLM2")
    prompt = "The capital of France is"
    with hf.open_model(model, threads=1) as one, llama.open_model(tmp_path / "gguf" / made["file"], context=64, threads=1) as other:
        answers = [engine.detokenize(engine.generate(engine.tokenize(prompt, add_special=False), max_tokens=3, stop=())) for engine in (one, other)]
    assert answers[0] == answers[1]
    assert "Paris" in answers[0]


WEIGHTS = "22c0b049cdf10aad9b8ce0247d7825122114e07e24765f5f2d0446181b261ecb"
