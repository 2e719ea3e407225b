"""What is said of releases under one's own account."""

import pytest

from config.words import Kind, Outcome, Patch, Release, Variant, Verdict
from service.cli.display import show_run
from service.runs.own_account import is_own
from service.runs.summary import summary
from service.store import PullRequestRecord, Store, VariantRecord
from tests.service.helpers import SHA, queue_run

LEFT_OUT = "The 16-bit model is not published: upstream/model is the upstream itself."
PATCH = Patch(fix="eos", version=1, file="config.json", key="eos_token_id", reason="The turn must end.", before=1, after=2)


def finished(store: Store, *, namespace: str, asked: bool, patched: bool = True, outcome: Outcome = Outcome.PASSED, request: str | None = None) -> list[str]:
    """The remarks on a run that ended so."""
    run = queue_run(store, namespace=namespace, fixes_as_pr=asked).id
    store.lease("worker", seconds=60)
    for position, (tag, kind) in enumerate((("16bit", Kind.SIXTEEN_BIT), ("Q4_0", Kind.GGUF))):
        verdict = Verdict(tag=tag, outcome=outcome if kind is Kind.SIXTEEN_BIT else Outcome.PASSED, reasons=(), results=())
        record = VariantRecord(variant=Variant(tag=tag, kind=kind), file=None, bytes=None, bpw=None, measurements=(), verdict=verdict)
        store.record_variant(run, record, position=position)
    store.record_patches(run, [PATCH] if patched else [])
    if request is not None:
        found = PullRequestRecord(repo="upstream/model", number=1, url="http://hub/pr", state=request, files=("config.json",))
        store.record_pull_request(run, found, source="test")
    store.finish(run, state="done")
    told = summary(store, run)
    assert (told["pull_request"] is None) is (request is None)
    return list(told["remarks"])


def test_whose_repo_it_is_does_not_depend_on_case() -> None:
    release = Release(repo="Upstream/Model", sha=SHA)
    assert is_own("upstream", release)
    assert not is_own("ours", release)


def test_another_account_s_release_needs_no_remark(file_store: Store) -> None:
    assert finished(file_store, namespace="ours", asked=False) == []


def test_what_is_left_out_is_said_and_how_its_fixes_can_be_offered(file_store: Store) -> None:
    (remark,) = finished(file_store, namespace="upstream", asked=False)
    assert remark.startswith(LEFT_OUT)
    assert remark.endswith("`--fixes-as-pr` offers its fixes there as a pull request.")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("opened", "waits for its owner: http://hub/pr"),
        ("open", "was there already: http://hub/pr"),
        ("merged", "its owner merged: http://hub/pr"),
        ("closed", "was closed, so it is not opened again: http://hub/pr"),
    ],
)
def test_how_a_pull_request_stands(file_store: Store, state: str, words: str) -> None:
    remark, offered = finished(file_store, namespace="upstream", asked=True, request=state)
    assert remark.startswith(LEFT_OUT)
    assert offered.endswith(words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patched": False}, "There was nothing to fix"),
        ({"outcome": Outcome.FAILED}, "did not pass its gates"),
        ({}, "it holds the fixed files by now"),
    ],
)
def test_why_there_is_none(file_store: Store, changes: dict[str, object], words: str) -> None:
    *_, remark = finished(file_store, namespace="ours", asked=True, **changes)
    assert words in remark


def test_it_is_said_before_the_run_begins(file_store: Store) -> None:
    own, other = queue_run(file_store, namespace="upstream"), queue_run(file_store, namespace="ours", fixes_as_pr=True)
    (remark,) = summary(file_store, own.id)["remarks"]
    assert remark.startswith(LEFT_OUT)
    assert summary(file_store, other.id)["remarks"] == ["The fixes, if any are needed, are offered to upstream/model as a pull request."]
    unread = queue_run(file_store, namespace="Upstream", recipe="/nowhere.yaml")
    assert summary(file_store, unread.id)["remarks"] == []


def test_remarks_are_shown_with_the_result(file_store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    finished(file_store, namespace="upstream", asked=True, request="opened")
    show_run(Console(width=200), summary(file_store, 1))
    shown = capsys.readouterr().out
    assert LEFT_OUT in shown
    assert "waits for its owner: http://hub/pr" in shown
