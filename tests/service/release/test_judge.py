"""Verdicts on all files of a release together: with small GGUF files, a real stage and a real database."""

from dataclasses import replace
from pathlib import Path

from config.settings import Settings
from config.words import Outcome
from config.written import load_recipe
from service.execution.kept import Output, StageStore
from service.release.job import Job
from service.release.measuring.samples import PUBLISHED
from service.release.products import CLAIMS, Settled
from service.release.stages.judge import judge
from service.release.stages.measure import ANSWERS
from service.store import Store
from tests.service.conftest import RECIPE
from tests.service.helpers import at_work, output, queue_run
from tests.service.release.test_claims import OURS, diverged, made


def test_files_with_the_same_tensors_are_published_once(file_store: Store, tmp_path: Path) -> None:
    tags = ("IQ1_S", "Q3_K_S", "Q2_K", "Q8_0")
    path = tmp_path / "recipe.yaml"
    identical = "gates: [{name: identical, measure: file.twins, at_most: 0}, "
    path.write_text(RECIPE.replace("gguf: [Q4_0]", f"gguf: [{', '.join(tags)}]").replace("gates: [", identical), encoding="utf-8")
    (tmp_path / "text.txt").write_text("Some text.\n", encoding="utf-8")
    settings = Settings(home=tmp_path / "home")
    job = Job(store=file_store, run=queue_run(file_store), recipe=load_recipe(str(path)), settings=settings, stages=StageStore(settings.folder))
    files = []
    for tag in tags:
        item = made(tmp_path, tag, dict.fromkeys(OURS, "Q8_0") if tag == "Q8_0" else OURS)
        with item.output.file().path.open("ab") as file:
            file.write(tag.encode())  # as headers do, it tells which is which
        files.append(replace(item, output=output(item.output.folder, item.output.result)))
    found = {tag: diverged(0.5 if tag == "IQ1_S" else 0.05) for tag in tags}
    products = {
        CLAIMS: Settled(made=files, stock=(), claims={}, diverged=found),
        ANSWERS: found,
        PUBLISHED: {},
        "convert": Output(key="convert", folder=tmp_path, result={"parameters": 1000}, files=(), seconds=0),
        **{f"measure {tag}": own for tag, own in found.items()},
        **{f"build {item.variant.tag}": item.output for item in files},
    }
    built = {item.variant.tag: item for item in judge(at_work(job, products)).built}
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
