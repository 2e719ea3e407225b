import re
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from config.settings import Settings, Watched
from service.api import outward, streams
from service.api.attempts import FAILURES
from service.api.tokens import create_token
from service.store import Message, Published, Store
from service.store.access import Grant
from tests.service.dashboard.conftest import HOSTILE, blocked_run, dashboard, held_run, running_run, watched_upstreams
from tests.service.helpers import queue_run
from tests.service.release.short_way import REPO, ShortWay

SignIn = Callable[..., TestClient]


def csrf(browser: TestClient) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', browser.get("/").text)
    assert found
    return found[1]


def test_nobody_sees_a_page_without_signing_in(file_store: Store, settings: Settings) -> None:
    browser = dashboard(file_store, settings)
    for path in ("/", "/runs", "/runs/1", "/runs/1/logs/fix", "/watch", "/releases", "/audit", "/live", "/runs/1/live"):
        answer = browser.get(path)
        assert "Sign in" in answer.text, path
        assert answer.url.path == "/ui/sign-in"
    assert browser.post("/runs/1/cancel", data={"csrf": "x"}).url.path == "/ui/sign-in"
    wrong = [browser.post("/sign-in", data={"token": "sluice_guess"}).status_code for _ in range(FAILURES + 1)]
    assert wrong == [401] * FAILURES + [429]


def test_a_run_that_was_killed_shows_each_attempt(file_store: Store, settings: Settings, signed_in: SignIn) -> None:
    run = queue_run(file_store).id
    for _ in range(2):
        file_store.lease("killed", seconds=0, run=run)
    file_store.lease("next", seconds=60, run=run)
    page = signed_in("read").get(f"/runs/{run}").text
    listed = page[page.index("<h2>Attempts</h2>") :]
    assert listed.count("interrupted") == listed.count("ended without a word") == 2
    assert "1, asked for by test" in listed
    assert "3, taken over" in listed


def test_what_was_sent_is_shown_to_who_may_see_all(file_store: Store, signed_in: SignIn) -> None:
    assert "Nothing was sent yet." in signed_in("admin").get("/notifications").text
    file_store.ends_untold("team")
    messages = [Message(event=number, subject=f"run/{number}", ending="failed", body="secret body") for number in range(1, 54)]
    file_store.put_messages("team", messages, upto=53)
    for ended in ({}, {"error": f"It answered 500. {HOSTILE}", "again_in": 3600.0}, {"error": "It answered 404."}):
        taken = file_store.take_delivery(["team"])
        assert taken is not None
        file_store.delivery_ended(taken.id, **ended)  # type: ignore[arg-type]
    browser = signed_in("admin")
    first, second = browser.get("/notifications").text, browser.get("/notifications", params={"before": 4}).text
    assert "Older messages" in first
    assert "Notifications</a>" in first
    assert ("delivered" in second, "given up" in second, "It answered 404." in second, "It is tried again" in second) == (True,) * 4
    assert HOSTILE not in second
    assert "secret body" not in first + second
    for others in (signed_in("operate"), signed_in("admin", namespaces=("ours",))):
        assert others.get("/notifications").status_code == 403
        assert "Notifications</a>" not in others.get("/").text or others.get("/audit").status_code == 403


def test_a_session_is_a_cookie_that_no_script_reads_and_ends_with_signing_out(file_store: Store, signed_in: SignIn) -> None:
    browser = signed_in("read")
    cookie = next(iter(browser.cookies.jar))
    assert (cookie.name, cookie.has_nonstandard_attr("HttpOnly"), cookie.get_nonstandard_attr("SameSite")) == ("sluice_session", True, "lax")
    kept = cookie.value
    assert browser.post("/sign-out", data={"csrf": csrf(browser)}).url.path == "/ui/sign-in"
    browser.cookies.set("sluice_session", kept)
    assert browser.get("/").url.path == "/ui/sign-in"
    assert [event.action for event in file_store.audit_events(limit=1)] == ["signed in"]


