"""The main ways through the dashboard in Chromium, on wide and narrow screens."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from config.progress import Progress
from config.settings import Settings
from service.api.tokens import create_token
from service.daemon.serve import front
from service.store import Store
from service.store.access import Grant
from tests.service.dashboard.conftest import blocked_run, held_run, running_run, watched_upstreams
from tests.service.helpers import queue_run
from tests.service.release.short_way import REPO, ShortWay

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PICTURES = os.environ.get("SLUICE_TEST_PICTURES")  # a folder for pictures of the pages, for who wants to look at them

REFUSED = "the server responded with a status of 4"  # which the browser says of pages that tell what is wrong
PATIENCE = 120_000  # milliseconds: other tests may be at work

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: install the package `chromium`")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose script and style find nothing to complain of."""
    opened = browser.new_page(viewport={"width": 760, "height": 900})
    opened.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    complaints: list[str] = []
    opened.on(
        "console",
        lambda message: (
            complaints.append(message.text)
            if message.type in {"error", "warning"} and not (REFUSED in message.text and message.location["url"] == opened.url)
            else None
        ),
    )
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    opened.close()
    assert complaints == []


@pytest.fixture
def url(file_store: Store, settings: Settings) -> Iterator[str]:
    with front(file_store, settings.with_(api_port=0)) as served:
        yield served


def sign_in(page: Page, url: str, token: str) -> None:
    page.goto(url)
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{url}/ui/")


def look(page: Page, name: str) -> None:
    """Nothing is wider than the screen, be it a wide or a narrow one, light is light and dark is dark; and pictures of all four, for who wants them."""
    for width in (1200, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} is wider than {width}"
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert (bright(page, "backgroundColor") > 200, bright(page, "color") < 80) == (scheme == "light",) * 2, f"{name} is not {scheme}"
            if PICTURES:
                page.screenshot(path=Path(PICTURES) / f"{name}-{width}-{scheme}.png", full_page=True)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 760, "height": 900})


def bright(page: Page, what: str) -> float:
    """How bright a colour of the page is, 0 to 255."""
    colour = page.evaluate(f"getComputedStyle(document.body).{what}")
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


def test_a_person_watches_waives_approves_and_cancels(page: Page, url: str, file_store: Store, settings: Settings) -> None:
    blocked, held, running = blocked_run(file_store, settings.folder), held_run(file_store), running_run(file_store)
    page.goto(url)
    look(page, "sign-in")
    sign_in(page, url, create_token(file_store, "ada", Grant(scopes=("operate", "publish"))))
    expect(page.get_by_role("heading", name="Needs you")).to_be_visible()
    look(page, "overview")

    watched_upstreams(file_store)
    page.get_by_role("link", name="Watched").click()
    expect(page.get_by_text("There is no such repo.")).to_be_visible()
    look(page, "watched")
    page.get_by_role("link", name="Now").click()

    page.get_by_role("link", name="upstream/running").click()
    expect(page.get_by_text("30 of 120 tensors")).to_be_visible()
    stage = next(item.id for item in file_store.stages(running) if item.name == "convert")
    file_store.stage_progressed(stage, Progress(done=90, total=120, unit="tensors"))
    expect(page.get_by_text("90 of 120 tensors")).to_be_visible()  # without loading the page again
    look(page, "running")
    page.get_by_text("Cancel…").click()
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("cancelled")
    assert file_store.wanted(running) == "cancel"

    page.goto(f"{url}/ui/runs/{blocked}")
    look(page, "blocked")
    page.get_by_text("Waive…").first.click()
    page.get_by_role("button", name="Waive divergence for IQ1_S").click()  # without a comment: the browser asks for it
    assert file_store.waivers(blocked) == ()
    page.get_by_label("Why it may be set aside").fill("Asked for by its users.")
    page.get_by_role("button", name="Waive divergence for IQ1_S").click()
    expect(page.get_by_role("status")).to_contain_text("waiver is on record")
    assert [item.waiver.by for item in file_store.waivers(blocked)] == ["ada"]
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_role("status")).to_contain_text("queued again")

    page.goto(f"{url}/ui/runs/{held}")
    look(page, "held")
    page.get_by_label("Why it may be done").fill("I compared it with the maker's own.")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("status")).to_contain_text("approval is on record")
    assert file_store.run(held).state == "queued"

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_every_list_and_what_goes_wrong_fits_the_screen(page: Page, url: str, file_store: Store, settings: Settings) -> None:
    blocked_run(file_store, settings.folder), held_run(file_store), running_run(file_store)
    watched_upstreams(file_store)
    for number in range(12):
        name = f"some-organization-with-a-name/{'a-model-whose-name-is-as-long-as-the-hub-lets-it-be-' * 2}{number}"
        run = queue_run(file_store, name, recipe="/a/long/path/to/a/recipe/of/somebody/which/is/not/short.yaml").id
        file_store.cancel(
            run, source="api", details={"token": "a-token-with-quite-a-long-name-that-has-no-place-to-break", "comment": "It is not needed. " * 20}
        )
    sign_in(page, url, create_token(file_store, "ada"))
    for path in ("runs", "releases", "audit", "watch", "notifications"):
        page.goto(f"{url}/ui/{path}")
        expect(page.get_by_role("main")).to_be_visible()
        look(page, path)
    for path, status in (("runs/999", 404), ("nothing", 404), ("runs/x", 422)):
        answer = page.goto(f"{url}/ui/{path}")
        assert answer is not None
        assert answer.status == status
        look(page, f"fault-{path.replace('/', '-')}")


