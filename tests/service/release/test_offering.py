"""From fixed files to a pull request on a real Hub, and what happens when there can be none."""

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from builders.names import INDEX
from config.errors import PublishConflict
from config.recipe import Recipe
from config.words import Kind, Outcome, Patch, Release, Variant, Verdict
from service.execution.kept import Output, StageStore
from service.release import offering, publishing
from service.release.job import Job
from service.release.products import JUDGED, PARTS, Built, Judged
from service.release.way import way
from service.release.work import Work
from service.store import Store, open_store
from tests.service.conftest import DEMO, Upstream
from tests.service.helpers import output, queue_run

REPO = "upstream/model"
PATCHES = [
    Patch(fix="eos", version=1, file="generation_config.json", key="eos_token_id", reason="Answers must end *here*.", before=5, after=4),
    Patch(fix="eos", version=1, file="generation_config.json", key="top_k", reason="Answers must end *here*.", before=None, after=20),
]
MakeWork = Callable[..., Work]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'sluice.db'}")
    yield opened
    opened.close()


def folder(parent: Path, name: str, changed: dict[str, bytes], result: dict[str, object]) -> Output:
    """A stage's output: the bundled model with some files changed."""
    files = parent / name / "files"
    files.mkdir(parents=True)
    for path in (DEMO / "model").iterdir():
        if path.suffix in {".json", ".safetensors"}:
            shutil.copyfile(path, files / path.name)
    for path, content in changed.items():
        (files / path).write_bytes(content)
    return output(parent / name, result)


@pytest.fixture
def make(tmp_path: Path, upstream: Upstream, store: Store, recipe: Callable[..., Recipe]) -> MakeWork:
    """A run whose model was fixed and judged; `changed` are the files that the fixes wrote."""

    numbers = count()

    def made(*, asked: bool = True, outcome: Outcome = Outcome.PASSED, changed: dict[str, bytes] | None = None, sha: str | None = None) -> Work:
        api = HfApi(endpoint=upstream.settings.hub_endpoint, token=upstream.settings.token)
        release = Release(repo=REPO, sha=sha or str(api.repo_info(REPO).sha))
        run = queue_run(store, release=release, namespace="upstream", fixes_as_pr=asked)
        patched = [vars(patch) for patch in PATCHES] if changed else []
        place = tmp_path / f"stages-{next(numbers)}"
        fix = folder(place, "fix", changed or {}, {"patches": patched})
        whole = Variant(tag="16bit", kind=Kind.SIXTEEN_BIT)
        verdict = Verdict(tag="16bit", outcome=outcome, reasons=(), results=())
        judged = Judged(built=[Built(variant=whole, output=fix, bpw=16.0, measured={}, verdict=verdict)])
        small = recipe()
        job = Job(store=store, run=run, recipe=small, settings=upstream.settings, stages=StageStore(tmp_path / "home"))
        products = {"snapshot": folder(place, "snapshot", {}, {}), "fix": fix, JUDGED: judged, PARTS: {}}
        return Work(job=job, api=api, graph=way(small), products=products)

    return made


FIXED = {"generation_config.json": json.dumps({"eos_token_id": 4, "top_k": 20}).encode()}


def requests(work: Work) -> list[int]:
    return [each.num for each in work.api.get_repo_discussions(REPO)]


def test_exactly_the_changed_files_are_offered_with_the_reasons(make: MakeWork) -> None:
    work = make(changed=FIXED)
    assert offering.offer(work) is None
    kept = work.job.store.pull_request(work.job.run.id)
    assert kept is not None
    assert (kept.repo, kept.number, kept.state, kept.files) == (REPO, 1, "opened", ("generation_config.json",))
    details = work.api.get_discussion_details(REPO, 1)
    assert details.title == "Repair generation_config.json"
    assert details.diff.count("diff --git") == 1
    text = details.events[0].content
    assert text.count("Answers must end &#42;here&#42;.") == 1, "one reason for both changes, and none of its characters is markup"
    assert "`generation_config.json`, `top_k`: `absent` → `20`" in text
    assert [(stage.name, stage.state) for stage in work.job.store.stages(work.job.run.id)] == [("pull request", "done")]

    again = make(changed=FIXED)
    assert offering.offer(again) is None
    assert requests(again) == [1]
    kept = again.job.store.pull_request(again.job.run.id)
    assert kept is not None
    assert kept.state == "open"


def test_weights_that_were_written_anew_are_not_offered_nor_is_their_index(make: MakeWork) -> None:
    work = make(changed={**FIXED, "model.safetensors": b"without a tensor", INDEX: b"{}"})
    assert [file.path for file in offering.changed(work)] == ["generation_config.json"]
    assert {file.path for file in offering.changed(make(changed={**FIXED, INDEX: b"{}"}))} == {"generation_config.json", INDEX}, "which the weights bear out"


@pytest.mark.parametrize("changes", [{"asked": False, "changed": FIXED}, {"changed": None}, {"outcome": Outcome.FAILED, "changed": FIXED}])
def test_nothing_is_offered_unasked_unfixed_or_unproven(make: MakeWork, changes: dict[str, object]) -> None:
    work = make(**changes)
    assert offering.offer(work) is None
    assert requests(work) == []
    assert work.job.store.stages(work.job.run.id) == ()


def test_what_hinders_the_offer_is_raised_when_all_else_is_published(make: MakeWork, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream.author.create_branch(REPO, branch="side")
    side = upstream.author.upload_file(path_or_fileobj=b"{}", path_in_repo="other.json", repo_id=REPO, revision="side").oid
    work = make(changed=FIXED, sha=side)
    hindrance = offering.offer(work)
    assert isinstance(hindrance, PublishConflict)
    assert "is not on its main branch" in str(hindrance)
    (stage,) = work.job.store.stages(work.job.run.id)
    assert (stage.state, stage.error) == ("failed", str(hindrance))
    assert publishing.repos(work) == [], "the upstream itself is no repo to publish to"


@pytest.mark.parametrize(("whole", "wanted"), [(None, True), (Outcome.FAILED, False), (Outcome.PASSED, True)])
def test_a_file_in_sixteen_bits_is_not_the_fixed_model_s_own_verdict(make: MakeWork, whole: Outcome | None, wanted: bool) -> None:
    """As `service.runs.own_account` says it of a run: the 16-bit repo's verdict, or without one that of anything made from the model."""
    fix = make(changed=FIXED).output("fix")

    def built(tag: str, kind: Kind, outcome: Outcome) -> Built:
        verdict = Verdict(tag=tag, outcome=outcome, reasons=(), results=())
        return Built(variant=Variant(tag=tag, kind=kind), output=fix, bpw=16.0, measured={}, verdict=verdict)

    own = [] if whole is None else [built("16bit", Kind.SIXTEEN_BIT, whole)]
    bf16 = built("BF16", Kind.GGUF, Outcome.FAILED if whole is None else Outcome.PASSED)
    files = [bf16, built("Q4_K_M", Kind.GGUF, Outcome.PASSED)] if whole is None else [bf16]
    assert offering.passed(Judged(built=[*own, *files])) is wanted
