"""A release whose way is short: a real upstream, hold, publication, database and Hub, and between them nothing that takes time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from config.digests import file_sha256
from config.settings import Settings
from config.words import Kind, Outcome, Variant, Verdict
from publishers import hub
from publishers import manifest as manifests
from publishers.manifest import Manifest
from publishers.naming import CARD, MANIFEST
from publishers.order import Line
from publishers.target import download
from service.execution.kept import File, Output
from service.execution.workbench import Listener
from service.hubclient import connect
from service.release import consent, lifecycle, publishing, rollback
from service.release.graph import Phase, Stage, graph_of
from service.release.intake import ReleaseRequest, queue_release
from service.release.products import JUDGED, PARTS, Built, Judged, from_stage
from service.release.stages import examine
from service.release.work import Work
from service.runs.summary import summary
from service.store import RunRecord, Store
from tests.service.conftest import Upstream

REPO = "ours/model-GGUF"
VARIANT = Variant(tag="Q4_0", kind=Kind.GGUF)


@dataclass(kw_only=True)
class ShortWay:
    """A service that publishes a file with the commit's sha in it instead of a model."""

    upstream: Upstream
    store: Store

    @property
    def settings(self) -> Settings:
        return self.upstream.settings

    @property
    def api(self) -> HfApi:
        return connect(self.settings)

    def queued(self, revision: str = "main", **changes: Any) -> RunRecord:
        """The run of what a revision of the upstream names now."""
        recipe = self.settings.watch[0].recipe
        wanted = ReleaseRequest(repo="upstream/model", revision=revision, recipe=recipe, trigger="command")
        return queue_release(self.store, self.settings, self.api, wanted, **changes)[0]

    def carried_out(self, run: int, listener: Listener = lambda event: None, *, store: Store | None = None) -> dict[str, Any]:
        """The summary of a queued run after it was carried out."""
        store = store or self.store
        leased = store.lease("tests", seconds=60, run=run)
        assert leased is not None
        lifecycle.execute(store, leased, self.settings, listener)
        return summary(store, run)

    def released(self, revision: str = "main") -> dict[str, Any]:
        """Both."""
        return self.carried_out(self.queued(revision).id)

    def manifest(self) -> Manifest:
        """What the repo says of itself."""
        head = self.api.repo_info(REPO).sha
        assert head is not None
        found = manifests.read(download(self.api, REPO, head, MANIFEST), where=REPO)
        assert isinstance(found, Manifest)
        return found

    def commits(self) -> list[str]:
        return [commit.commit_id for commit in self.api.list_repo_commits(REPO)]


Weights = Callable[[Work], Mapping[str, bytes | Path]]
"""By tag what a run publishes: the bytes of a GGUF file, or a folder with a model in 16 bits."""


def nothing_to_run(work: Work) -> dict[str, bytes]:
    """What no engine could read."""
    return {VARIANT.tag: b"GGUF" + work.release.sha.encode() * 50}


Made = Callable[[Work], list[Built]]
"""What a run has built and judged."""


def short(monkeypatch: pytest.MonkeyPatch, folder: Path, weights: Weights = nothing_to_run, *, made: Made | None = None) -> None:
    """Let every run go the short way."""

    def by_hand(work: Work) -> list[Built]:
        return [_built(folder / work.release.sha, *item) for item in weights(work).items()]

    monkeypatch.setattr(lifecycle, "way", lambda recipe: graph_of(_stages(made or by_hand, asking=recipe.publish.hold != "never")))
    monkeypatch.setattr(lifecycle, "_expect", lambda work, heard: None)
    monkeypatch.setattr(publishing, "plan", _plan)


def _stages(made: Made, *, asking: bool) -> list[Stage]:
    def stage(name: str, does: Callable[[Work], object], *also: str, phase: Phase = Phase.EXAMINE, **flags: Any) -> Stage:
        return Stage(name=name, phase=phase, does=name, work=does, also=also, **flags)

    return [
        stage("upstream", examine._upstream),
        stage("snapshot", lambda work: _made({})),
        stage("fix", lambda work: _made({"held": [], "notes": []})),
        stage("approval", examine._approval, "upstream", "snapshot", "fix", records=True),
        stage(JUDGED, lambda work: Judged(built=made(work)), phase=Phase.JUDGE),
        stage(PARTS, lambda work: {}, phase=Phase.PUBLISH),
        *([stage("consent", consent.ask, JUDGED, "fix", PARTS, phase=Phase.PUBLISH, records=True)] if asking else []),
        stage("publish", publishing.publish, "upstream", JUDGED, PARTS, phase=Phase.PUBLISH, records=True),
    ]


def _made(result: dict[str, Any], *files: File, folder: Path = Path("nowhere")) -> Output:
    return Output(key="k" * 64, folder=folder, result=result, files=files, seconds=0)


def _built(folder: Path, tag: str, content: bytes | Path) -> Built:
    if isinstance(content, Path):
        return passed(tag, of_folder(content), kind=Kind.SIXTEEN_BIT)
    return passed(tag, _of_file(folder / tag / "files" / f"model-{tag}.gguf", content))


def passed(tag: str, output: Output, *, kind: Kind = Kind.GGUF) -> Built:
    """A variant that may be published."""
    verdict = Verdict(tag=tag, outcome=Outcome.PASSED, reasons=(), results=())
    return Built(variant=Variant(tag=tag, kind=kind), output=output, bpw=4.5, measured={}, verdict=verdict)


def _of_file(path: Path, content: bytes) -> Output:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return _made({"file": path.name}, _file(path), folder=path.parents[1])


def of_folder(folder: Path) -> Output:
    """The output of a stage, whose files are in `files`."""
    return _made({}, *map(_file, sorted((folder / "files").iterdir())), folder=folder)


def _file(path: Path) -> File:
    return File(path=path.name, sha256=file_sha256(path), bytes=path.stat().st_size)


def _plan(work: Work, repo: publishing.Repo, *, private: bool, line: Line) -> hub.Plan:
    weights = [from_stage(item.output, file) for item in repo.passed for file in item.output.files]
    files = (*weights, hub.PublishFile.from_bytes(CARD, b"---\nlicense: mit\n---\n# A model\n"))
    inventory = hub.inventory(files)
    variants = [manifests.variant_entry(item.verdict, {}, files={file.path: inventory[file.path] for file in item.output.files}) for item in repo.passed]
    manifest = manifests.build(
        release=work.release,
        recipe_name=work.recipe.label,
        recipe_digest=work.job.run.recipe_digest,
        tools={},
        patches=(),
        variants=tuple(variants),
        files=inventory,
        approvals=publishing.approvals(work),
        place=line.point(work.release.sha).place,
    )
    return hub.Plan(repo=repo.name, private=private, files=files, manifest=manifest, message="Publish", rollback=rollback.allowed(work))