def test_a_log_grows_as_it_is_written(page: Page, url: str, file_store: Store, settings: Settings) -> None:
    run = running_run(file_store)
    log = settings.folder / "logs" / f"run-{run}" / "convert.log"
    log.parent.mkdir(parents=True)
    log.write_text("first line\n", encoding="utf-8")
    sign_in(page, url, create_token(file_store, "ada", Grant(scopes=("read",))))
    page.goto(f"{url}/ui/runs/{run}/logs/convert")
    expect(page.get_by_text("first line")).to_be_visible()
    with log.open("a", encoding="utf-8") as written:
        written.write("a line that came later, token hf_" + "a" * 34 + "\n")
    expect(page.get_by_text("came later, token hf_[hidden]")).to_be_visible()
    look(page, "log")


def test_a_person_publishes_again_rolls_back_and_unpublishes(page: Page, short_way: ShortWay) -> None:
    older = short_way.released()
    short_way.upstream.release()
    newer = short_way.released()
    first, second = (item["publications"][0]["id"] for item in (older, newer))
    store, settings = short_way.store, short_way.settings.with_(api_port=0, watch=())
    with front(store, settings) as url:
        sign_in(page, url, create_token(store, "ada", Grant(scopes=("publish",))))
        page.goto(f"{url}/ui/runs/{older['run']}")
        page.get_by_text("Roll back…").click()
        page.get_by_role("button", name="Roll back to this release").click()  # without a comment: the browser asks for it
        assert store.run(older["run"]).state == "done"
        page.get_by_label("Why; it stands in the manifest").fill("The new weights are broken.")
        look(page, "rolling-back")
        page.get_by_role("button", name="Roll back to this release").click()
        expect(page.get_by_role("status")).to_contain_text("to take the place of the newer release")
        assert short_way.carried_out(older["run"])["state"] == "done"
        told = short_way.manifest()
        assert (told.upstream.sha, told.rollback and told.rollback.comment) == (older["release"]["sha"], "The new weights are broken.")
        expect(page.get_by_role("button", name="Publish again")).to_be_visible()  # the page has loaded itself again

        page.goto(f"{url}/ui/runs/{newer['run']}")
        page.get_by_role("button", name="Publish again").click()
        expect(page.get_by_role("status")).to_contain_text("publish what it published before")
        assert store.run(newer["run"]).trigger == "republish"
        assert short_way.carried_out(newer["run"])["state"] == "superseded", "what was rolled back does not come back by itself"
        assert short_way.manifest().upstream.sha == older["release"]["sha"]
        expect(page.get_by_role("button", name="Publish again")).to_be_visible()

        page.goto(f"{url}/ui/runs/{older['run']}")
        look(page, "published")
        page.get_by_text("Unpublish…").click()
        page.get_by_label("Reason").fill("Its licence changed.")
        page.get_by_role("button", name="Make it private").click()
        expect(page.get_by_role("status")).to_contain_text("The repo is private now.")
        expect(page.get_by_text("Unpublished by ada")).to_be_visible()
        look(page, "unpublished")
    assert short_way.api.repo_info(REPO).private
    marks = [store.publication(number).unpublished for number in (first, second)]
    assert [mark and mark.reason for mark in marks] == ["Its licence changed."] * 2, "it is the repo that is taken back"


def test_nothing_runs_in_a_page_but_our_own_script(browser: Browser, url: str) -> None:
    bad = """<img src="nothing" onerror="window.ran = 'attribute'"><p id="dyed" style="color: red">.</p><script>window.ran = 'inline'</script>
        <script src="data:text/javascript,window.ran='elsewhere'"></script><style>body { color: red }</style>"""
    page, told = browser.new_page(), list[str]()
    page.on("console", lambda message: told.append(message.text))
    page.route("**/sign-in", lambda route: route.fulfill(response=(got := route.fetch()), body=got.text().replace("</main>", f"{bad}</main>")))
    page.goto(f"{url}/ui/sign-in")
    assert page.evaluate("window.ran") is None
    assert page.evaluate("getComputedStyle(document.querySelector('#dyed')).color") == page.evaluate("getComputedStyle(document.body).color")
    assert bright(page, "color") < 80, "the style was refused"
    refused = [line for line in told if "Content Security Policy" in line or "Content-Security-Policy" in line]
    assert len(refused) == 5, told
    page.close()
