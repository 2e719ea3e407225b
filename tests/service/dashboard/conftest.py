"""The dashboard on a store with a run in each state, and a person who signs in."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from bench.short_way import short
from config.data import as_written, referring
from config.progress import Progress
from config.settings import Settings, Watched
from config.words import GateResult, Hold, Kind, Measurement, Outcome, Patch, Variant, Verdict
from config.written import read_recipe
from service.api import create_app
from service.api.tokens import create_token
from service.dashboard import add_dashboard
from service.store import Foretold, KeptRecipe, LookKey, Published, Scope, Store, VariantRecord
from service.store.access import Grant
from tests.service.conftest import Upstream
from tests.service.helpers import queue_run
from tests.service.release.short_way import ShortWay

RECIPE = str(Path(__file__).parents[3] / "demo" / "recipe.yaml")
HOSTILE = "<script>alert('x')</script>"


def dashboard(store: Store, settings: Settings) -> TestClient:
    """A browser without a script, in front of the dashboard."""
    app = create_app(store, settings)
    add_dashboard(app, store, settings)
    app.state.ending = lambda: True  # live parts are sent once
    return TestClient(app, base_url="http://testserver/ui", raise_server_exceptions=False, follow_redirects=True)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", hub_endpoint="http://127.0.0.1:1", namespace="ours")


@pytest.fixture
def signed_in(file_store: Store, settings: Settings) -> Callable[..., TestClient]:
    """A browser whose person signed in with a token of these scopes."""

    def sign_in(*scopes: Scope, namespaces: tuple[str, ...] | None = None) -> TestClient:
        token = create_token(file_store, f"person-{len(file_store.tokens())}", Grant(scopes=scopes, namespaces=namespaces))
        browser = dashboard(file_store, settings)
        assert browser.post("/sign-in", data={"token": token}).status_code == 200
        return browser

    return sign_in


@pytest.fixture
def short_way(upstream: Upstream, file_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShortWay:
    """A service that publishes to a Hub within a moment, and watches nothing by itself."""
    short(monkeypatch, tmp_path / "built")
    return ShortWay(upstream=upstream, store=file_store)


def gate(outcome: Outcome, value: float) -> GateResult:
    return GateResult(
        gate="divergence",
        measure="kld.mean",
        value=value,
        stderr=value / 40,
        condition="at most 0.1",
        limit=0.1,
        outcome=outcome,
        reason=f"{value} is {'above' if outcome is Outcome.FAILED else 'not above'} 0.1. {HOSTILE}",
    )


def variant(tag: str, size: int, mean: float, outcome: Outcome) -> VariantRecord:
    kind = Kind.BNB_4BIT if "bnb" in tag else Kind.GGUF
    measured = [Measurement(name="kld.mean", value=mean, unit="nats", stderr=mean / 40, n=65_536)]
    if tag.startswith("UD-"):
        measured.append(Measurement(name="plan.predicted", value=mean * 1.1, unit="nats", stderr=mean / 10))
    result = gate(outcome, mean)
    verdict = Verdict(tag=tag, outcome=outcome, reasons=(result.reason,) if outcome is Outcome.FAILED else (), results=(result,))
    return VariantRecord(variant=Variant(tag=tag, kind=kind), file=f"m-{tag}.gguf", bytes=size, bpw=size / 4e8, measurements=tuple(measured), verdict=verdict)


VARIANTS = (
    variant("IQ1_S", 420_000_000, 0.41, Outcome.FAILED),
    variant("UD-Q2_K_XL", 690_000_000, 0.062, Outcome.PASSED),
    variant("Q3_K_M", 800_000_000, 0.028, Outcome.PASSED),
    variant("UD-Q4_K_XL", 1_010_000_000, 0.0071, Outcome.PASSED),
    variant("Q4_K_M", 1_000_000_000, 0.0093, Outcome.PASSED),
    variant("Q8_0", 1_750_000_000, 0.00041, Outcome.PASSED),
    variant("dynamic-bnb-4bit", 1_150_000_000, 0.019, Outcome.PASSED),
)
TEMPLATE = "{%- for message in messages %}\n<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{%- endfor %}\n"
PATCHES = (
    Patch(
        fix="chat-template",
        version=1,
        file="tokenizer_config.json",
        key="chat_template",
        reason="The template never ends a turn.",
        before=TEMPLATE.replace("<|im_end|>", ""),
        after=TEMPLATE,
    ),
    Patch(fix="eos", version=1, file="generation_config.json", key="eos_token_id", reason=f"It never stops. {HOSTILE}", before=2, after=[2, 7]),
)


def keep_recipe(store: Store, digest: str = "d" * 64) -> None:
    """Keep the recipe of the demo, as it was when runs were queued."""
    content = read_recipe(RECIPE).parsed(data=False, locate=as_written).model_dump(mode="json")
    store.keep_recipe(KeptRecipe(digest=digest, content=referring(content), sources=()))


def blocked_run(store: Store, home: Path) -> int:
    """A run with everything that a page shows, of which one variant was blocked, and whose recipe's file is gone."""
    keep_recipe(store)
    run = queue_run(store, "upstream/blocked", recipe="/gone.yaml").id
    store.lease("worker", seconds=600)
    for name in ("snapshot", "fix", "convert", "measure UD-Q4_K_XL"):
        stage = store.stage_started(run, name, "k" * 64, stage=name, estimate=12.0)
        store.stage_finished(stage, state="done", seconds=11.0)
    failed = store.stage_started(run, "measure IQ1_S", "k" * 64, stage="measure IQ1_S")
    store.stage_finished(failed, state="failed", seconds=3.0, error="out of memory")
    log = home / "logs" / f"run-{run}" / "measure-IQ1_S.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"loading\n{HOSTILE}\ntoken hf_{'a' * 34}\n", encoding="utf-8")
    store.record_patches(run, PATCHES)
    for position, item in enumerate(VARIANTS):
        store.record_variant(run, item, position=position)
    published = Published(
        repo="ours/blocked-GGUF", revision="1" * 40, url="http://hub/ours/blocked-GGUF", files=("README.md",), manifest_digest="m", changed=True
    )
    store.record_publication(run, published)
    store.finish(run, state="done")
    return run


