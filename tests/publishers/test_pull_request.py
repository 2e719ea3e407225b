"""Offering changed files to an upstream that somebody else, or oneself, owns."""

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from config.errors import HubError, PublishConflict
from hub.tokens import create_token
from publishers.hub import PublishFile
from publishers.pull_request import FOLLOWED, Proposal, PullRequest, offer
from tests.publishers.conftest import Wire, once

REPO = "maker/model"
FIXED = PublishFile.from_bytes("config.json", b'{"eos": 4}\n')
ADDED = PublishFile.from_bytes("generation_config.json", b'{"top_k": 20}\n')


@pytest.fixture
def maker(root: Path, endpoint: str) -> HfApi:
    """The account that owns the upstream, which holds a configuration and something that looks like weights."""
    made = HfApi(endpoint=endpoint, token=create_token(root, user="maker"))
    made.create_repo(REPO)
    made.create_commit(REPO, [CommitOperationAdd("config.json", b'{"eos": 5}\n'), CommitOperationAdd("model.bin", b"\0weights")], commit_message="Release")
    return made


@pytest.fixture
def proposal(maker: HfApi) -> Proposal:
    return Proposal(repo=REPO, base=head(maker), files=(FIXED, ADDED), title="Repair two files", text="- **eos**: Answers must end.")


def head(api: HfApi) -> str:
    found = api.repo_info(REPO).sha
    assert found is not None
    return found


def requests(api: HfApi) -> list[tuple[int, str]]:
    """Number and status of every pull request, oldest first."""
    return sorted((each.num, each.status) for each in api.get_repo_discussions(REPO, discussion_type="pull_request"))


def test_the_request_holds_exactly_the_changed_files_and_the_reasons(api: HfApi, maker: HfApi, proposal: Proposal) -> None:
    before = head(maker)
    assert offer(api, proposal) == PullRequest(number=1, url=f"{api.endpoint}/{REPO}/discussions/1", state="opened")
    assert head(maker) == before
    details = maker.get_discussion_details(REPO, 1)
    assert (details.title, details.author, details.status) == ("Repair two files", "sluice", "open")
    assert "Answers must end." in details.events[0].content
    assert details.diff == (
        "diff --git a/config.json b/config.json\n--- a/config.json\n+++ b/config.json\n@@ -1 +1 @@\n-{\"eos\": 5}\n+{\"eos\": 4}\n"
        "diff --git a/generation_config.json b/generation_config.json\n--- /dev/null\n+++ b/generation_config.json\n@@ -0,0 +1 @@\n+{\"top_k\": 20}\n"
    )  # fmt: skip


def test_the_same_again_opens_none(api: HfApi, maker: HfApi, proposal: Proposal, wire: Wire) -> None:
    first = offer(api, proposal)
    assert first is not None
    wire.sent.clear()
    assert offer(api, proposal) == replace(first, state="open")
    assert not wire.count("POST", "")
    maker.upload_file(path_or_fileobj=b"\0more", path_in_repo="model.bin", repo_id=REPO)
    assert offer(api, replace(proposal, base=head(maker))) == replace(first, state="open")
    assert requests(maker) == [(1, "open")]


def test_older_content_gives_way_to_a_new_request(api: HfApi, maker: HfApi, proposal: Proposal) -> None:
    offer(api, proposal)
    maker.create_discussion(REPO, "A question")
    newer = offer(api, replace(proposal, files=(FIXED,)))
    assert newer is not None
    assert (newer.number, newer.state) == (3, "opened")
    assert requests(maker) == [(1, "closed"), (3, "open")]
    assert maker.get_discussion_details(REPO, 1).events[-2].content == f"{FOLLOWED} #3."
    again = offer(api, proposal)
    assert again is not None
    assert (again.number, again.state) == (4, "opened"), "what we closed ourselves was not turned down"
    assert requests(maker) == [(1, "closed"), (3, "closed"), (4, "open")]


def test_what_was_turned_down_or_merged_is_not_offered_again(api: HfApi, maker: HfApi, proposal: Proposal) -> None:
    offer(api, proposal)
    maker.change_discussion_status(REPO, 1, "closed", comment="No, thank you.")
    found = offer(api, proposal)
    assert found is not None
    assert found.state == "closed"
    maker.change_discussion_status(REPO, 1, "open")
    maker.merge_pull_request(REPO, 1)
    found = offer(api, proposal)
    assert found is not None
    assert found.state == "merged"
    assert requests(maker) == [(1, "merged")]


def test_nothing_is_offered_that_the_upstream_holds_by_now(api: HfApi, maker: HfApi, proposal: Proposal) -> None:
    operations = [CommitOperationAdd(file.path, file.source) for file in proposal.files]
    maker.create_commit(REPO, operations, commit_message="Found it ourselves")
    assert offer(api, proposal) is None
    assert requests(maker) == []


def test_an_upstream_that_moved_on_gets_the_change_of_the_released_commit(api: HfApi, maker: HfApi, proposal: Proposal) -> None:
    maker.create_commit(REPO, [CommitOperationAdd("config.json", b'{"eos": 5, "new": 1}\n')], commit_message="Next")
    assert offer(api, proposal) is not None
    details = maker.get_discussion_details(REPO, 1)
    assert details.conflicting_files == ["config.json"]
    assert "new" not in details.diff


def test_a_released_commit_that_is_not_on_the_main_branch(api: HfApi, maker: HfApi, proposal: Proposal) -> None:
    maker.create_branch(REPO, branch="other")
    side = maker.create_commit(REPO, [CommitOperationAdd("config.json", b"{}\n")], commit_message="Aside", revision="other").oid
    with pytest.raises(PublishConflict, match="is not on its main branch"):
        offer(api, replace(proposal, base=side))
    assert requests(maker) == []


def test_requests_of_others_are_theirs(api: HfApi, root: Path, maker: HfApi, proposal: Proposal) -> None:
    other = HfApi(endpoint=api.endpoint, token=create_token(root, user="other"))
    assert offer(other, proposal) is not None
    found = offer(api, proposal)
    assert found is not None
    assert (found.number, found.state) == (2, "opened")
    assert offer(api, replace(proposal, files=(FIXED,))) is not None
    assert requests(maker) == [(1, "open"), (2, "closed"), (3, "open")]


def test_of_two_that_offer_at_once_one_stays(api: HfApi, maker: HfApi, proposal: Proposal, wire: Wire) -> None:
    once(wire, "/commit/", lambda: offer(HfApi(endpoint=api.endpoint, token=api.token), proposal))
    found = offer(api, proposal)
    assert found is not None
    assert (found.number, found.state) == (1, "open")
    assert requests(maker) == [(1, "open"), (2, "closed")]
    assert offer(api, proposal) == found


def test_a_token_that_may_not_is_told_in_words(api: HfApi, root: Path, maker: HfApi, proposal: Proposal) -> None:
    reader = HfApi(endpoint=api.endpoint, token=create_token(root, user="sluice", scope="read"))
    with pytest.raises(HubError, match=f"Could not open a pull request in {REPO}"):
        offer(reader, proposal)
    maker.update_repo_settings(REPO, private=True)
    with pytest.raises(HubError):
        offer(api, proposal)
    assert requests(maker) == []
