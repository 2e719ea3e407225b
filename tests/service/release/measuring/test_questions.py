"""Questions put to real variants of the bundled model, in stages as a run does, on samples that grow."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from builders import convert
from config.errors import MeasurementError, SluiceError
from config.recipe import Gate
from config.settings import Settings
from config.words import Kind, Outcome, Variant
from config.written import load_recipe
from engines import tools
from qa import gates, measure
from service.execution.kept import StageStore
from service.release.job import Event, Job
from service.release.measuring.questions import QUESTIONS, ask, question
from service.release.measuring.samples import PUBLISHED, published_before, references
from service.release.products import CLAIMS, Found, Made, Settled
from service.release.stages.measure import answer
from service.store import Store
from tests.service.helpers import at_work, output, queue_run

ROOT = Path(__file__).parents[4]
CLOSE = Gate(name="close", measure="mmlu.difference", at_least=-0.05)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, list[Made]]:
    """The 16-bit GGUF, and four variants: as good, somewhat worse, hopeless, and broken."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("BF16", "Q8_0", "Q2_K", "TQ2_0", "Q4_0")}
    for folder in folders.values():
        (folder / "files").mkdir()
    result = convert.convert(folders["BF16"] / "files", model=ROOT / "demo" / "model", name="tiny")
    made = [Made(variant=Variant(tag="BF16", kind=Kind.GGUF), output=output(folders["BF16"], result))]
    for tag in ("Q8_0", "Q2_K", "TQ2_0", "Q4_0"):
        file = folders[tag] / "files" / f"tiny-{tag}.gguf"
        tools.run("llama-quantize", "--pure", made[0].output.file().path, file, tag, "1")
        if tag == "Q4_0":
            file.write_bytes(file.read_bytes()[:1000])
        made.append(Made(variant=Variant(tag=tag, kind=Kind.GGUF), output=replace(output(folders[tag], {"file": file.name}), key=tag)))
    return made[0], made[1:]


class Run:
    """A run that asks at first 5 and at most 20 questions of each of 8 subjects."""

    def __init__(self, store: Store, home: Path, base: Made, *conditions: Gate) -> None:
        demo = load_recipe(str(ROOT / "demo" / "recipe.yaml"))
        asked = demo.evaluation.mmlu.model_copy(update={"questions_per_subject": 5, "most_questions_per_subject": 20})
        variants = demo.variants.model_copy(update={"gguf": ("Q8_0", "Q2_K", "TQ2_0", "Q4_0"), "dynamic": (), "bnb_4bit": False})
        changed = {"gates": conditions, "variants": variants, "evaluation": demo.evaluation.model_copy(update={"mmlu": asked})}
        settings = Settings(home=home, threads=1)
        self.events: list[Event] = []
        self.job = Job(
            store=store,
            run=queue_run(store),
            recipe=demo.model_copy(update=changed),
            settings=settings,
            stages=StageStore(home),
            listener=self.events.append,
        )
        # of the bundled model as it is: no stage repaired it here
        model = replace(base.output, folder=ROOT / "demo", key="model")
        most = {"shots": asked.shots, "questions_per_subject": 5, "most": 20}
        bank = self.job.apart("evaluation questions", "qa.measure:questions", {"mmlu": self.job.data(asked.data)}, threaded=False, **most)
        assert bank.result["looks"] == [5, 10, 20]
        self.work = at_work(self.job, {"convert": base.output, "fix": model, QUESTIONS: bank})
        self.work.products["reference"] = ask(self.work, "reference", base.output.file(), end=5)

    def question(self, made: Sequence[Made]) -> Mapping[str, Found | SluiceError]:
        self.work.products[PUBLISHED] = published_before(self.job, [item.variant for item in made])
        return question(self.work, made)

    @property
    def stages(self) -> list[tuple[str, str]]:
        return [(event.stage, event.state) for event in self.events if event.state not in {"started", "progressed"}]


def judged(item: Found | SluiceError, tag: str, *conditions: Gate) -> list[tuple[Outcome, bool, int]]:
    assert isinstance(item, Found)
    verdict = gates.judge(Variant(tag=tag, kind=Kind.GGUF), conditions, item.measured, {}, samples=item.samples)
    return [(result.outcome, result.undecided, result.look) for result in verdict.results]