def running_run(store: Store) -> int:
    """A run at work, with progress and a forecast."""
    run = queue_run(store, "upstream/running", recipe=RECIPE).id
    store.lease("worker", seconds=600, run=run)
    store.record_forecast(run, {name: Foretold(like=name, reckoned=60.0) for name in ("snapshot", "fix", "convert")})
    store.stage_finished(store.stage_started(run, "snapshot", "k", stage="snapshot"), state="done", seconds=2.0)
    stage = store.stage_started(run, "convert", "k", stage="convert", estimate=60.0)
    store.stage_progressed(stage, Progress(done=30, total=120, unit="tensors"))
    return run


def held_run(store: Store) -> int:
    """A run that waits for a person."""
    run = queue_run(store, "upstream/held", recipe=RECIPE).id
    store.lease("worker", seconds=600, run=run)
    store.record_holds(run, [Hold(subject="chat-template", reason=f"No family vouches for it. {HOSTILE}", patches=PATCHES[:1])])
    store.finish(run, state="held")
    return run


def watched_upstreams(store: Store) -> int:
    """What an owner has, and a repo that is gone, watched over the network; the number of a run of one of them."""
    for entry in (
        Watched(owners=("Qwen",), revision="stable", cool_down_minutes=30, recipe=RECIPE),
        Watched(repo="upstream/gone", recipe="/no/recipe.yaml"),
    ):
        store.add_watch(entry, by="ada")
    store.record_listings({"qwen": 12, "upstream": "There is no account of that name."})
    store.record_look(LookKey(repo="Qwen/seen", revision="stable", asked="a" * 64), "2" * 40)
    store.put_hints({"upstream/gone": "poll"})
    (hint,) = (item for item in store.hints() if item.repo == "upstream/gone")
    store.defer_hint(hint, error=f"There is no such repo. {HOSTILE}", seconds=3600)
    return queue_run(store, "Qwen/seen", recipe=RECIPE).id
