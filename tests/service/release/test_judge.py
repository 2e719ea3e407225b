"""Verdicts on all files of a release together: with small GGUF files, a real stage and a real database."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from config.settings import Settings
from config.words import Outcome
from config.written import load_recipe
from service.execution.kept import Output, StageStore
from service.release.job import Job
from service.release.measuring.samples import PUBLISHED
from service.release.products import CLAIMS, Built, Found, Made, Settled
from service.release.stages.judge import judge
from service.release.stages.measure import ANSWERS
from service.store import Store
from tests.service.conftest import RECIPE
from tests.service.helpers import at_work, output, queue_run
from tests.service.release.test_claims import OURS, diverged, made

IDENTICAL = "{name: identical, measure: file.twins, at_most: 0}"
DOMINATED = "{name: dominated, measure: file.outdone, at_most: 0}"


def judged(store: Store, folder: Path, gate: str, files: Sequence[Made], found: Mapping[str, Found]) -> tuple[Job, dict[str, Built]]:
    """The run and its variants as they come out of a recipe with this gate and one that allows 0.1 nats."""
    path = folder / "recipe.yaml"
    tags = ", ".join(item.variant.tag for item in files)
    path.write_text(RECIPE.replace("gguf: [Q4_0]", f"gguf: [{tags}]").replace("gates: [", f"gates: [{gate}, "), encoding="utf-8")
    (folder / "text.txt").write_text("Some text.\n", encoding="utf-8")
    settings = Settings(home=folder / "home")
    job = Job(store=store, run=queue_run(store), recipe=load_recipe(str(path)), settings=settings, stages=StageStore(settings.folder))
    products = {
        CLAIMS: Settled(made=files, stock=(), claims={}, diverged=found),
        ANSWERS: found,
        PUBLISHED: {},
        "convert": Output(key="convert", folder=folder, result={"parameters": 1000}, files=(), seconds=0),
        **{f"measure {tag}": own for tag, own in found.items()},
        **{f"build {item.variant.tag}": item.output for item in files},
    }
    return job, {item.variant.tag: item for item in judge(at_work(job, products)).built}


def test_files_with_the_same_tensors_are_published_once(file_store: Store, tmp_path: Path) -> None:
    tags = ("IQ1_S", "Q3_K_S", "Q2_K", "Q8_0")
    files = []
    for tag in tags:
        item = made(tmp_path, tag, dict.fromkeys(OURS, "Q8_0") if tag == "Q8_0" else OURS)
        with item.output.file().path.open("ab") as file:
            file.write(tag.encode())  # as headers do, it tells which is which
        files.append(replace(item, output=output(item.output.folder, item.output.result)))
    job, built = judged(file_store, tmp_path, IDENTICAL, files, {tag: diverged(0.5 if tag == "IQ1_S" else 0.05) for tag in tags})
    assert {tag: item.verdict.outcome for tag, item in built.items()} == {
        "IQ1_S": Outcome.FAILED, "Q3_K_S": Outcome.PASSED, "Q2_K": Outcome.FAILED, "Q8_0": Outcome.PASSED,
    }  # fmt: skip
    assert built["IQ1_S"].measured["file.twins"].value == 0, "what is not published has no twin"
    assert [reason.rpartition(": ")[0] for reason in built["Q2_K"].verdict.reasons] == [
        "file.twins is 1, at most 0 is allowed: 1 too many. Q2_K holds the tensors of Q3_K_S byte for byte"
    ]
    records = {record.variant.tag: record for record in file_store.variants(job.run.id)}
    assert {item.name: item.value for item in records["Q2_K"].measurements}["file.twins"] == 1
    assert [stage.name for stage in file_store.stages(job.run.id)] == ["compare Q3_K_S with Q2_K"], "data are read only where the tables are alike"


def test_a_gate_leaves_out_what_another_file_outdoes(file_store: Store, tmp_path: Path) -> None:
    """IQ4_XS is smaller than Q3_K_M and Q4_K_M, and surely closer to the model than the first of them."""
    types = {"Q8_0": ("Q8_0", "F32"), "Q4_K_M": ("Q6_K", "Q8_0"), "Q3_K_M": ("Q6_K", "F32"), "IQ4_XS": ("Q5_K", "F32"), "Q2_K": ("Q4_K", "F32")}
    files = [made(tmp_path, tag, {**dict.fromkeys(OURS, type_), "output_norm.weight": norm}) for tag, (type_, norm) in types.items()]
    nats = {"Q8_0": 0.01, "Q4_K_M": 0.0601, "Q3_K_M": 0.08, "IQ4_XS": 0.06, "Q2_K": 0.09}
    _, built = judged(file_store, tmp_path, DOMINATED, files, {tag: diverged(mean) for tag, mean in nats.items()})
    assert [tag for tag, item in built.items() if item.verdict.outcome is Outcome.PASSED] == ["Q8_0", "Q4_K_M", "IQ4_XS", "Q2_K"]
    (reason,) = built["Q3_K_M"].verdict.reasons
    assert reason.startswith(
        "file.outdone is 1, at most 0 is allowed: 1 too many. IQ4_XS is smaller (7.04 kB instead of 8.19 kB) and closer (mean KLD 0.06000 ± "
    )
    assert reason.endswith("0.08000 ± 0.00010): take IQ4_XS.")
