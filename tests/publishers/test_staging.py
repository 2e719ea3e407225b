"""A publication is read back from a branch beside main before main has it, and no byte is sent twice for that."""

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from config.errors import HubError
from publishers.hub import Plan, PublishFile, inventory, publish, staged
from publishers.staging import PREFIX
from tests.publishers.conftest import REPO, MakePlan, Wire, commits, once


def branches(api: HfApi) -> list[str]:
    return [ref.name for ref in api.list_repo_refs(REPO).branches]


def hidden(plan: Plan) -> Plan:
    """The plan with a file that keeps another one out of every commit."""
    files = (*plan.files, PublishFile.from_bytes(".gitignore", b"params\n"))
    return Plan(repo=plan.repo, private=False, files=files, manifest=plan.manifest.model_copy(update={"files": inventory(files)}), message="x")


def test_files_go_up_once_and_main_gets_one_commit(api: HfApi, make_plan: MakePlan, wire: Wire) -> None:
    done = publish(api, make_plan())
    assert sum(line.startswith("PUT") and "/settings" not in line for line in wire.sent) == 1, "the file that is in LFS"
    assert [line.partition("/commit/")[2][: len(PREFIX)] for line in wire.sent if "/commit/" in line] == [PREFIX, "main"]
    assert commits(api)[0] == done.revision
    assert len(commits(api)) == 2, "the Hub's own and ours"
    assert branches(api) == ["main"]


def test_what_the_hub_takes_otherwise_never_gets_to_main(api: HfApi, make_plan: MakePlan, wire: Wire) -> None:
    with pytest.raises(HubError, match="does not hold what was sent: params differ"):
        publish(api, hidden(make_plan()))
    assert len(commits(api)) == 1, "the Hub's own"
    assert wire.count("POST", "/commit/main") == 0
    assert branches(api) == ["main"]


def test_a_branch_that_a_kill_left_is_swept_also_when_there_is_nothing_to_publish(api: HfApi, make_plan: MakePlan) -> None:
    publish(api, make_plan())
    for name in (f"{PREFIX}0123", "theirs"):
        api.create_branch(REPO, branch=name)
    assert not publish(api, make_plan()).changed
    assert sorted(branches(api)) == ["main", "theirs"]


@pytest.mark.parametrize("part", [f"/commit/{PREFIX}", "/commit/main"])
def test_a_branch_that_somebody_took_away_is_begun_again(api: HfApi, make_plan: MakePlan, wire: Wire, part: str) -> None:
    def sweep() -> None:
        for name in branches(api):
            if name.startswith(PREFIX):
                api.delete_branch(REPO, branch=name)

    once(wire, part, sweep)
    assert publish(api, make_plan()).changed
    assert branches(api) == ["main"]
    assert len(commits(api)) == 2


def test_a_commit_on_main_between_the_two_is_planned_for_anew(api: HfApi, make_plan: MakePlan, wire: Wire) -> None:
    publish(api, make_plan())
    once(wire, "/commit/main", lambda: api.create_commit(REPO, [CommitOperationAdd("note.txt", b"hi")], commit_message="Meanwhile"))
    assert publish(api, make_plan(content=b"GGUF" * 700)).changed
    assert "note.txt" not in api.list_repo_files(REPO)
    assert branches(api) == ["main"]


def test_nothing_that_others_see_is_changed_before_it_is_asked_for(api: HfApi, make_plan: MakePlan) -> None:
    first = publish(api, make_plan()).revision
    with staged(api, make_plan(content=b"GGUF" * 700)):
        assert len(branches(api)) == 2
    assert (commits(api)[0], branches(api)) == (first, ["main"])
    with staged(api, make_plan(content=b"GGUF" * 700)) as promote:
        assert commits(api)[0] == first
        done = promote()
    assert (commits(api)[:2], branches(api)) == ([done.revision, first], ["main"])


@pytest.mark.parametrize("content", [b"GGUF", b"GGUF" * 700], ids=["where nothing was to be changed", "where something was"])
def test_what_came_to_main_meanwhile_is_planned_for_anew(api: HfApi, make_plan: MakePlan, content: bytes) -> None:
    publish(api, make_plan(content=b"GGUF"))
    with staged(api, make_plan(content=content)) as promote:
        api.create_commit(REPO, [CommitOperationAdd("note.txt", b"hi")], commit_message="Meanwhile")
        assert promote().changed
    assert "note.txt" not in api.list_repo_files(REPO)
    assert branches(api) == ["main"]
