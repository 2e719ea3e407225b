"""The newest commit of an upstream stays published, whoever publishes what and when; going back is done on purpose, and stays known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from config.errors import Superseded
from config.words import Place, Release, Rollback
from hub.tokens import create_token
from publishers import folder
from publishers import manifest as manifests
from publishers.hub import Plan, Prospective, check_target, publish
from publishers.manifest import Manifest
from publishers.naming import MANIFEST
from publishers.order import Line, Point
from publishers.target import download
from tests.publishers.conftest import RELEASE, REPO, MakePlan, Wire, commits, once

UPSTREAM = RELEASE.repo


@pytest.fixture
def author(root: Path, endpoint: str) -> HfApi:
    """Who owns the upstream, which has its first commits."""
    api = HfApi(endpoint=endpoint, token=create_token(root, user="upstream"))
    api.create_repo(UPSTREAM)
    return api


@pytest.fixture
def commit(author: HfApi) -> Callable[..., str]:
    """Commit something to the upstream; the commit's sha."""

    def made(name: str, branch: str = "main") -> str:
        return author.upload_file(path_or_fileobj=name.encode(), path_in_repo=name, repo_id=UPSTREAM, revision=branch).oid

    return made


@pytest.fixture
def of(api: HfApi, make_plan: MakePlan) -> Callable[..., Plan]:
    """The plan to publish what was made of a commit, with bytes of its own."""

    def planned(sha: str, *, back: str | None = None) -> Plan:
        plan, line = make_plan(release=Release(repo=UPSTREAM, sha=sha), content=b"GGUF" + sha.encode() * 200), Line(api, UPSTREAM)
        place = line.point(sha).place
        upstream = plan.manifest.upstream.model_copy(update={"place": None if place is None else manifests.Place(**vars(place))})
        rollback = None if back is None else Rollback(sha=back, place=line.point(back).place, by="Ada", comment="The new weights are broken.")
        return replace(plan, manifest=plan.manifest.model_copy(update={"upstream": upstream}), rollback=rollback)

    return planned


def there(api: HfApi) -> Manifest:
    """The manifest at the head of the repo."""
    head = commits(api)[0]
    found = manifests.read(download(api, REPO, head, MANIFEST), where="there")
    assert isinstance(found, Manifest)
    return found


def test_an_older_commit_is_not_published_over_a_newer_one(api: HfApi, commit: Callable[..., str], of: Callable[..., Plan], wire: Wire) -> None:
    older, newer = commit("one"), commit("two")
    publish(api, of(newer))
    assert there(api).upstream.place == manifests.Place(position=3, date=there(api).upstream.place.date)  # type: ignore[union-attr]
    head = commits(api)
    wire.sent.clear()
    with pytest.raises(Superseded, match=f"commit {newer[:12]}, which is newer than {older[:12]}, so that one stays.*sluice rollback"):
        publish(api, of(older))
    assert commits(api) == head
    assert wire.count("POST", "") == wire.count("PUT", "") == 0, "nothing is uploaded for nothing"
    with pytest.raises(Superseded, match="which is newer"):
        check_target(api, REPO, Prospective(upstream=UPSTREAM, sha=older, private=False))
    check_target(api, REPO, Prospective(upstream=UPSTREAM, sha=newer, private=False))
    newest = commit("three")
    assert publish(api, of(newest)).changed
    assert there(api).upstream.sha == newest


def test_a_newer_one_that_is_published_during_the_upload_of_an_older_one_stays(
    api: HfApi, commit: Callable[..., str], of: Callable[..., Plan], wire: Wire
) -> None:
    older, newer = commit("one"), commit("two")
    once(wire, "/commit/", lambda: publish(api, of(newer)))
    with pytest.raises(Superseded):
        publish(api, of(older))
    assert there(api).upstream.sha == newer


def test_an_older_one_that_is_published_during_the_upload_of_a_newer_one_goes(
    api: HfApi, commit: Callable[..., str], of: Callable[..., Plan], wire: Wire
) -> None:
    older, newer = commit("one"), commit("two")
    once(wire, "/commit/", lambda: publish(api, of(older)))
    assert publish(api, of(newer)).changed
    assert there(api).upstream.sha == newer


