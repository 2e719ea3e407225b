"""A publication that is taken back: its repo is private on the Hub, who did it and why stands on record, and nothing makes it public again by itself."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from typer.testing import CliRunner

from bench.faulty import Fault, Request, Rule, always, faults, faulty
from config.errors import HubUnavailable
from config.settings import Settings
from service.api import create_app
from service.api.tokens import create_token
from service.cli.main import app
from service.execution.workbench import Event
from service.hubclient import connect
from service.release.unpublishing import UnpublishRefused, unpublish
from service.runs.steering import Actor
from service.store import PublicationRecord, Published
from tests.service.helpers import queue_run
from tests.service.release.short_way import REPO, ShortWay

SAID = {"by": "Ada", "reason": "The licence changed."}


@pytest.fixture
def client(short_way: ShortWay) -> Iterator[TestClient]:
    """The API beside the Hub."""
    with asking(short_way, short_way.settings) as opened:
        yield opened


def asking(way: ShortWay, settings: Settings) -> TestClient:
    bearer = {"Authorization": f"Bearer {create_token(way.store, f'token-{len(way.store.tokens())}')}"}
    return TestClient(create_app(way.store, settings), base_url="http://testserver/api/v1", headers=bearer)


def seen(way: ShortWay) -> bool:
    """Whether somebody without a token sees the repo."""
    try:
        return bool(HfApi(endpoint=way.settings.hub_endpoint, token=False).repo_info(REPO))
    except RepositoryNotFoundError:
        return False


def test_its_repo_is_private_with_name_and_reason_on_record_and_later_releases_leave_it_so(short_way: ShortWay, client: TestClient) -> None:
    first = short_way.released()["publications"][0]["id"]
    assert seen(short_way)
    answer = client.post(f"publications/{first}/unpublish", json=SAID)
    assert answer.status_code == 200
    assert answer.json() == client.get(f"publications/{first}").json()
    assert {key: answer.json()["unpublished"][key] for key in SAID} == SAID
    assert not seen(short_way)
    assert short_way.manifest().upstream.repo == "upstream/model", "its files stay"
    (event,) = (item for item in short_way.store.audit_events(subject=f"publication/{first}") if item.action == "unpublished")
    assert (event.source, event.details) == ("api", {"repo": REPO, "token": "token-0", **SAID})

    newest = short_way.upstream.release()
    assert short_way.released()["state"] == "done"
    assert short_way.manifest().upstream.sha == newest, "it was published"
    assert not seen(short_way), "and its repo left private"
    assert client.post(f"publications/{first + 1}/republish").status_code == 202
    (queued,) = short_way.store.runs(state="queued")
    assert short_way.carried_out(queued.id)["state"] == "done"
    assert not seen(short_way)
    told = [item["unpublished"] for item in client.get("publications").json()["publications"]]
    assert [{key: item[key] for key in SAID} for item in told] == [SAID, SAID], "what is newer is seen by nobody either, and that is told"
    (head,) = (item for item in client.get("releases").json()["releases"] if item["repo"] == "upstream/model")
    assert head["published"] == []


def test_a_person_makes_it_public_again_and_nothing_else_does(short_way: ShortWay) -> None:
    first = short_way.released()["publications"][0]["id"]
    unpublish(short_way.store, short_way.api, first, **SAID, actor=Actor())
    short_way.api.delete_repo(REPO)
    short_way.upstream.release()
    events, run = list[Event](), short_way.queued()
    short_way.carried_out(run.id, events.append)
    (said,) = (event.message for event in events if event.stage == f"publish {REPO}" and event.state == "done")
    assert re.search(r"the repo stays private: Ada unpublished it on [\d-]+ \(The licence changed\.\)\. Make it public on the Hub", said)
    assert not seen(short_way), "though it was made anew"
    short_way.api.update_repo_settings(REPO, private=False)
    short_way.upstream.release()
    short_way.released()
    assert seen(short_way), "which is left as it is"
    assert [item.unpublished for item in short_way.store.all_publications()] == [None, None, None]


def test_a_hub_that_takes_the_request_and_does_nothing_is_found_out(short_way: ShortWay) -> None:
    publication = short_way.released()["publications"][0]["id"]
    with faulty(short_way.settings.hub_endpoint) as proxy:
        proxy.rule = always(Fault(answer=200), method="PUT", path="/settings")
        with asking(short_way, short_way.settings.with_(hub_endpoint=proxy.url)) as client:
            answer = client.post(f"publications/{publication}/unpublish", json=SAID)
    assert (answer.status_code, answer.json()["code"]) == (502, "hub_failed")
    assert "took the request, but shows the repo as public" in answer.json()["detail"]
    assert proxy.count("PUT", "/settings") == 1
    assert seen(short_way)
    assert short_way.store.publication(publication).unpublished is None, "nothing is on record that is not so"
    assert [item.action for item in short_way.store.audit_events(subject=f"publication/{publication}")] == ["published"]


def test_a_command_takes_it_back(short_way: ShortWay) -> None:
    publication = short_way.released()["publications"][0]["id"]
    settings = short_way.settings
    assert settings.hub_token is not None
    environment = {"SLUICE_HOME": str(settings.home), "SLUICE_HUB_ENDPOINT": settings.hub_endpoint, "SLUICE_HUB_TOKEN": settings.hub_token.get_secret_value()}
    done = CliRunner().invoke(app, ["unpublish", str(publication), "--by", " Ada ", "--reason", "The licence\nchanged."], env=environment)
    assert (done.exit_code, done.stdout) == (0, f"{REPO} is private now\n")
    assert not seen(short_way)
    found = short_way.store.publication(publication).unpublished
    assert found is not None
    assert {"by": found.by, "reason": found.reason} == SAID
    listed = CliRunner().invoke(app, ["publications"], env=environment)
    assert f"unpublished by Ada on {found.at:%Y-%m-%d %H:%M}: The licence changed." in " ".join(listed.stdout.split())


def test_nobody_takes_it_back_without_name_and_reason(short_way: ShortWay) -> None:
    publication = short_way.released()["publications"][0]["id"]
    for said in ({**SAID, "by": " "}, {**SAID, "reason": "\n"}):
        with pytest.raises(UnpublishRefused, match="needs a name and a reason"):
            unpublish(short_way.store, connect(short_way.settings), publication, **said, actor=Actor())
    assert seen(short_way)


def test_a_folder_is_not_taken_back_from_a_hub(short_way: ShortWay, client: TestClient) -> None:
    short_way.released()
    left = queue_run(short_way.store, "upstream/left", target="/a/folder").id
    folder = Published(repo="/a/folder", revision="1" * 12, url="file:///a/folder", files=("README.md",), manifest_digest="m", changed=True)
    short_way.store.record_publication(left, folder)
    answer = client.post("publications/2/unpublish", json=SAID)
    assert (answer.status_code, answer.json()["code"]) == (409, "publish_conflict")
    assert seen(short_way)


# ---- while a run is about to open the repo -----------------------------------------------------------------------------------------------------------


AWAY = always(Fault(answer=503), path="/refs")  # by which a publication looks for branches, when main has it and before the repo is opened


def taken(way: ShortWay, publication: int = 1) -> PublicationRecord:
    """The publication, which a person takes back."""
    return unpublish(way.store, way.api, publication, **SAID, actor=Actor())


def through(way: ShortWay, rule: Rule) -> dict[str, object]:
    """The first run, carried out at a Hub behind a proxy of that rule."""
    with faulty(way.settings.hub_endpoint) as proxy:
        proxy.rule = rule
        far = replace(way.upstream, settings=way.settings.with_(hub_endpoint=proxy.url, hub_patience=0.0))
        return ShortWay(upstream=far, store=way.store).carried_out(1)


def stays_taken_back(way: ShortWay) -> None:
    """Nobody sees the repo, and that a person wanted it so stands on record; also after whatever is released next."""
    for _ in range(2):
        assert not seen(way)
        assert {item.unpublished is not None and item.unpublished.by for item in way.store.all_publications()} == {"Ada"}
        way.upstream.release()
        assert way.released()["state"] == "done"


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_repo_that_is_taken_back_before_it_was_opened_is_not_opened(each_way: ShortWay, cancelled: bool) -> None:
    each_way.queued()
    with pytest.raises(HubUnavailable):
        through(each_way, AWAY)
    assert len(each_way.commits()) == 2
    taken(each_way)
    if cancelled:
        each_way.store.cancel(1, source="test", details={})
        each_way.upstream.release()
        each_way.released()
    else:
        assert each_way.carried_out(1)["state"] == "done"
    stays_taken_back(each_way)
    each_way.api.update_repo_settings(REPO, private=False)
    each_way.upstream.release()
    each_way.released()
    each_way.api.update_repo_settings(REPO, private=True)
    each_way.upstream.release()
    each_way.released()
    assert not seen(each_way), "a person opened it, and its owner decides"


def opening(act: Callable[[], object]) -> Rule:
    """Act when the Hub is about to be told to make the repo public."""
    done = list[bool]()

    def rule(request: Request) -> Fault | None:
        if (request.method, request.path[-9:]) == ("PUT", "/settings") and not done:
            done.append(True)
            act()
        return None

    return rule


@pytest.mark.parametrize("lost", [False, True])
def test_a_repo_that_is_taken_back_while_it_is_opened_is_private_in_the_end(each_way: ShortWay, lost: bool) -> None:
    each_way.queued()
    before, after = opening(lambda: taken(each_way)), faults(Fault(lose=lost), method="PUT", path="/settings")
    done = through(each_way, lambda request: before(request) or after(request))
    assert done["state"] == "done"
    stays_taken_back(each_way)


def test_a_repo_that_was_just_opened_when_it_is_taken_back_is_private_in_the_end(each_way: ShortWay) -> None:
    each_way.queued()
    told = faults(Fault(then=lambda: taken(each_way)), method="PUT", path="/settings")
    assert through(each_way, told)["state"] == "done"
    stays_taken_back(each_way)


def test_a_repo_that_is_opened_before_it_is_on_record_that_it_was_taken_back_is_private_in_the_end(each_way: ShortWay, monkeypatch: pytest.MonkeyPatch) -> None:
    each_way.queued()
    with pytest.raises(HubUnavailable):
        through(each_way, AWAY)
    record = each_way.store.record_unpublished

    def late(*given: object, **named: object) -> PublicationRecord:
        each_way.carried_out(1)
        assert seen(each_way)
        return record(*given, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(each_way.store, "record_unpublished", late)
        taken(each_way)
    stays_taken_back(each_way)
