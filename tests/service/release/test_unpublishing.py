"""A publication that is taken back: its repo is private on the Hub, who did it and why stands on record, and nothing makes it public again by itself."""

import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from typer.testing import CliRunner

from bench.faulty import Fault, always, faulty
from config.settings import Settings
from service.api import create_app
from service.api.tokens import create_token
from service.cli.main import app
from service.execution.workbench import Event
from service.hubclient import connect
from service.release.unpublishing import UnpublishRefused, unpublish
from service.runs.steering import Actor
from service.store import Published
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