def test_a_roll_back_is_told_by_the_manifest_and_lasts_until_something_newer_comes(api: HfApi, commit: Callable[..., str], of: Callable[..., Plan]) -> None:
    first, second, third = commit("one"), commit("two"), commit("three")
    publish(api, of(third))
    assert publish(api, of(first, back=third)).changed
    told = there(api)
    assert told.upstream.sha == first
    assert told.rollback is not None
    assert (told.rollback.newest, told.rollback.by, told.rollback.comment) == (third, "Ada", "The new weights are broken.")
    assert not publish(api, of(first)).changed, "what is there is found again by a run that knows nothing of the roll-back"
    for withdrawn in (second, third):
        with pytest.raises(Superseded, match=f"was rolled back from the upstream's commit {third[:12]} to {first[:12]}"):
            publish(api, of(withdrawn))
    with pytest.raises(Superseded):
        publish(api, of(second, back=second))
    assert there(api) == told
    publish(api, of(third, back=third))
    assert there(api).rollback is None, "it is published again on purpose, and nothing gave way to it"
    publish(api, of(first, back=third))
    fourth = commit("four")
    assert publish(api, of(fourth)).changed
    assert there(api).rollback is None


def test_a_roll_back_does_not_take_the_place_of_what_came_after_it_was_decided(api: HfApi, commit: Callable[..., str], of: Callable[..., Plan]) -> None:
    first, second, third = commit("one"), commit("two"), commit("three")
    publish(api, of(third))
    with pytest.raises(Superseded):
        publish(api, of(first, back=second))
    assert there(api).upstream.sha == third


def test_a_run_of_what_was_withdrawn_before_it_was_published_comes_too_late(api: HfApi, commit: Callable[..., str], of: Callable[..., Plan]) -> None:
    older, newer = commit("one"), commit("two")
    publish(api, of(older))
    publish(api, of(older, back=newer))
    with pytest.raises(Superseded, match="was rolled back"):
        publish(api, of(newer))


def test_of_rewritten_histories_the_later_commit_is_the_newer(api: HfApi, author: HfApi, commit: Callable[..., str], of: Callable[..., Plan]) -> None:
    base, gone = commit("one"), commit("two")
    author.create_branch(UPSTREAM, branch="again", revision=base)
    rewritten = commit("other", branch="again")
    publish(api, of(gone))
    assert publish(api, of(rewritten)).changed
    with pytest.raises(Superseded):
        publish(api, of(gone))


def test_what_the_hub_does_not_know_any_more_is_told_by_its_date(api: HfApi, commit: Callable[..., str]) -> None:
    now = Line(api, UPSTREAM).point(commit("one"))
    line = Line(api, UPSTREAM)
    past, future, unknown = (
        Point(sha=digit * 40, place=None if year is None else Place(position=9, date=f"{year}-01-01T00:00:00+00:00"))
        for digit, year in (("1", "2001"), ("2", "2999"), ("3", None))
    )
    assert line.precedes(past, now)
    assert not line.precedes(now, past)
    assert line.precedes(now, future)
    assert not line.precedes(now, unknown)
    assert not line.precedes(unknown, now)


def test_a_folder_as_upstream_has_no_order(make_plan: MakePlan, api: HfApi, wire: Wire) -> None:
    local = [make_plan(release=Release(repo="tiny-chat", sha=digit * 40), content=digit.encode() * 3000) for digit in "12"]
    for plan in (*local, local[0]):
        assert publish(api, plan).changed
    assert wire.count("GET", "/commits/") == 0
    assert "place" not in local[0].manifest.to_bytes().decode()


def test_nor_does_an_older_one_take_the_place_of_a_newer_one_in_a_folder(
    api: HfApi, commit: Callable[..., str], of: Callable[..., Plan], tmp_path: Path
) -> None:
    older, newer = commit("one"), commit("two")
    line = Line(api, UPSTREAM)
    folder.publish(tmp_path / "out", of(newer), line)
    for late in (
        lambda: folder.publish(tmp_path / "out", of(older), line),
        lambda: folder.check_target(tmp_path / "out", REPO, Prospective(upstream=UPSTREAM, sha=older, private=False), line),
    ):
        with pytest.raises(Superseded, match="which is newer"):
            late()
    assert not folder.publish(tmp_path / "out", of(newer), line).changed


@pytest.mark.parametrize("known", [True, False])
def test_a_publication_of_an_older_version_without_a_place_is_compared_by_the_history(
    api: HfApi, commit: Callable[..., str], of: Callable[..., Plan], make_plan: MakePlan, known: bool
) -> None:
    older, newer = commit("one"), commit("two")
    publish(api, make_plan(release=Release(repo=UPSTREAM, sha=newer if known else "f" * 40)))
    if known:
        with pytest.raises(Superseded):
            publish(api, of(older))
    else:
        assert publish(api, of(older)).changed, "what no history knows any more is not newer"
