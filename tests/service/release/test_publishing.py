"""What a card says of Ollama's template: how far it is proved, and what Ollama would have without it; of what the model was trained for, and of its terms."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from builders.snapshot import described
from config.facts import vetted
from config.recipe import Recipe
from config.settings import Settings
from config.words import Release
from service.execution.kept import StageStore
from service.release import terms
from service.release.job import Job
from service.release.publishing import proof, trained
from service.release.work import Work
from service.store import Store
from tests.service.helpers import SHA, at_work, output, queue_run

WITHOUT = {"utils": "0.0.18", "same": 2, "of": 11, "stops": []}
MADE = "the Hub's ollama-utils 0.0.18 makes one that renders 2 of 11 plain conversations so"
PROVED = {"plain conversations": {"same": 11, "of": 11}, "tools": {"same": 3, "of": 4}, "thinking": {"same": 0, "of": 0}}


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (
            {"template": "{{ .Tools }}", "go": "go1.27.3", "proved": PROVED, "remark": "", "without": WITHOUT},
            f"rendered by Go's text/template (go1.27.3) as by the model's own template: plain conversations 11 of 11, tools 3 of 4; without that file {MADE}",
        ),
        (
            {"template": "x", "go": "go1.27.3", "proved": PROVED, "remark": "", "without": None},
            (
                "rendered by Go's text/template (go1.27.3) as by the model's own template: plain conversations 11 of 11, tools 3 of 4; "
                "it offers no tools, so that Ollama refuses requests with them"
            ),
        ),
        (
            {"template": None, "go": "go1.27.3", "proved": {}, "remark": "none renders as the model's own does", "without": WITHOUT},
            f"none renders as the model's own does; {MADE}",
        ),
        (
            {"template": None, "go": "go1.27.3", "proved": {}, "remark": "", "without": WITHOUT | {"stops": ["###", "<think>"]}},
            f'{MADE}, with stop strings that answers may hold: "###", "<think>"',
        ),
        ({"template": "x", "go": None, "proved": {}, "remark": "not verified by Go", "without": None}, "not verified by Go"),
        ({"template": None, "go": None, "proved": {}, "remark": "", "without": None}, ""),
    ],
)
def test_it_is_told_how_far_a_template_is_proved_and_what_ollama_would_have_without_it(chosen: dict[str, Any], said: str) -> None:
    assert proof(chosen) == said


MakeWork = Callable[..., Work]


@pytest.fixture
def work(tmp_path: Path, file_store: Store, recipe: Callable[..., Recipe]) -> MakeWork:
    """A run whose release is there: files by name with their content, and what its card says."""

    def made(files: Mapping[str, str], *, repo: str = "upstream/model", hub: str = "https://hub.example.org", **said: str) -> Work:
        home, there = tmp_path / "home", tmp_path / "snapshot" / "files"
        there.mkdir(parents=True)
        for name, text in files.items():
            (there / name).write_text(text, encoding="utf-8")
        settings = Settings(home=home, hub_endpoint=hub)
        job = Job(store=file_store, run=queue_run(file_store), recipe=recipe(), settings=settings, stages=StageStore(home))
        upstream = described(Release(repo=repo, sha=SHA), said)
        return at_work(job, {"upstream": upstream, "snapshot": output(there.parent, {})})

    return made


@pytest.mark.parametrize(
    "text", ["We did not use quantization-aware training; for low memory use Q8_0.", "Unlike QAT models, ours is an ordinary one. GGUF: Q4_K_M"]
)
def test_the_text_of_an_upstream_s_card_makes_no_claim_of_ours(work: MakeWork, text: str) -> None:
    assert trained(work({"README.md": text})) is None


@pytest.mark.parametrize(
    ("stated", "repo", "link"),
    [
        ("./LICENSE", "upstream/model", "LICENSE"),  # it lies beside the card
        ("AGREEMENT.md", "upstream/model", f"https://hub.example.org/upstream/model/blob/{SHA}/AGREEMENT.md"),
        ("AGREEMENT.md", "model", None),
        ("http://example.org/a?b=c#d", "model", "http://example.org/a?b=c#d"),
    ],
)
def test_a_link_to_terms_leads_to_what_is_passed_on_or_to_the_upstream_s(work: MakeWork, stated: str, repo: str, link: str | None) -> None:
    given = work({"LICENSE": "Be kind."}, repo=repo, license="other", license_name="Tiny (2025)", license_link=stated)
    assert vetted(terms.facts(given)).license_link == link
    assert [file.path for file in terms.files(given)] == ["LICENSE"]
