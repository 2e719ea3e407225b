"""Records of a made-up release, plans to publish it, and a Hub whose client's requests are watched."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import HfApi, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from config.facts import Facts
from config.words import Kind, Measurement, Outcome, Patch, Release, Verdict
from hub.server import running
from hub.tokens import create_token
from publishers import manifest as manifests
from publishers.card import Card, Method, Row
from publishers.hub import Plan, PublishFile, inventory
from service.release import kinds

REPO = "acme/tiny-chat-GGUF"
RELEASE = Release(repo="upstream/tiny-chat", sha="a" * 40)
PATCH = Patch(
    fix="eos-ends-turn", version=1, file="generation_config.json", key="eos_token_id", reason="Answers must end with the turn.", before=5, after=4
)  # fmt: skip
MEASURED = {
    found.name: found
    for found in (
        Measurement(name="kld.mean", value=0.00767, unit="nats", stderr=0.0002, n=23000),
        Measurement(name="kld.p999", value=0.21, unit="nats"),
        Measurement(name="same_top", value=0.981, unit="share", stderr=0.001),
        Measurement(name="mmlu.accuracy", value=0.9975, unit="share", stderr=0.0018, n=800),
        Measurement(name="flips", value=2, unit="count", n=800),
        Measurement(name="efficiency", value=31.25, unit="points/GB"),
    )
}
PASSED = Verdict(tag="Q4_K_M", outcome=Outcome.PASSED, reasons=(), results=())
FAILED = Verdict(tag="IQ1_S", outcome=Outcome.FAILED, reasons=("mean KLD 0.47200 nats is above the bound of 0.15",), results=())

MakeCard = Callable[..., Card]
MakePlan = Callable[..., Plan]


@pytest.fixture
def make_card() -> MakeCard:
    """A GGUF card with one published and one blocked variant; any field can be replaced."""

    def make(**changes: Any) -> Card:
        row = Row(tag="Q4_K_M", file="tiny-chat-Q4_K_M.gguf", bytes=2_330_000, bpw=5.02, measurements=MEASURED, verdict=PASSED)
        blocked = Row(tag="IQ1_S", file="tiny-chat-IQ1_S.gguf", bytes=1_020_000, bpw=2.1, measurements={}, verdict=FAILED)
        method = Method(
            texts=("evaluation.jsonl",), tokens=11_264, windows=44, context=512, questions=800, shots=5, prompts=4,
            calibration=("calibration.jsonl",), calibration_tokens=20_000,
        )  # fmt: skip
        fields: dict[str, Any] = {
            "repo": REPO, "namespace": "acme", "release": RELEASE,
            "facts": Facts(license="apache-2.0", languages=("en",), pipeline_tag="text-generation"),
            "rows": (row,), "blocked": (blocked,), "patches": (PATCH,), "method": method, "tools": {"transformers": "5.23.0", "llama.cpp": "b8200"},
            "sampling": {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0, "repetition_penalty": 1.0},
            "recipe_name": "demo", "recipe_digest": "b" * 64,
        }  # fmt: skip
        form = kinds.every()[changes.pop("kind", Kind.GGUF)].form
        return Card(**({"form": form} | fields | changes))

    return make


@pytest.fixture
def make_plan() -> MakePlan:
    """A plan for a small GGUF repo; `content` replaces the variant's bytes."""

    def make(*, repo: str = REPO, private: bool = False, content: bytes = b"GGUF" + bytes(range(256)) * 64, release: Release = RELEASE) -> Plan:
        weights = PublishFile.from_bytes("tiny-chat-Q4_K_M.gguf", content)
        files = (
            weights,
            PublishFile.from_bytes("README.md", b"---\nlicense: apache-2.0\n---\n# tiny-chat\n"),
            PublishFile.from_bytes("params", b'{"stop": []}\n'),
        )
        entry = manifests.variant_entry(PASSED, MEASURED, files=inventory([weights]))
        manifest = manifests.build(
            release=release, recipe_name="demo", recipe_digest="b" * 64, tools={"llama.cpp": "b8200"},
            patches=(PATCH,), variants=(entry,), files=inventory(files),
        )  # fmt: skip
        return Plan(repo=repo, private=private, files=files, manifest=manifest, message="Publish tiny-chat")

    return make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def endpoint(root: Path) -> Iterator[str]:
    with running(root) as url:
        yield url


@pytest.fixture
def api(root: Path, endpoint: str) -> HfApi:
    return HfApi(endpoint=endpoint, token=create_token(root, user="sluice", orgs=["acme"]))


def commits(api: HfApi) -> list[str]:
    """Of the repo that plans are for, newest first."""
    return [commit.commit_id for commit in api.list_repo_commits(REPO)]


@dataclass
class Wire:
    """What the client sent, and what to do when it sends something."""

    sent: list[str] = field(default_factory=list)
    on: Callable[[httpx2.Request], None] = lambda _request: None

    def __call__(self, request: httpx2.Request) -> None:
        self.sent.append(f"{request.method} {request.url.path}")
        self.on(request)

    def count(self, method: str, part: str) -> int:
        return sum(line.startswith(method) and part in line for line in self.sent)


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Records every request of the real client."""
    recorder = Wire()

    def client() -> httpx2.Client:
        made = default_client_factory()
        made.event_hooks = {"request": [*made.event_hooks["request"], recorder], "response": made.event_hooks["response"]}
        return made

    set_client_factory(client)
    yield recorder
    set_client_factory(default_client_factory)


def once(wire: Wire, part: str, act: Callable[[], object]) -> None:
    """Run `act` right before the client sends its next POST to a path with `part`."""

    def on(request: httpx2.Request) -> None:
        if request.method == "POST" and part in request.url.path:
            wire.on = lambda _request: None
            act()

    wire.on = on
