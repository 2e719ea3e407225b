"""Commits whose answer is lost: what was made is found, and not made again."""

import pytest
from huggingface_hub import HfApi, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from bench.faulty import Fault, Proxy, Request, always, faults, faulty
from config.errors import HubError, HubUnavailable
from publishers import hub
from publishers.hub import publish
from publishers.staging import PREFIX as STAGING
from tests.publishers.conftest import REPO, MakePlan, commits


@pytest.fixture
def proxy(endpoint: str):
    with faulty(endpoint) as found:
        yield found


@pytest.fixture
def far(api: HfApi, proxy: Proxy) -> HfApi:
    """The client of the Hub through the proxy, as it comes: a service that ran in this process before would have left it one that asks again by itself."""
    set_client_factory(default_client_factory)
    return HfApi(endpoint=proxy.url, token=api.token)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.time, "sleep", lambda seconds: None)


@pytest.mark.parametrize("branch", ["main", STAGING])
def test_a_commit_whose_answer_is_lost_is_found_and_counts_as_made(far: HfApi, api: HfApi, proxy: Proxy, make_plan: MakePlan, branch: str) -> None:
    publish(api, make_plan(content=b"GGUF older"))
    before = commits(api)
    proxy.rule = faults(Fault(lose=True), path=f"/commit/{branch}")
    done = publish(far, make_plan())
    assert done.changed
    assert commits(api) == [done.revision, *before]
    assert proxy.count("POST", "/commit/main") == 1
    assert not [ref for ref in api.list_repo_refs(REPO).branches if ref.name != "main"]


@pytest.mark.parametrize("fault", [Fault(answer=500), Fault(answer=504), Fault(cut=0)])
def test_a_commit_that_was_not_made_is_sent_again(far: HfApi, api: HfApi, proxy: Proxy, make_plan: MakePlan, fault: Fault) -> None:
    proxy.rule = faults(fault, fault, path="/commit/main")
    done = publish(far, make_plan())
    assert done.changed
    assert commits(api)[0] == done.revision
    assert proxy.count("POST", "/commit/main") == 3


@pytest.mark.parametrize("branch", ["main", STAGING])
@pytest.mark.parametrize("status", [429, 503])
def test_a_commit_that_is_never_made_is_a_fault_of_the_moment_and_leaves_nothing(
    far: HfApi, api: HfApi, proxy: Proxy, make_plan: MakePlan, status: int, branch: str
) -> None:
    proxy.rule = always(Fault(answer=status, headers={"Retry-After": "600"}), path=f"/commit/{branch}")
    with pytest.raises(HubUnavailable) as caught:
        publish(far, make_plan())
    assert caught.value.wait == 600, "the run that is put back waits as long"
    assert proxy.count("POST", f"/commit/{branch}") == 1, "and nobody asks again before"
    assert set(api.list_repo_files(REPO)) <= {".gitattributes"}


def test_a_repo_whose_creation_was_not_answered_is_there(far: HfApi, proxy: Proxy, make_plan: MakePlan) -> None:
    proxy.rule = faults(Fault(lose=True), path="/repos/create")
    assert publish(far, make_plan()).changed


def test_a_token_that_is_not_accepted_is_cured_by_a_new_one_and_one_that_may_not_is_not(far: HfApi, proxy: Proxy, make_plan: MakePlan) -> None:
    proxy.rule = always(Fault(answer=401, said="Invalid credentials in Authorization header"))
    with pytest.raises(HubUnavailable, match="Set SLUICE_HUB_TOKEN"):
        publish(far, make_plan())
    proxy.rule = always(Fault(answer=403, said="Forbidden"))
    with pytest.raises(HubError) as caught:
        publish(far, make_plan())
    assert not isinstance(caught.value, HubUnavailable)


@pytest.mark.parametrize("branch", ["main", STAGING])
@pytest.mark.parametrize(
    "fault",
    [
        Fault(answer=409, said="Another commit operation is in progress for this repository. Please try again later."),
        Fault(answer=409, said="Conflict"),
        Fault(answer=423, said="The repository is locked."),
    ],
)
def test_a_commit_that_the_hub_puts_behind_another_one_is_made_after_it(
    far: HfApi, api: HfApi, proxy: Proxy, make_plan: MakePlan, fault: Fault, branch: str
) -> None:
    proxy.rule = faults(fault, fault, path=f"/commit/{branch}")
    done = publish(far, make_plan())
    assert done.changed
    assert commits(api)[0] == done.revision
    assert [ref.name for ref in api.list_repo_refs(REPO).branches] == ["main"]


def test_a_commit_that_comes_behind_somebodys_is_planned_again(far: HfApi, api: HfApi, proxy: Proxy, make_plan: MakePlan) -> None:
    publish(api, make_plan(content=b"GGUF older"))
    before = commits(api)

    def beaten(request: Request) -> Fault | None:
        if "/commit/main" not in request.path or len(commits(api)) > len(before):
            return None
        api.upload_file(path_or_fileobj=b"theirs", path_in_repo="theirs.txt", repo_id=REPO)
        return Fault(answer=409, said="A commit has happened since. Please refresh.")

    proxy.rule = beaten
    done = publish(far, make_plan())
    assert commits(api)[0] == done.revision
    assert len(commits(api)) == len(before) + 2
    assert "theirs.txt" not in api.list_repo_files(REPO)


def test_a_repo_that_stays_locked_is_waited_for(far: HfApi, proxy: Proxy, make_plan: MakePlan) -> None:
    proxy.rule = always(Fault(answer=409, said="Another commit operation is in progress for this repository. Please try again later."), path="/commit/main")
    with pytest.raises(HubUnavailable, match="at another change of the same repo"):
        publish(far, make_plan())


def test_another_conflict_is_a_refusal(far: HfApi, proxy: Proxy, make_plan: MakePlan) -> None:
    proxy.rule = always(Fault(answer=409, said="Reference already exists."), path="/branch/")
    with pytest.raises(HubError, match="already there") as caught:
        publish(far, make_plan())
    assert not isinstance(caught.value, HubUnavailable)
