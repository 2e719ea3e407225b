"""Discussions and pull requests."""

from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import BadRequestError

from tests.hub.support import Place, refused


@pytest.fixture
def repo(ann: HfApi) -> str:
    ann.create_repo("ann/thing")
    ann.create_commit("ann/thing", [CommitOperationAdd("a.txt", b"a\n"), CommitOperationAdd("b.txt", b"b\n")], commit_message="fill")
    return "ann/thing"


def test_a_pull_request_from_a_commit(place: Place, ann: HfApi, repo: str, tmp_path: Path) -> None:
    bob = place.api("bob")
    operations = [CommitOperationAdd("a.txt", b"A\n"), CommitOperationAdd("w.bin", b"\0"), CommitOperationDelete("b.txt")]
    info = bob.create_commit(repo, operations, commit_message="Better letters", commit_description="see", create_pr=True)
    assert (info.pr_num, info.pr_revision) == (1, "refs/pr/1")
    assert info.pr_url == f"{place.url}/{repo}/discussions/1"
    assert ann.list_repo_files(repo) == [".gitattributes", "a.txt", "b.txt"]
    assert "w.bin" in ann.list_repo_files(repo, revision="refs/pr/1")
    assert Path(ann.hf_hub_download(repo, "a.txt", revision="refs/pr/1", cache_dir=tmp_path)).read_text() == "A\n"
    assert [(ref.name, ref.target_commit) for ref in ann.list_repo_refs(repo, include_pull_requests=True).pull_requests] == [("refs/pr/1", info.oid)]
    details = ann.get_discussion_details(repo, 1)
    assert (details.title, details.author, details.status, details.target_branch) == ("Better letters", "bob", "open", "refs/heads/main")
    assert details.conflicting_files == []
    assert "-a\n+A\n" in details.diff
    assert "+++ /dev/null" in details.diff
    bob.upload_file(path_or_fileobj=b"c", path_in_repo="c.txt", repo_id=repo, revision="refs/pr/1")
    ann.upload_file(path_or_fileobj=b"d", path_in_repo="d.txt", repo_id=repo)
    with refused(403):
        bob.merge_pull_request(repo, 1)
    ann.merge_pull_request(repo, 1, comment="Thanks")
    assert ann.list_repo_files(repo) == [".gitattributes", "a.txt", "c.txt", "d.txt", "w.bin"]
    details = ann.get_discussion_details(repo, 1)
    assert details.status == "merged"
    assert details.merge_commit_oid == ann.model_info(repo).sha
    assert [event.type for event in details.events] == ["comment", "commit", "commit", "comment", "status-change"]
    assert ann.list_repo_commits(repo)[0].title == "Better letters (#1)"
    with pytest.raises(BadRequestError):
        ann.merge_pull_request(repo, 1)


def test_a_pull_request_that_conflicts_is_not_merged(ann: HfApi, repo: str) -> None:
    base = ann.model_info(repo).sha
    ann.upload_file(path_or_fileobj=b"mine\n", path_in_repo="a.txt", repo_id=repo)
    ann.create_commit(repo, [CommitOperationAdd("a.txt", b"theirs\n")], commit_message="Other letters", create_pr=True, parent_commit=base)
    assert ann.get_discussion_details(repo, 1).conflicting_files == ["a.txt"]
    head = ann.model_info(repo).sha
    with refused(409):
        ann.merge_pull_request(repo, 1)
    assert ann.model_info(repo).sha == head
    assert ann.get_discussion_details(repo, 1).status == "open"


def test_an_empty_pull_request_is_a_draft_until_opened(ann: HfApi, repo: str) -> None:
    request = ann.create_pull_request(repo, "To come", description="soon")
    assert (request.status, request.git_reference) == ("draft", "refs/pr/1")
    ann.upload_file(path_or_fileobj=b"c", path_in_repo="c.txt", repo_id=repo, revision="refs/pr/1")
    with pytest.raises(BadRequestError):
        ann.merge_pull_request(repo, 1)
    ann.change_discussion_status(repo, 1, "open")
    ann.merge_pull_request(repo, 1)
    assert "c.txt" in ann.list_repo_files(repo)


def test_discussions(place: Place, ann: HfApi, repo: str) -> None:
    bob = place.api("bob")
    started = bob.create_discussion(repo, "A question", description="Why?")
    assert (started.num, started.status, started.is_pull_request) == (1, "open", False)
    assert started.events[0].content == "Why?"
    assert ann.comment_discussion(repo, 1, "Because <b>.").content == "Because <b>."
    renamed = ann.rename_discussion(repo, 1, "An answered question")
    assert (renamed.old_title, renamed.new_title) == ("A question", "An answered question")
    assert bob.change_discussion_status(repo, 1, "closed", comment="Thanks").new_status == "closed"
    ann.create_pull_request(repo, "Another")
    assert [each.num for each in ann.get_repo_discussions(repo)] == [2, 1]
    assert [each.num for each in ann.get_repo_discussions(repo, discussion_status="open")] == [2]
    assert [each.num for each in ann.get_repo_discussions(repo, discussion_type="discussion")] == [1]
    assert [each.num for each in ann.get_repo_discussions(repo, author="bob")] == [1]
    details = ann.get_discussion_details(repo, 1)
    assert [event.type for event in details.events] == ["comment", "comment", "title-change", "comment", "status-change"]
    with refused(403):
        place.api("carl").rename_discussion(repo, 1, "Mine now")
    with refused(404):
        ann.get_discussion_details(repo, 3)
    with pytest.raises(BadRequestError):
        ann.create_discussion(repo, "no")
    with refused(403):
        place.api("dora", "read").comment_discussion(repo, 1, "Me too")