def test_only_what_a_gate_leaves_undecided_is_asked_more(file_store: Store, tmp_path: Path, built: tuple[Made, list[Made]]) -> None:
    base, made = built
    run = Run(file_store, tmp_path, base, CLOSE)
    found = run.question(made)
    assert judged(found["Q8_0"], "Q8_0", CLOSE) == [(Outcome.PASSED, False, 2)]
    assert judged(found["Q2_K"], "Q2_K", CLOSE) == [(Outcome.FAILED, True, 3)]
    assert judged(found["TQ2_0"], "TQ2_0", CLOSE) == [(Outcome.FAILED, False, 1)]
    assert "cannot load" in str(found["Q4_0"])
    assert [found[tag].measured["mmlu.difference"].n for tag in ("Q8_0", "Q2_K", "TQ2_0")] == [80, 160, 40]
    names = [name for name, _ in run.stages]
    assert len(names) == len(set(names)), "the 16-bit model is asked no question twice"
    assert names == [
        "evaluation questions", "reference", "questions Q8_0", "questions Q2_K", "questions TQ2_0", "questions Q4_0",
        "reference from 5 to 10 questions", "questions Q8_0 from 5 to 10 questions", "questions Q2_K from 5 to 10 questions",
        "reference from 10 to 20 questions", "questions Q2_K from 10 to 20 questions",
    ]  # fmt: skip
    (sample,) = found["Q2_K"].samples
    assert {len(row) for row in sample.answers.values()} == {20}
    (result,) = gates.judge(Variant(tag="Q2_K", kind=Kind.GGUF), [CLOSE], found["Q2_K"].measured, {}, samples=[sample]).results
    assert "undecided, the sample is too small, even after 3 looks, the last at 160 questions." in result.reason

    # a run that was killed before its last stages and is carried out again does these and no others, and finds the same
    shutil.rmtree(run.job.stages.finished / next(stage.key for stage in file_store.stages(run.job.run.id) if stage.name == names[-1]))
    again = Run(file_store, tmp_path, base, CLOSE)
    assert {tag: item for tag, item in again.question(made).items() if tag != "Q4_0"} == {tag: item for tag, item in found.items() if tag != "Q4_0"}
    assert [name for name, state in again.stages if state != "reused"] == ["questions Q4_0", names[-1]]

    # what decides at once costs nothing more, and the first questions stay what they were
    passing = Run(file_store, tmp_path, base, CLOSE.model_copy(update={"at_least": -0.5}))
    first = passing.question(made[:2])
    assert {state for _, state in passing.stages} == {"reused"}
    assert [name for name, _ in passing.stages] == names[:4]
    (few,) = first["Q2_K"].samples
    assert (few.look, few.looks) == (1, 3)
    assert all(sample.answers[subject].startswith(row) for subject, row in few.answers.items())


def test_a_relative_gate_extends_what_it_compares_with_and_pairs_by_question(file_store: Store, tmp_path: Path, built: tuple[Made, list[Made]]) -> None:
    base, made = built
    gate = CLOSE.model_copy(update={"measure": "mmlu.accuracy", "relative_to": "Q8_0", "compare": "difference"})
    own = Gate(name="own", measure="flips.share", at_most=0.9, tags=("Q8_0",))
    run = Run(file_store, tmp_path, base, gate, own)
    found = run.question(made[:2])
    assert [item.samples[0].look for item in found.values()] == [3, 3]
    worse = found["Q2_K"]
    (result,) = gates.judge(
        Variant(tag="Q2_K", kind=Kind.GGUF), [gate], worse.measured, {}, samples=worse.samples, references=references(made[1].variant, found, {})
    ).results
    # Q8_0 answers as the 16-bit model does, so that the error is that of the difference to it, but for how one more question either way is counted
    assert result.margin == pytest.approx(2.128 * worse.measured["mmlu.difference"].stderr, rel=0.02)
    assert (result.look, result.looks, result.reference) == (3, 3, 1.0)


def test_a_stock_mix_that_is_not_published_is_asked_where_answers_are_compared_with_it(
    file_store: Store, tmp_path: Path, built: tuple[Made, list[Made]]
) -> None:
    base, (good, worse, hopeless, _) = built
    planned = replace(good, variant=Variant(tag="UD-Q2_K_XL", kind=Kind.GGUF, planned=True, like="Q2_K"))
    gate = CLOSE.model_copy(update={"relative_to": "stock", "compare": "difference"})
    endless = MeasurementError("Its logits are not finite.")
    diverged = {"UD-Q2_K_XL": Found(measured={}, errors={}), "Q2_K": Found(measured={}, errors={}), "TQ2_0": endless}
    for condition, compared in ((CLOSE, False), (gate, True)):
        run = Run(file_store, tmp_path, base, condition)
        run.work.products |= {CLAIMS: Settled(made=[planned, hopeless], stock=[worse], claims={}, diverged=diverged), PUBLISHED: {}}
        found = answer(run.work)
        assert found["TQ2_0"] is endless, "what has no divergence is not asked"
        assert ("questions Q2_K" in {name for name, _ in run.stages}) == compared
    ours = found["UD-Q2_K_XL"]
    (result,) = gates.judge(planned.variant, [gate], ours.measured, {}, samples=ours.samples, references=references(planned.variant, found, {})).results
    assert (result.against, result.reference) == ("Q2_K", found["Q2_K"].measured["mmlu.difference"].value)


def test_when_the_16_bit_model_cannot_be_asked_more_each_variant_says_so_and_it_is_tried_once(
    file_store: Store, tmp_path: Path, built: tuple[Made, list[Made]]
) -> None:
    base, made = built
    run = Run(file_store, tmp_path, base, CLOSE)
    run.work.products["convert"] = made[3].output
    found = run.question(made[:2])
    assert {str(item)[:22] for item in found.values()} == {"llama.cpp cannot load "}
    assert [name for name, state in run.stages if state == "failed"] == ["reference from 5 to 10 questions"]


@pytest.mark.slow
def test_the_16_bit_safetensors_are_asked_once_as_reference_and_as_variant(file_store: Store, tmp_path: Path, built: tuple[Made, list[Made]]) -> None:
    base, _ = built
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "files").symlink_to(ROOT / "demo" / "model")
    model = output(folder, {})
    run = Run(file_store, tmp_path, base, CLOSE)
    reference = ask(run.work, "reference 16bit", model.whole, end=5)
    run.work.products |= {"fix": model, "reference 16bit": reference}
    found = run.question([Made(variant=Variant(tag="16bit", kind=Kind.SIXTEEN_BIT), output=model)])
    assert isinstance(found["16bit"], Found)
    assert found["16bit"].measured["flips"].value == 0
    assert run.stages[2:] == [
        ("reference 16bit", "done"),
        ("questions 16bit", "reused"),
        ("reference 16bit from 5 to 10 questions", "done"),
        ("questions 16bit from 5 to 10 questions", "reused"),
    ]
    assert len(measure.answers(reference.file().path)) == 40