def test_after_signing_in_one_is_where_one_wanted_to_be_and_nowhere_else(file_store: Store, settings: Settings, signed_in: SignIn) -> None:
    run = queue_run(file_store).id
    asked = dashboard(file_store, settings).get(f"/runs/{run}")
    assert f'name="next" value="/runs/{run}"' in asked.text
    browser = signed_in("read")
    token = {"token": "x"}
    for away in ("https://example.com", "//example.com", "/\\example.com"):
        assert 'name="next" value="/"' in browser.post("/sign-in", data={**token, "next": away}).text


@pytest.mark.parametrize("make", [running_run, held_run, queue_run])
def test_every_state_of_a_run_has_its_page(file_store: Store, signed_in: SignIn, make: Callable[[Store], object]) -> None:
    make(file_store)
    browser = signed_in("admin")
    for path in ("/", "/runs", "/runs?state=running&repo=upstream", "/runs/1", "/watch", "/releases", "/audit", "/live", "/runs/1/live"):
        answer = browser.get(path)
        assert answer.status_code == 200, (path, answer.text)
        assert HOSTILE not in answer.text
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert not re.search(r'style="|<style|onclick|javascript:', answer.text), "the policy would refuse it"


def test_a_page_shows_gates_plot_repairs_and_log(file_store: Store, settings: Settings, signed_in: SignIn) -> None:
    run = blocked_run(file_store, settings.folder)
    browser = signed_in("read")
    text = browser.get(f"/runs/{run}").text
    assert HOSTILE not in text
    assert "hf_[hidden]" in text
    assert text.count('class="point ') == 7
    for told in ("0.41 ± 0.01 nats", "wanted: at most 0.1", "IQ1_S", "The template never ends a turn.", 'class="added"', 'class="way"'):
        assert told in text, told
    assert "<form" not in text.partition("<main>")[2], "who may only read is shown no buttons"
    assert browser.get(f"/runs/{run}/logs/measure IQ1_S").status_code == 200
    assert browser.get(f"/runs/{run}/logs/..%2F..%2Fsluice").status_code == 404
    assert browser.get("/runs/99").status_code == 404
    assert browser.get("/runs/3000000000").status_code == 422
    assert browser.get("/runs/99999999999999999999").status_code == 422
    assert browser.get("/audit").status_code == 403


def test_a_form_does_what_the_api_does_and_the_trail_tells_who(file_store: Store, settings: Settings, signed_in: SignIn) -> None:
    blocked, held, waiting = blocked_run(file_store, settings.folder), held_run(file_store), queue_run(file_store, "upstream/waiting").id
    browser = signed_in("operate", "publish")
    form = {"csrf": csrf(browser)}

    def send(path: str, **fields: str) -> str:
        answer = browser.post(path, data=form | fields)
        assert answer.status_code == 200, answer.text
        return answer.text

    assert "has its new place" in send(f"/runs/{waiting}/priority", priority="-3")
    assert "is paused" in send(f"/runs/{waiting}/pause")
    send(f"/runs/{waiting}/resume")
    assert "is cancelled" in send(f"/runs/{waiting}/cancel")
    send(f"/runs/{waiting}/retry")
    waived = {"gate": "divergence", "variant": "IQ1_S", "by": "Ada"}
    assert browser.post(f"/runs/{blocked}/waive", data=form | waived).status_code == 409, "a comment is wanted"
    assert "The waiver is on record" in send(f"/runs/{blocked}/waive", comment="Asked for.", **waived)
    assert "Waived by Ada" in browser.get(f"/runs/{blocked}").text
    shown = re.search(r'name="digest" value="([0-9a-f]{64})"', browser.get(f"/runs/{held}").text)
    assert shown
    approved = {"by": "Ada", "comment": "Compared.", "subject": "chat-template"}
    for digest in ("", "0" * 64):
        assert browser.post(f"/runs/{held}/approve", data=form | approved | {"digest": digest}).status_code == 409, "that is not what was shown"
    assert "Your approval" in send(f"/runs/{held}/approve", **approved, digest=shown[1])
    assert file_store.run(held).state == "queued"
    old = queue_run(file_store, "upstream/old", recipe_digest="e" * 64).id
    published = Published(repo="ours/old", revision="1" * 40, url="", files=(), manifest_digest="m", changed=True)
    number = file_store.record_publication(old, published)
    assert "Start a new run" in browser.post(f"/publications/{number}/publish", data=form).text, "an older version kept no recipe"
    assert "queued again" in send("/publications/1/publish")
    assert browser.post("/publications/1/unpublish", data=form | {"by": "Ada", "comment": "Wrong."}).status_code == 502, "there is no Hub here"
    done = [(event.subject, event.action) for event in reversed(file_store.audit_events()) if event.source == "dashboard" and event.details.get("token")]
    assert done == [
        (f"run/{waiting}", "prioritized"),
        (f"run/{waiting}", "paused"),
        (f"run/{waiting}", "resumed"),
        (f"run/{waiting}", "cancelled"),
        (f"run/{waiting}", "retried"),
        (f"run/{blocked}", "waived"),
        (f"run/{held}", "approved"),
        ("publication/1", "republish"),
    ]


