"""A release that a person has to decide about: held before anything is built, told with what is proposed, and going on once that is approved."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from builders.snapshot import Upstream as Described
from builders.snapshot import resolve
from config.errors import SluiceError
from config.words import Hold, Release
from service.api import create_app
from service.api.tokens import create_token
from service.cli.main import app
from service.execution.workbench import Event
from service.release import foreground
from service.release.checks.terms import licensed, lost, unfit, unlicensed
from service.release.intake import ReleaseRequest
from service.release.prospect import Prospect
from service.store import ApprovalRefused, Store, open_store
from tests.service.conftest import DEMO, RECIPE, Upstream
from tests.service.helpers import queue_run

MODEL = "upstream/unknown-chat"  # the bundled model under a name that its family does not ask for
SAID = ("--by", "Ada", "--comment", "Its template ends turns so.")


class Reached(SluiceError):
    """The run got beyond the hold, which is all that is looked at here."""


def listener(event: Event) -> None:
    if event.stage == "sanity":
        raise Reached("the model is let answer")


@pytest.fixture
def released(upstream: Upstream) -> Callable[..., dict[str, Any]]:
    """Release the model, and return the summary of what became of it up to the hold."""

    def carried_out(*, fixes: str = "true", licence: bool = True, target: Path | None = None) -> dict[str, Any]:
        if not upstream.author.repo_exists(MODEL):
            upstream.author.create_repo(MODEL)
            upstream.author.upload_folder(repo_id=MODEL, folder_path=DEMO / "model")
        if not licence:
            upstream.author.upload_file(path_or_fileobj=b"---\nlanguage: en\n---\n# No terms\n", path_in_repo="README.md", repo_id=MODEL)
        recipe = Path(upstream.settings.watch[0].recipe)
        recipe.write_text(RECIPE.replace("name: small\n", f"name: small\nfixes: {fixes}\n"), encoding="utf-8")
        wanted = ReleaseRequest(repo=MODEL, revision="main", recipe=str(recipe), trigger="command", target=None if target is None else str(target))
        return foreground.run(upstream.settings, wanted, listener)

    return carried_out


@pytest.fixture
def asked(upstream: Upstream) -> Callable[..., Result]:
    """A command on the same database."""
    return lambda *arguments: CliRunner().invoke(app, arguments, env={"SLUICE_HOME": str(upstream.settings.home), "COLUMNS": "200"})


def test_a_release_of_no_known_family_is_held_until_its_end_of_turn_is_approved(
    released: Callable[..., dict[str, Any]], asked: Callable[..., Result], upstream: Upstream
) -> None:
    held = released()
    assert (held["state"], held["error"], held["publications"]) == ("held", None, [])
    (hold,) = held["held"]
    assert (hold["subject"], hold["approval"]) == ("end-of-turn-eos", None)
    assert {patch["file"] for patch in hold["patches"]} == {"tokenizer_config.json", "special_tokens_map.json", "config.json", "generation_config.json"}
    assert "end-of-turn-eos" not in {patch["fix"] for patch in held["patches"]}
    shown = asked("status", "1")
    assert shown.exit_code == 4
    for words in ("held end-of-turn-eos: ", 'tokenizer_config.json, eos_token: "', "sluice approve 1 --by NAME", "run 1: held"):
        assert words in shown.stdout
    assert released()["state"] == "held", "asking again is no decision"

    assert asked("approve", "1", "--only", "end-of-turn", *SAID).exit_code == 1
    told = asked("approve", "1", *SAID, "--json")
    assert told.exit_code == 0, told.stderr
    answer = json.loads(told.stdout)
    assert (answer["state"], answer["undecided"]) == ("queued", [])
    assert answer["next"].startswith("sluice run upstream/unknown-chat --revision")
    assert "is not held, it is queued" in asked("approve", "1", *SAID).stderr

    went_on = released()
    assert went_on["error"] == "the model is let answer"
    assert "end-of-turn-eos" in {patch["fix"] for patch in went_on["patches"]}
    (hold,) = went_on["held"]
    assert (hold["approval"]["by"], hold["approval"]["comment"]) == ("Ada", "Its template ends turns so.")
    store = open_store(upstream.settings.database)
    trail = [(event.source, event.action) for event in reversed(store.audit_events(subject="run/1"))]
    assert trail[:5] == [("command", "queued"), ("release", "held"), ("command", "held"), ("command", "queued"), ("command", "held")]
    assert trail[5:7] == [("command", "approved"), ("approval", "queued")]
    (approved,) = (event for event in store.audit_events(subject="run/1") if event.action == "approved")
    assert approved.details == {"subject": "end-of-turn-eos", "by": "Ada", "comment": "Its template ends turns so."}
    store.close()


@pytest.mark.parametrize("folder", [False, True])
def test_nobody_is_asked_where_the_recipe_says_so(released: Callable[..., dict[str, Any]], tmp_path: Path, folder: bool) -> None:
    done = released(fixes="auto", target=tmp_path / "out" if folder else None)
    assert (done["held"], done["error"]) == ([], "the model is let answer")
    assert "end-of-turn-eos" in {patch["fix"] for patch in done["patches"]}


def test_a_release_into_a_folder_is_held_alike(released: Callable[..., dict[str, Any]], asked: Callable[..., Result], tmp_path: Path) -> None:
    out = tmp_path / "out"
    held = released(target=out)
    assert ([hold["subject"] for hold in held["held"]], held["state"], held["error"]) == (["end-of-turn-eos"], "held", None)
    assert not out.exists() or not any(out.iterdir())
    assert asked("status", "1").exit_code == 4
    told = asked("approve", "1", *SAID, "--json")
    assert told.exit_code == 0, told.stderr
    assert "--to" in json.loads(told.stdout)["next"]
    assert released(target=out)["error"] == "the model is let answer"


def test_a_release_of_a_folder_is_held_and_foreseen(asked: Callable[..., Result], upstream: Upstream, tmp_path: Path) -> None:
    """Of a model of no known family, whose end of turn is no end of sequence."""
    model, recipe = tmp_path / "unknown-chat", Path(upstream.settings.watch[0].recipe)
    shutil.copytree(DEMO / "model", model)
    recipe.write_text(RECIPE, encoding="utf-8")
    arguments = (str(model), "--to", str(tmp_path / "out"), "--recipe", str(recipe))
    foreseen = asked("run", *arguments, "--dry-run", "--json")
    assert foreseen.exit_code == 0, foreseen.stderr
    (remark,) = (said for said in json.loads(foreseen.stdout)["remarks"] if "will be held" in said)
    assert "held for end-of-turn-eos until a person approves" in remark
    done = asked("run", *arguments, "--json")
    assert done.exit_code == 4, done.stderr
    assert [hold["subject"] for hold in json.loads(done.stdout)["held"]] == ["end-of-turn-eos"]
    assert asked("approve", "1", *SAID).exit_code == 0
    again = json.loads(asked("run", *arguments, "--dry-run", "--json").stdout)
    assert not [said for said in again["remarks"] if "will be held" in said], "that is decided"


def test_without_a_licence_a_release_is_held_and_the_api_lets_it_go_on(
    released: Callable[..., dict[str, Any]], asked: Callable[..., Result], upstream: Upstream
) -> None:
    held = released(fixes="auto", licence=False)
    assert [hold["subject"] for hold in held["held"]] == ["licence"]
    store = open_store(upstream.settings.database)
    with TestClient(create_app(store, upstream.settings)) as client:
        client.headers["Authorization"] = f"Bearer {create_token(store, 'ci')}"
        assert client.get("/api/v1/runs", params={"state": "held"}).json()["runs"][0]["run"] == 1
        for wrong, status in (({"by": "Ada"}, 422), ({"by": " ", "comment": "x"}, 422), ({"by": "Ada", "comment": "x", "subject": "family"}, 409)):
            assert client.post("/api/v1/runs/1/approve", json=wrong).status_code == status
        assert client.post("/api/v1/runs/7/approve", json={"by": "Ada", "comment": "x"}).status_code == 404
        answer = client.post("/api/v1/runs/1/approve", json={"by": "Ada", "comment": "Its owner wrote that it is MIT."})
        assert (answer.status_code, answer.json()["state"]) == (202, "queued")
        assert client.post("/api/v1/runs/1/approve", json={"by": "Ada", "comment": "Again."}).json()["code"] == "not_held"
    (event,) = (event for event in store.audit_events(subject="run/1") if event.action == "approved")
    assert (event.source, event.details["token"], event.details["by"]) == ("api", "ci", "Ada")
    assert released(fixes="auto", licence=False)["error"] == "the model is let answer"
    store.close()

    withdrawn = asked("approve", "1", "--withdraw", "--by", "Ada", "--comment", "He did not.")
    assert withdrawn.exit_code == 0, withdrawn.stderr
    assert "Undecided of run 1: licence" in withdrawn.stdout
    assert released(fixes="auto", licence=False)["state"] == "held"


@pytest.mark.parametrize(
    ("said", "paths", "readable"),
    [
        ({"license": "mit"}, (), True),
        ({}, (), False),
        ({}, ("LICENSE",), True),
        ({}, ("Licence.md", "README.md"), True),
        ({}, ("docs/legal/Terms of Use.md",), True),
        ({}, ("ModelLicense.pdf", "COPYING"), True),
        ({}, ("EULA.txt",), True),
        ({}, ("许可证.txt",), True),
        ({}, ("版权.txt",), False),
        ({}, ("THIRD-PARTY-LICENSES.txt", "license_plates.csv"), False),
        ({}, ("NOTICE", "README.md"), False),
        ({"license": "unknown"}, (), False),
        ({"license": "other"}, (), False),
        ({"license": "other"}, ("license.txt",), True),
        ({"license": "other", "license_name": "gemma"}, (), True),
        ({"license": "other", "license_link": "https://example.org/terms"}, (), True),
        ({"license": "other", "license_link": "javascript:alert(1)"}, (), False),  # which no card repeats
    ],
)
def test_which_terms_can_be_read(said: Mapping[str, str], paths: tuple[str, ...], readable: bool) -> None:
    upstream = Described(release=Release(repo="upstream/model", sha="1" * 40), private=False, gated=False, **said)
    assert licensed(upstream, paths) == readable
    assert bool(list(unlicensed(upstream, paths, strange=True))) != readable
    assert not list(unlicensed(upstream, paths, strange=False)), "one's own model, or one that stays here"


def test_that_it_will_be_held_for_its_licence_is_said_beforehand(prospect: Callable[..., Prospect], tmp_path: Path) -> None:
    bare = Described(release=Release(repo="upstream/model", sha="1" * 40), private=False, gated=False)
    (remark,) = unfit(prospect(upstream=bare))
    assert "The release will be held until a person approves that." in remark
    (remark,) = unfit(prospect(upstream=bare, target=str(tmp_path)))
    assert "held" not in remark


def test_what_no_card_repeats_of_terms_without_an_id_is_said_beforehand(prospect: Callable[..., Prospect]) -> None:
    def remarks(repo: str = "upstream/model", **said: str) -> list[str]:
        upstream = Described(release=Release(repo=repo, sha="1" * 40), private=False, gated=False, **{"license": "other", **said})
        return list(unfit(prospect(upstream=upstream, sizes={"LICENSE": 1, "config.json": 1})))

    assert remarks(license_name="Meta's licence", license_link="./LICENSE") == []
    assert remarks(license="mit", license_name="<x>", license_link="javascript:alert(1)") == [], "its id tells all"
    (name,) = remarks(license_name="turned \u202eback")
    assert "names its licence 'turned \\u202eback', which is not repeated" in name
    (link,) = remarks(license_name="mine", license_link="javascript:alert(1)")
    assert "links its terms as 'javascript:alert(1)', which is not repeated" in link
    assert remarks(license_name="mine", license_link="AGREEMENT.md") == [], "which is the upstream's, where anybody can read it"
    (lost,) = remarks(repo="model", license_name="mine", license_link="AGREEMENT.md")
    assert "which is no file of terms in that folder" in lost


def test_terms_in_a_file_that_cannot_be_passed_on_wait_for_a_person(upstream: Upstream, prospect: Callable[..., Prospect], tmp_path: Path) -> None:
    upstream.author.upload_file(path_or_fileobj=b"Be kind.", path_in_repo="LICENSE:2.txt", repo_id="upstream/model")
    found = resolve(upstream.author, "upstream/model", "main")
    assert found.lost == ("LICENSE:2.txt",)
    (hold,) = lost(found, strange=True)
    assert "upstream/model has terms in 'LICENSE:2.txt', called so that" in hold.reason
    assert not list(lost(found, strange=False))
    (remark, *_) = unfit(prospect(upstream=found))
    assert "it is published without them. The release will be held" in remark
    (remark, *_) = unfit(prospect(upstream=found, target=str(tmp_path)))
    assert "held" not in remark


def test_what_was_approved_stays_approved_only_while_it_is_the_same(store: Store) -> None:
    run, one, two = queue_run(store).id, Hold(subject="a", reason="It is so."), Hold(subject="b", reason="It is otherwise.")
    store.record_holds(run, [one, two])
    ada = {"by": "Ada", "comment": "Yes.", "source": "command"}
    with pytest.raises(ApprovalRefused, match="it is queued"):
        store.approve(run, [one], **ada)
    store.lease("worker", seconds=60)
    store.finish(run, state="held")
    with pytest.raises(ApprovalRefused, match="not what was shown"):
        store.approve(run, [two, replace(one, reason="It was so.")], **ada)
    assert [item.approval for item in store.holds(run)] == [None, None], "all of it or nothing"
    assert store.approve(run, [one], **ada).state == "held"
    store.record_holds(run, [one, two])
    assert [(item.hold, item.approval is not None) for item in store.holds(run)] == [(one, True), (two, False)]
    changed = Hold(subject="a", reason="It is so by now.")
    store.record_holds(run, [changed])
    assert [(item.hold, item.approval) for item in store.holds(run)] == [(changed, None)]
    assert store.approve(run, [changed], **ada).state == "queued"
    actions = [event.action for event in store.audit_events(subject=f"run/{run}")]
    assert actions == ["queued", "approved", "held", "approved", "held", "held", "held", "queued"]
