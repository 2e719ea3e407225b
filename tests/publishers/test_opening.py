"""New repos are private until they hold their publication: a failure leaves none that is empty and public, a kill none that stays private for ever."""

from collections.abc import Callable

import httpx2
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from bench.faulty import Fault, faults, faulty
from config.errors import HubError, PublishConflict
from publishers.hub import Known, Plan, publish
from publishers.opening import Forgetful
from tests.publishers.conftest import REPO, MakePlan, Wire, commits, once


class Broken(Exception):
    """The process dies here."""


@pytest.fixture
def fails(wire: Wire) -> Callable[[str, str], None]:
    """Let the client's next request of that method to a path with that part never arrive."""

    def fail(method: str, part: str) -> None:
        def on(request: httpx2.Request) -> None:
            if request.method == method and part in request.url.path:
                wire.on = lambda _request: None
                raise Broken

        wire.on = on

    return fail


def visible(api: HfApi) -> bool:
    """Whether somebody without a token sees the repo."""
    try:
        return bool(HfApi(endpoint=api.endpoint, token=False).repo_info(REPO))
    except RepositoryNotFoundError:
        return False


def test_a_new_repo_is_public_with_its_publication_in_it(api: HfApi, make_plan: MakePlan, wire: Wire) -> None:
    seen: list[bool] = []
    wire.on = lambda request: seen.append(visible(api)) if "/commit/" in request.url.path else None
    publish(api, make_plan())
    assert seen == [False, False]
    assert visible(api)
    assert len(commits(api)) == 2, "the Hub's own and ours"


@pytest.mark.parametrize(
    ("method", "part", "held"),
    [("POST", "/lfs/objects/batch", 1), ("POST", "/commit/sluice-staging-", 1), ("POST", "/commit/main", 1), ("PUT", "/settings", 2)],
    ids=["before the upload", "before the commit beside main", "before the commit", "before it is opened"],
)
def test_what_a_kill_leaves_is_private_and_the_next_run_completes_it(
    api: HfApi, make_plan: MakePlan, fails: Callable[[str, str], None], method: str, part: str, held: int
) -> None:
    remembered = Forgetful()
    fails(method, part)
    with pytest.raises(Broken):
        publish(api, make_plan(), Known(openings=remembered))
    assert not visible(api)
    assert len(commits(api)) == held
    done = publish(api, make_plan(), Known(openings=remembered))
    assert visible(api)
    assert done.changed is (held == 1)
    assert len(commits(api)) == 2
    api.update_repo_settings(REPO, private=True)
    publish(api, make_plan(content=b"GGUF" * 900), Known(openings=remembered))
    assert not visible(api), "once it was opened, its owner decides"


def test_a_repo_that_its_owner_made_private_stays_so(api: HfApi, make_plan: MakePlan) -> None:
    api.create_repo(REPO, private=True)
    publish(api, make_plan())
    assert not visible(api)


def test_what_must_stay_private_is_not_opened_by_what_began_otherwise(api: HfApi, make_plan: MakePlan, fails: Callable[[str, str], None]) -> None:
    remembered = Forgetful()
    fails("POST", "/commit/")
    with pytest.raises(Broken):
        publish(api, make_plan(), Known(openings=remembered))
    publish(api, make_plan(private=True), Known(openings=remembered))
    assert not visible(api)


@pytest.mark.parametrize("private", [True, False])
def test_the_server_s_answer_decides_before_a_byte_goes_up(
    api: HfApi, make_plan: Callable[..., Plan], wire: Wire, monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    make = HfApi.create_repo
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo, **given: make(self, repo, **{**given, "private": False}))  # a Hub that does as it likes
    if private:
        with pytest.raises(PublishConflict, match="is public, but what should go there must stay private"):
            publish(api, make_plan(private=True))
        assert wire.count("POST", "/lfs/") == wire.count("PUT", "") == wire.count("POST", "/commit/") == 0
    else:
        assert publish(api, make_plan()).changed
        assert visible(api)


def test_a_repo_that_the_hub_does_not_open_is_told_and_tried_again(api: HfApi, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered = Forgetful()
    with monkeypatch.context() as patched:
        patched.setattr(HfApi, "update_repo_settings", lambda self, repo, **given: None)
        with pytest.raises(HubError, match="holds its publication, but .* keeps it private"):
            publish(api, make_plan(), Known(openings=remembered))
    publish(api, make_plan(), Known(openings=remembered))
    assert visible(api)


def test_a_repo_that_could_not_be_made_is_its_owner_s_when_it_is_there(api: HfApi, make_plan: MakePlan) -> None:
    remembered = Forgetful()
    with faulty(api.endpoint) as proxy:
        proxy.rule = faults(Fault(answer=403, said="Forbidden"), path="/repos/create")
        with pytest.raises(HubError, match="may not do this"):
            publish(HfApi(endpoint=proxy.url, token=api.token), make_plan(), Known(openings=remembered))
    api.create_repo(REPO, private=True)
    assert publish(api, make_plan(), Known(openings=remembered)).changed
    assert not visible(api)


def test_a_repo_that_its_owner_made_just_then_stays_private(api: HfApi, make_plan: MakePlan, wire: Wire) -> None:
    once(wire, "/repos/create", lambda: api.create_repo(REPO, private=True))
    assert publish(api, make_plan()).changed
    assert not visible(api)


def test_a_repo_of_which_an_earlier_creation_was_not_answered_is_opened(api: HfApi, make_plan: MakePlan, wire: Wire) -> None:
    remembered = Forgetful()
    remembered.begin_opening(REPO)  # by a process that was killed before the Hub carried it out
    once(wire, "/repos/create", lambda: api.create_repo(REPO, private=True))
    publish(api, make_plan(), Known(openings=remembered))
    assert visible(api)