def test_what_is_published_is_published_again_rolled_back_and_taken_back(short_way: ShortWay) -> None:
    older = short_way.released()
    short_way.upstream.release()
    newer = short_way.released()
    browser = dashboard(short_way.store, short_way.settings)
    browser.post("/sign-in", data={"token": create_token(short_way.store, "ada", Grant(scopes=("publish",)))})
    form = {"csrf": csrf(browser), "by": "Ada", "comment": "The new weights are broken."}
    first, second = (item["publications"][0]["id"] for item in (older, newer))

    assert "to take the place of the newer release" in browser.post(f"/publications/{first}/rollback", data=form).text
    assert short_way.manifest().upstream.sha == newer["release"]["sha"], "until the run is carried out"
    assert short_way.carried_out(older["run"])["state"] == "done"
    told = short_way.manifest()
    assert (told.upstream.sha, told.rollback and told.rollback.by) == (older["release"]["sha"], "Ada")

    assert "publish what it published before" in browser.post(f"/publications/{second}/publish", data=form).text
    assert short_way.carried_out(newer["run"])["state"] == "superseded", "what was rolled back does not come back by itself"
    short_way.api.delete_file("model-Q4_0.gguf", REPO)
    browser.post(f"/publications/{first}/publish", data=form)
    assert short_way.carried_out(older["run"])["state"] == "done"
    assert "model-Q4_0.gguf" in short_way.api.list_repo_files(REPO), "what somebody deleted is there again"

    answer = browser.post(f"/publications/{first}/unpublish", data=form)
    assert "The repo is private now." in answer.text
    assert "Unpublished by Ada" in answer.text
    assert short_way.api.repo_info(REPO).private
    assert short_way.store.publication(first).unpublished is not None
    done = [(event.subject, event.action) for event in reversed(short_way.store.audit_events()) if event.details.get("token") == "ada"]
    again = [(f"publication/{number}", "republish") for number in (second, first)]
    assert done == [(f"run/{older['run']}", "rollback"), *again, (f"publication/{first}", "unpublished")]


