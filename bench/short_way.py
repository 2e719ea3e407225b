"""A release whose way is short: a real upstream, hold, publication, database and Hub, and between them nothing that takes time.

For `python -m bench.soak` and for tests; it is put in its place by whoever asks, in this process alone.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from config.digests import file_sha256
from config.words import Kind, Outcome, Variant, Verdict
from publishers import hub
from publishers import manifest as manifests
from publishers.naming import CARD
from publishers.order import Line
from service.execution.kept import File, Output
from service.release import consent, lifecycle, promoting, publishing, rollback
from service.release.graph import Phase, Stage, graph_of
from service.release.products import JUDGED, PARTS, Built, Judged, from_stage
from service.release.stages import examine
from service.release.work import Work

VARIANT = Variant(tag="Q4_0", kind=Kind.GGUF)

Weights = Callable[[Work], Mapping[str, bytes | Path]]
"""By tag what a run publishes: the bytes of a GGUF file, or a folder with a model in 16 bits."""

Made = Callable[[Work], list[Built]]
"""What a run has built and judged."""


def nothing_to_run(work: Work) -> dict[str, bytes]:
    """What no engine could read."""
    return {VARIANT.tag: b"GGUF" + work.release.sha.encode() * 50}


def short(patch: pytest.MonkeyPatch, folder: Path, weights: Weights = nothing_to_run, *, made: Made | None = None) -> None:
    """Let every run of this process go the short way; what it publishes is written into `folder`."""

    def by_hand(work: Work) -> list[Built]:
        return [_built(folder / work.release.sha, *item) for item in weights(work).items()]

    patch.setattr(lifecycle, "way", lambda recipe: graph_of(_stages(made or by_hand, asking=recipe.publish.hold != "never")))
    patch.setattr(lifecycle, "_expect", lambda work, heard: None)
    patch.setattr(publishing, "plan", _plan)


def passed(tag: str, output: Output, *, kind: Kind = Kind.GGUF) -> Built:
    """A variant that may be published."""
    verdict = Verdict(tag=tag, outcome=Outcome.PASSED, reasons=(), results=())
    return Built(variant=Variant(tag=tag, kind=kind), output=output, bpw=4.5, measured={}, verdict=verdict)


def of_folder(folder: Path) -> Output:
    """The output of a stage, whose files are in `files`."""
    return _made({}, *map(_file, sorted((folder / "files").iterdir())), folder=folder)


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
        stage("publish", promoting.publish, "upstream", JUDGED, PARTS, phase=Phase.PUBLISH, records=True),
    ]


def _made(result: dict[str, Any], *files: File, folder: Path = Path("nowhere")) -> Output:
    return Output(key="k" * 64, folder=folder, result=result, files=files, seconds=0)


def _built(folder: Path, tag: str, content: bytes | Path) -> Built:
    if isinstance(content, Path):
        return passed(tag, of_folder(content), kind=Kind.SIXTEEN_BIT)
    return passed(tag, _of_file(folder / tag / "files" / f"model-{tag}.gguf", content))


def _of_file(path: Path, content: bytes) -> Output:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return _made({"file": path.name}, _file(path), folder=path.parents[1])


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
