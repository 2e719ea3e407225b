"""The newest release stays published, whoever asks for an older one; going back is an event of its own, or a person's decision."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from config.errors import Superseded
from config.settings import Watched
from publishers.target import download
from service.api import create_app
from service.api.tokens import create_token
from service.cli.main import app
from service.daemon.hints import take_hints
from service.daemon.listing import Listings
from service.execution.workbench import Event
from service.release.intake import ReleaseRequest, queue_release
from service.release.rollback import RollbackRefused, roll_back
from service.runs import holds, steering
from service.runs.deciding import Decision
from service.runs.steering import Actor
from service.store import ApprovalRefused, open_store
from tests.service.helpers import retag
from tests.service.release.short_way import REPO, ShortWay

SAID = Decision(by="Ada", comment="The new weights are broken.")


def tagged(way: ShortWay, sha: str) -> None:
    """Let the watched tag name this commit."""
    retag(way.upstream.author, "upstream/model", sha)


def looked(way: ShortWay, on_rollback: str = "hold") -> None:
    """Look at the tag, as a service does that watches it."""
    recipe = Path(way.settings.watch[0].recipe)
    if "on_rollback" not in recipe.read_text():
        recipe.write_text(recipe.read_text() + f"on_rollback: {on_rollback}\n")
    watch = (Watched(repo="upstream/model", revision="stable", recipe=str(recipe)),)
    way.store.put_hints({"upstream/model": "poll"})
    take_hints(way.store, way.settings.with_(watch=watch), Listings(way.api))
    assert way.store.hints() == (), way.store.hints()


def worked(way: ShortWay) -> list[str]:
    """Carry out what is queued; how each run ended."""
    return [way.carried_out(run.id)["state"] for run in sorted(way.store.runs(state="queued"), key=lambda run: run.id)]


def test_an_older_publication_that_is_asked_for_again_leaves_the_newer_one(each_way: ShortWay) -> None:
    older = each_way.released()
    each_way.upstream.release()
    newer = each_way.released()
    commits = each_way.commits()
    with TestClient(create_app(each_way.store, each_way.settings)) as client:
        client.headers["Authorization"] = f"Bearer {create_token(each_way.store, 'ci')}"
        assert client.post(f"/api/v1/publications/{older['publications'][0]['id']}/republish").status_code == 202
        remarks: list[Event] = []
        ended = each_way.carried_out(older["run"], remarks.append)
        assert ended["state"] == "superseded"
        assert "which is newer" in ended["error"]
        assert [event.message for event in remarks if event.state == "remark"] == [ended["error"]]
        assert each_way.commits() == commits
        assert each_way.manifest().upstream.sha == newer["release"]["sha"]

        address = f"/api/v1/publications/{older['publications'][0]['id']}/rollback"
        assert client.post(address, json={"by": "Ada"}).status_code == 422
        asked = client.post(address, json={"by": "Ada", "comment": "The new weights are broken."})
        assert (asked.status_code, asked.json()["rollback"]["sha"]) == (202, newer["release"]["sha"])
        assert client.post(address, json={"by": "Ada", "comment": "Again."}).status_code == 409
        assert client.get("/api/v1/runs", params={"state": "superseded"}).json()["runs"] == []
    assert each_way.carried_out(older["run"])["state"] == "done"
    told = each_way.manifest()
    assert told.upstream.sha == older["release"]["sha"]
    assert told.rollback is not None
    assert (told.rollback.newest, told.rollback.by) == (newer["release"]["sha"], "Ada")
    events = {event.action: event.details for event in reversed(each_way.store.audit_events())}
    assert events["rollback"] | {"by": "Ada", "token": "ci", "from": newer["release"]["sha"], "repos": [REPO]} == events["rollback"]
    assert events["published"]["rollback"]["by"] == "Ada"

    each_way.queued(newer["release"]["sha"], again=True)
    assert worked(each_way) == ["superseded"], "what was rolled back does not come back by itself"
    roll_back(each_way.store, each_way.api, newer["run"], replace(SAID, comment="They were sound after all."))
    assert worked(each_way) == ["done"]
    assert (each_way.manifest().upstream.sha, each_way.manifest().rollback) == (newer["release"]["sha"], None)
    with pytest.raises(RollbackRefused, match="Nothing newer than"):
        roll_back(each_way.store, each_way.api, newer["run"], SAID)
    steering.retry(each_way.store, older["run"], Actor())
    assert worked(each_way) == ["superseded"], "what was decided was done, and is not decided for ever"
    each_way.upstream.release()
    assert each_way.released()["state"] == "done"
    assert each_way.manifest().rollback is None


@pytest.mark.parametrize("step", ["upload", "publish"])
def test_a_run_that_took_long_ends_superseded_by_another_service(each_way: ShortWay, database_url: str, step: str) -> None:
    slow = each_way.queued()
    each_way.upstream.release()
    other = open_store(database_url)

    def meanwhile(event: Event) -> None:
        if event.stage == f"{step} {REPO}" and event.state == "started":
            each_way.carried_out(replace(each_way, store=other).queued().id, store=other)

    assert each_way.carried_out(slow.id, meanwhile)["state"] == "superseded"
    newest = other.runs()[0]
    assert (newest.state, each_way.manifest().upstream.sha) == ("done", newest.release.sha)
    other.close()


def test_a_new_run_of_an_older_commit_is_refused_before_anything_is_built(short_way: ShortWay) -> None:
    older = short_way.upstream.author.model_info("upstream/model").sha
    assert older is not None
    short_way.upstream.release()
    short_way.released()
    with pytest.raises(Superseded, match="which is newer"):
        short_way.queued(older)
    assert len(short_way.store.runs()) == 1


def test_a_look_counts_for_the_repo_however_its_name_was_written(short_way: ShortWay) -> None:
    recipe = short_way.settings.watch[0].recipe
    request = ReleaseRequest(repo="Upstream/MODEL", revision="main", recipe=recipe, trigger="test", followed=True)
    queue_release(short_way.store, short_way.settings, short_way.api, request)
    seen = short_way.store.sighting("upstream/model", "main", recipe)
    assert seen is not None
    assert seen.sha == short_way.upstream.author.model_info("upstream/model").sha


def test_a_tag_that_moves_back_is_followed_where_the_recipe_says_so(short_way: ShortWay) -> None:
    first = short_way.upstream.author.model_info("upstream/model").sha
    second = short_way.upstream.release()
    assert first is not None
    for sha in (first, second):
        tagged(short_way, sha)
        looked(short_way, "follow")
        assert worked(short_way) == ["done"]
        assert short_way.manifest().upstream.sha == sha
    for sha, gave_way in ((first, second), (second, None), (first, second)):
        tagged(short_way, sha)
        looked(short_way)
        looked(short_way)
        assert worked(short_way) == ["done"]
        told = short_way.manifest()
        assert told.upstream.sha == sha
        assert (told.rollback and told.rollback.newest) == gave_way
        assert told.rollback is None or told.rollback.by is None
        assert told.rollback is None or "The revision 'stable' of upstream/model moved" in told.rollback.comment
    third = short_way.upstream.release()
    tagged(short_way, third)
    looked(short_way)
    assert worked(short_way) == ["done"]
    assert (short_way.manifest().upstream.sha, short_way.manifest().rollback) == (third, None)


def test_a_tag_that_moves_back_is_held_for_a_person_otherwise(short_way: ShortWay) -> None:
    first = short_way.upstream.author.model_info("upstream/model").sha
    second = short_way.upstream.release()
    assert first is not None
    for sha in (first, second):
        tagged(short_way, sha)
        looked(short_way)
        assert worked(short_way) == ["done"]
    tagged(short_way, first)
    looked(short_way)
    assert worked(short_way) == ["held"]
    looked(short_way)
    assert worked(short_way) == [], "asking again is no decision"
    (hold,) = short_way.store.holds(1)
    assert hold.hold.subject == "rollback"
    for words in (f"moved from {second[:12]} back to {first[:12]}", "until then the newer one stays", "on_rollback: follow"):
        assert words in hold.hold.reason
    assert short_way.manifest().upstream.sha == second

    holds.approve(short_way.store, 1, holds.Decision(by="Ada", comment="They took it back."))
    assert worked(short_way) == ["done"]
    told = short_way.manifest()
    assert told.upstream.sha == first
    assert told.rollback is not None
    assert told.rollback.newest == second
    assert [(item.subject, item.by) for item in told.approvals] == [("rollback", "Ada")]


def test_a_tag_that_moves_back_from_what_was_never_released_is_no_event(short_way: ShortWay) -> None:
    first = short_way.upstream.author.model_info("upstream/model").sha
    assert first is not None
    tagged(short_way, first)
    looked(short_way)
    assert worked(short_way) == ["done"]
    card = short_way.upstream.author.upload_file(
        path_or_fileobj=b"---\nlicense: mit\n---\n# Another card\n", path_in_repo="README.md", repo_id="upstream/model"
    ).oid
    commits = short_way.commits()
    for sha in (card, first):
        tagged(short_way, sha)
        looked(short_way)
        assert worked(short_way) == []
    assert short_way.commits() == commits
    assert short_way.store.holds(1) == ()


def test_a_tag_that_moves_back_while_the_newer_one_is_still_being_built(short_way: ShortWay) -> None:
    first = short_way.upstream.author.model_info("upstream/model").sha
    second = short_way.upstream.release()
    assert first is not None
    tagged(short_way, first)
    looked(short_way, "follow")
    assert worked(short_way) == ["done"]
    tagged(short_way, second)
    looked(short_way)
    tagged(short_way, first)
    looked(short_way)
    assert worked(short_way) == ["done", "superseded"]
    assert short_way.manifest().upstream.sha == first


def followed(way: ShortWay, *names: str) -> dict[str, str]:
    """Commits of these names, the first and the last of which the tag named one after the other and were published, and to the first of which it is back."""
    first = way.upstream.author.model_info("upstream/model").sha
    assert first is not None
    commits = dict(zip(names, (first, *(way.upstream.release() for _ in names[1:])), strict=True))
    for name in (names[0], names[-1]):
        tagged(way, commits[name])
        looked(way, "follow")
        assert worked(way) == ["done"]
    tagged(way, first)
    looked(way)
    return commits


@pytest.mark.parametrize("when", ["before it began", "while it uploaded"])
def test_a_run_that_may_go_back_may_not_once_the_tag_came_forward_again(each_way: ShortWay, database_url: str, when: str) -> None:
    named = followed(each_way, "older", "newer")
    other, ends = open_store(database_url), list[str]()

    def meanwhile() -> None:
        tagged(each_way, named["newer"])
        looked(each_way)
        ends.append(each_way.carried_out(2, store=other)["state"])

    if when == "before it began":
        meanwhile()
    slow = each_way.carried_out(1, lambda event: meanwhile() if not ends and (event.stage, event.state) == (f"publish {REPO}", "started") else None)
    other.close()
    assert ends == ["done"]
    assert slow["state"] == "superseded", slow
    assert each_way.manifest().upstream.sha == named["newer"]
    tagged(each_way, named["older"])
    looked(each_way)
    assert worked(each_way) == ["done"], "it is back once more"
    assert each_way.manifest().upstream.sha == named["older"]


def test_of_two_runs_that_may_go_back_the_one_that_the_tag_names_wins(short_way: ShortWay) -> None:
    named = followed(short_way, "older", "middle", "newer")
    tagged(short_way, named["middle"])
    looked(short_way)
    assert short_way.carried_out(3)["state"] == "done"
    assert short_way.carried_out(1)["state"] == "superseded"
    assert short_way.manifest().upstream.sha == named["middle"]


def test_nobody_is_asked_about_going_back_once_the_tag_came_forward_again(each_way: ShortWay) -> None:
    first = each_way.upstream.author.model_info("upstream/model").sha
    second = each_way.upstream.release()
    assert first is not None
    for sha, ends in ((first, ["done"]), (second, ["done"]), (first, ["held"])):
        tagged(each_way, sha)
        looked(each_way)
        assert worked(each_way) == ends
    tagged(each_way, second)
    looked(each_way)
    told = each_way.store.run(1)
    assert told.state == "superseded"
    assert f"It names {second[:12]} by now" in (told.error or "")
    with pytest.raises(ApprovalRefused, match="is not held"):
        holds.approve(each_way.store, 1, holds.Decision(by="Ada", comment="They took it back."))
    assert worked(each_way) == ["done"]
    steering.retry(each_way.store, 1, Actor())
    assert worked(each_way) == ["superseded"], "nor is a run held for what is over"
    tagged(each_way, first)
    looked(each_way)
    assert worked(each_way) == ["held"], "it moved back once more"
    holds.approve(each_way.store, 1, holds.Decision(by="Ada", comment="They took it back."))
    assert worked(each_way) == ["done"]
    assert each_way.manifest().upstream.sha == first


def test_a_person_is_asked_each_time_that_a_tag_moves_back(short_way: ShortWay) -> None:
    first = short_way.upstream.author.model_info("upstream/model").sha
    second = short_way.upstream.release()
    assert first is not None
    for sha, ends in ((first, ["done"]), (second, ["done"]), (first, ["held"])):
        tagged(short_way, sha)
        looked(short_way)
        assert worked(short_way) == ends
    holds.approve(short_way.store, 1, holds.Decision(by="Ada", comment="They took it back."))
    assert worked(short_way) == ["done"]
    for sha, ends in ((second, ["done"]), (first, ["held"])):
        tagged(short_way, sha)
        looked(short_way)
        assert worked(short_way) == ends, "what was approved was the move before"
    assert short_way.manifest().upstream.sha == second


def test_what_a_person_decided_stands_although_the_tag_comes_forward_again(short_way: ShortWay) -> None:
    named = followed(short_way, "older", "newer")
    assert worked(short_way) == ["done"]
    tagged(short_way, named["newer"])
    looked(short_way)
    assert worked(short_way) == ["done"]
    roll_back(short_way.store, short_way.api, 1, SAID)
    looked(short_way)
    assert worked(short_way) == ["done"]
    assert short_way.manifest().upstream.sha == named["older"]


@pytest.mark.parametrize("put_aside", [steering.cancel, steering.pause])
def test_a_tag_that_moves_back_to_what_a_person_did_not_want_leaves_it_at_that(short_way: ShortWay, put_aside: Callable[..., object]) -> None:
    named = followed(short_way, "older", "newer")
    put_aside(short_way.store, 1, Actor())
    for name in ("newer", "older"):
        tagged(short_way, named[name])
        looked(short_way)
    assert worked(short_way) == ["done"]
    assert short_way.manifest().upstream.sha == named["newer"]
    asked = short_way.queued(named["older"], again=True)
    assert (asked.id, asked.state) == (1, "queued")


@pytest.mark.parametrize("older", ["superseded", "queued"])
def test_a_commit_that_takes_another_back_is_released_whatever_became_of_the_older_one_meanwhile(each_way: ShortWay, older: str) -> None:
    first = each_way.upstream.author.model_info("upstream/model").sha
    assert first is not None
    before = download(each_way.api, "upstream/model", first, "config.json")
    for sha in (first, each_way.upstream.release()):
        tagged(each_way, sha)
        looked(each_way)
        assert worked(each_way) == ["done"]
    steering.retry(each_way.store, 1, Actor())
    if older == "superseded":
        assert worked(each_way) == [older]
    reverted = each_way.upstream.author.upload_file(path_or_fileobj=before, path_in_repo="config.json", repo_id="upstream/model").oid
    tagged(each_way, reverted)
    looked(each_way)
    assert worked(each_way) == (["done"] if older == "superseded" else ["superseded", "done"])
    assert each_way.manifest().upstream.sha == reverted
    card = each_way.upstream.author.upload_file(
        path_or_fileobj=b"---\nlicense: mit\n---\n# Another card\n", path_in_repo="README.md", repo_id="upstream/model"
    ).oid
    steering.retry(each_way.store, 1, Actor())
    assert worked(each_way) == ["superseded"]
    tagged(each_way, card)
    looked(each_way)
    assert worked(each_way) == [], "what is published is of the same files"


@pytest.mark.parametrize("on_rollback", ["follow", "hold"])
def test_what_follows_on_what_a_tag_moved_back_to_is_released_although_it_is_of_the_same_files(short_way: ShortWay, on_rollback: str) -> None:
    first = short_way.upstream.author.model_info("upstream/model").sha
    assert first is not None
    tagged(short_way, first)
    looked(short_way, on_rollback)
    assert worked(short_way) == ["done"]
    for sha in (short_way.upstream.release(), first):
        tagged(short_way, sha)
        looked(short_way)
    if on_rollback == "hold":
        assert short_way.carried_out(1)["state"] == "held"
    short_way.upstream.author.create_branch("upstream/model", branch="again", revision=first)
    card = short_way.upstream.author.upload_file(
        path_or_fileobj=b"---\nlicense: mit\n---\n# Another card\n", path_in_repo="README.md", repo_id="upstream/model", revision="again"
    ).oid
    tagged(short_way, card)
    looked(short_way)
    worked(short_way)
    assert short_way.manifest().upstream.sha == card


def test_a_roll_back_needs_something_newer_and_a_run_that_is_over(short_way: ShortWay) -> None:
    only = short_way.released()
    with pytest.raises(RollbackRefused, match="Nothing newer than"):
        roll_back(short_way.store, short_way.api, only["run"], SAID)
    with pytest.raises(RollbackRefused, match="needs a name and a comment"):
        roll_back(short_way.store, short_way.api, only["run"], replace(SAID, by=" "))
    short_way.upstream.release()
    waiting = short_way.queued()
    with pytest.raises(RollbackRefused, match="is queued"):
        roll_back(short_way.store, short_way.api, waiting.id, SAID)


def test_the_command_says_what_happens_next(short_way: ShortWay) -> None:
    older = short_way.released()
    newer = short_way.upstream.release()
    latest = short_way.released()
    token = short_way.settings.token
    assert token is not None
    environment = {
        "SLUICE_HOME": str(short_way.settings.home),
        "SLUICE_HUB_ENDPOINT": short_way.settings.hub_endpoint,
        "SLUICE_HUB_TOKEN": token,
        "COLUMNS": "200",
    }
    done = CliRunner().invoke(app, ["rollback", str(older["run"]), "--by", "Ada", "--comment", "Broken.", "--json"], env=environment)
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["state"], answer["from"], answer["to"]) == ("queued", newer, older["release"]["sha"])
    assert answer["next"].startswith("sluice run upstream/model --revision")
    shown = CliRunner().invoke(app, ["status", str(older["run"])], env=environment).stdout
    assert f"goes back from {newer[:12]}, by Ada: Broken." in shown
    refused = CliRunner().invoke(app, ["rollback", str(older["run"]), "--by", "Ada", "--comment", "Broken."], env=environment)
    assert refused.exit_code == 1
    assert "is queued" in refused.stderr
    assert short_way.carried_out(older["run"])["state"] == "done"
    brought = CliRunner().invoke(app, ["rollback", str(latest["run"]), "--by", "Ada", "--comment", "Sound after all."], env=environment)
    assert f"{newer[:12]} comes back, and run {latest['run']} is queued again" in brought.stdout
    assert "comes back, by Ada: Sound after all." in CliRunner().invoke(app, ["status", str(latest["run"])], env=environment).stdout