def test_no_other_site_and_no_token_without_the_scope_does_anything(file_store: Store, settings: Settings, signed_in: SignIn) -> None:
    run = queue_run(file_store).id
    browser = signed_in("operate")
    good = {"csrf": csrf(browser)}
    for fields in ({}, {"csrf": ""}, {"csrf": csrf(signed_in("operate"))}):
        assert browser.post(f"/runs/{run}/cancel", data=fields).status_code in {400, 403}
    assert browser.post(f"/runs/{run}/cancel", data=good, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert browser.post(f"/runs/{run}/waive", data=good).status_code == 403
    reader = signed_in("read")
    assert reader.post(f"/runs/{run}/cancel", data={"csrf": csrf(reader)}).status_code == 403
    other = signed_in("admin", namespaces=("theirs",))
    assert other.get(f"/runs/{run}").status_code == 404
    assert other.post(f"/runs/{run}/cancel", data={"csrf": csrf(other)}).status_code == 404
    assert file_store.run(run).state == "queued"
    assert "upstream/model" not in other.get("/").text + other.get("/runs").text
    told = other.get("/audit")
    assert (told.status_code, "is for theirs alone, and this is of the whole service" in told.text) == (403, True)
    assert "/ui/audit" not in other.get("/").text, "nor is it offered"


def test_what_is_watched_has_a_page(file_store: Store, settings: Settings) -> None:
    run = watched_upstreams(file_store)
    app = settings.with_(watch=(Watched(repo="upstream/model", recipe="default"),))

    def told(name: str, namespaces: tuple[str, ...] | None = None) -> list[str]:
        browser = dashboard(file_store, app)
        browser.post("/sign-in", data={"token": create_token(file_store, name, Grant(scopes=("read",), namespaces=namespaces))})
        assert 'href="/ui/watch"' in browser.get("/").text
        text = browser.get("/watch").text
        assert HOSTILE not in text
        return re.findall(r"<li>.*?</li>", text)

    settled, owner, broken, seen, gone, new, listed, refused = told("all")
    for row, *words in (
        (settled, "upstream/model", ">sound<", "recipe default, no cool-down, in the settings"),
        (owner, "Qwen/*", ">sound<", "recipe recipe.yaml, branch stable, cool-down 30 min, added by ada"),
        (broken, "upstream/gone", ">broken<", "/no/recipe.yaml does not exist"),
        (seen, "Qwen/seen", f'/ui/runs/{run}"', ">queued<", "stable was <code>2222222222</code> on "),
        (gone, "upstream/gone", ">not queued<", "There is no such repo.", "not seen yet"),
        (new, "upstream/model", "not seen yet"),
        (listed, "qwen", "12 repos"),
        (refused, "upstream", ">not listed<", "There is no account of that name."),
    ):
        for word in words:
            assert word in row, word
    assert [row for row in told("ours", ("ours",)) if "Qwen/seen" in row] == told("ours-too", ("ours",)), "of what its runs are of, and nothing else"
    assert told("theirs", ("theirs",)) == []


def test_static_files_are_ours_alone(file_store: Store, settings: Settings) -> None:
    browser = dashboard(file_store, settings)
    assert browser.get("/static/dashboard.css").headers["Content-Type"].startswith("text/css")
    assert browser.get("/static/dashboard.js").headers["Content-Type"].startswith("text/javascript")
    for name in ("..%2Fpages.py", "nothing.css"):
        assert browser.get(f"/static/{name}").status_code == 404
    for file in (Path(__file__).parents[3] / "service" / "dashboard").rglob("*.*"):
        if file.suffix in {".css", ".js", ".j2"}:
            assert not re.search(r"https?://(?!www\.w3\.org)", file.read_text(encoding="utf-8")), file


def test_no_button_waits_for_the_hub_when_too_many_requests_do(file_store: Store, settings: Settings, signed_in: SignIn) -> None:
    blocked_run(file_store, settings.folder)
    browser = signed_in("publish")
    form = {"csrf": csrf(browser), "by": "Ada", "comment": "Wrong."}
    with ExitStack() as others:
        for _ in range(outward.AT_ONCE):
            others.enter_context(outward.asking_the_hub())
        for deed in ("rollback", "unpublish"):
            assert browser.post(f"/publications/1/{deed}", data=form).status_code == 503
    assert browser.post("/publications/1/rollback", data=form).status_code == 502


@pytest.mark.parametrize("given", ["", "two", "²", "1" * 5000, "--1"])
def test_a_priority_that_is_no_number_is_told(file_store: Store, settings: Settings, signed_in: SignIn, given: str) -> None:
    run = queue_run(file_store).id
    browser = signed_in("operate")
    assert browser.post(f"/runs/{run}/priority", data={"csrf": csrf(browser), "priority": given}).status_code == 422


def test_a_page_that_is_live_ends_with_its_session(file_store: Store, settings: Settings, signed_in: SignIn, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = signed_in("read")
    browser.app.state.ending = lambda: False
    monkeypatch.setattr(streams, "ASKED_SECONDS", 0.1)
    (token,) = file_store.tokens()
    later = threading.Timer(1.5, file_store.revoke_token, [token.name])
    later.start()
    assert "event: fragment" in browser.get("/live").text
    later.join()
