"""A release of several repos: none of them changes before all are uploaded and tried, and then all do."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.short_way import VARIANT, short
from config.errors import HubError
from publishers import hub, staging
from publishers.staging import PREFIX
from service.daemon import notifying
from service.execution.workbench import Event
from service.release import promoting
from service.release.work import Work
from service.store import Published
from tests.service.conftest import DEMO, Upstream
from tests.service.release.short_way import REPO, ShortWay

OTHER = "ours/model"
REPOS = (REPO, OTHER)


@pytest.fixture
def two_repos(each_way: ShortWay, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShortWay:
    """A service whose releases are a GGUF file in one repo and a folder in another, of either of which each release has its own."""

    def weights(work: Work) -> dict[str, bytes | Path]:
        folder = tmp_path / "sixteen" / work.release.sha
        if not folder.exists():
            (folder / "files").mkdir(parents=True)
            shutil.copy(DEMO / "model" / "config.json", folder / "files" / "config.json")
            (folder / "files" / "model.safetensors").write_bytes(work.release.sha.encode() * 50)
        return {VARIANT.tag: b"GGUF" + work.release.sha.encode() * 50, "16bit": folder}

    short(monkeypatch, tmp_path / "built", weights)
    return each_way


def commits(way: ShortWay) -> dict[str, int]:
    """How many main has, by repo; nothing is beside it."""
    assert not [ref.name for repo in REPOS for ref in way.api.list_repo_refs(repo).branches if ref.name.startswith(PREFIX)]
    return {repo: len(way.api.list_repo_commits(repo)) for repo in REPOS}


def refused(of: str, deed: Callable[..., Any]) -> Callable[..., Any]:
    """The deed, which fails for one of the repos."""

    def fail(given: object, repo: str, *more: Any, **named: Any) -> Any:
        if repo == of:
            raise HubError(f"{repo} is refused.")
        return deed(given, repo, *more, **named)

    return fail


def test_all_repos_are_published_one_after_the_other_when_all_are_uploaded(two_repos: ShortWay) -> None:
    told = list[str]()
    two_repos.carried_out(two_repos.queued().id, lambda event: told.append(event.stage) if event.state == "done" else None)
    assert [step for step in told if step.endswith(REPOS)] == [f"upload {REPO}", f"upload {OTHER}", f"publish {REPO}", f"publish {OTHER}"]
    assert commits(two_repos) == {REPO: 2, OTHER: 2}


def test_a_repo_that_cannot_be_used_leaves_all_as_they_are(two_repos: ShortWay, monkeypatch: pytest.MonkeyPatch) -> None:
    two_repos.released()
    two_repos.upstream.release()
    run = two_repos.queued().id
    with monkeypatch.context() as patch:
        patch.setattr(promoting, "read_back", refused(OTHER, promoting.read_back))
        with pytest.raises(HubError, match="ours/model is refused"):
            two_repos.carried_out(run)
    assert commits(two_repos) == {REPO: 2, OTHER: 2}
    assert two_repos.store.publications(run) == ()
    two_repos.queued(again=True)
    assert len(two_repos.carried_out(run)["publications"]) == 2
    assert commits(two_repos) == {REPO: 3, OTHER: 3}


def test_what_failed_when_a_part_was_public_is_told_and_completed_by_the_next_try(two_repos: ShortWay, monkeypatch: pytest.MonkeyPatch) -> None:
    run, told = two_repos.queued().id, list[str]()
    with monkeypatch.context() as patch:
        patch.setattr(staging, "promote", refused(OTHER, staging.promote))
        with pytest.raises(HubError, match="ours/model is refused"):
            two_repos.carried_out(run, lambda event: told.append(event.message))
    said = f"Published all the same, before that: {REPO}."
    assert said in told
    [failed, *_] = two_repos.store.audit_events(subject=f"run/{run}")
    assert two_repos.store.run(run).error == failed.details["error"] == f"{OTHER} is refused. {said}"
    notice = notifying.composed(two_repos.store, failed)
    assert notice is not None
    assert (notice.ending, notice.reason, notice.published) == ("failed", failed.details["error"], (f"{two_repos.api.endpoint}/{REPO}",))
    assert commits(two_repos) == {REPO: 2, OTHER: 1}
    assert two_repos.api.repo_info(OTHER).private, "nobody sees an empty repo"
    two_repos.queued(again=True)
    assert len(two_repos.carried_out(run)["publications"]) == 2
    assert commits(two_repos) == {REPO: 2, OTHER: 2}


def test_what_was_killed_before_it_could_be_recorded_is_announced_by_the_next_try(two_repos: ShortWay, monkeypatch: pytest.MonkeyPatch) -> None:
    run, record = two_repos.queued().id, two_repos.store.record_publication

    def killed(number: int, published: Published, **more: Any) -> int:
        if published.repo == OTHER:
            raise KeyboardInterrupt
        return record(number, published, **more)

    with monkeypatch.context() as patch:
        patch.setattr(two_repos.store, "record_publication", killed)
        with pytest.raises(KeyboardInterrupt):
            two_repos.carried_out(run)
    assert two_repos.store.release(run, "tests")
    assert two_repos.carried_out(run)["state"] == "done"
    assert commits(two_repos) == {REPO: 2, OTHER: 2}
    notice = notifying.composed(two_repos.store, two_repos.store.audit_events(subject=f"run/{run}")[0])
    assert notice is not None
    assert notice.published == tuple(f"{two_repos.api.endpoint}/{repo}" for repo in REPOS)
    told = {item.repo: [event.action for event in two_repos.store.audit_events(subject=f"publication/{item.id}")] for item in two_repos.store.publications(run)}
    assert told == {REPO: ["unchanged", "published"], OTHER: ["published"]}
    two_repos.queued(again=True)
    two_repos.carried_out(run)
    assert notifying.composed(two_repos.store, two_repos.store.audit_events(subject=f"run/{run}")[0]) is None, "it is told once"


def test_a_run_that_is_paused_between_two_repos_is_published_whole(two_repos: ShortWay) -> None:
    """Else what others see would be half a release for as long as the pause lasts."""
    run = two_repos.queued().id

    def pausing(event: Event) -> None:
        if (event.stage, event.state) == (f"publish {REPO}", "done"):
            two_repos.store.pause(run, source="test", details={})

    done = two_repos.carried_out(run, pausing)
    assert (done["state"], done["error"]) == ("done", "It was published before it could be paused.")
    assert commits(two_repos) == {REPO: 2, OTHER: 2}


def test_what_is_public_is_told_though_what_follows_the_commit_fails(two_repos: ShortWay, monkeypatch: pytest.MonkeyPatch) -> None:
    run = two_repos.queued().id

    def refuse(_api: object, plan: hub.Plan, _known: hub.Known) -> None:
        raise HubError(f"{plan.repo} is refused.")

    monkeypatch.setattr(hub, "_completed", refuse)
    with pytest.raises(HubError):
        two_repos.carried_out(run)
    assert two_repos.store.run(run).error == f"{REPO} is refused. Published all the same, before that: {REPO}."
    assert [item.repo for item in two_repos.store.publications(run)] == [REPO]


def test_a_run_that_is_cancelled_between_two_repos_changes_no_other_one_and_tells_of_the_first(two_repos: ShortWay) -> None:
    run = two_repos.queued().id

    def cancelling(event: Event) -> None:
        if (event.stage, event.state) == (f"publish {REPO}", "done"):
            two_repos.store.cancel(run, source="test", details={})

    cancelled = two_repos.carried_out(run, cancelling)
    assert (cancelled["state"], cancelled["error"]) == ("cancelled", f"Published all the same, before that: {REPO}.")
    assert commits(two_repos) == {REPO: 2, OTHER: 1}
    assert two_repos.api.repo_info(OTHER).private
    notice = notifying.composed(two_repos.store, two_repos.store.audit_events(subject=f"run/{run}")[0])
    assert notice is not None
    assert (notice.published, notice.reason) == ((f"{two_repos.api.endpoint}/{REPO}",), "The run was cancelled, but this was public by then.")
