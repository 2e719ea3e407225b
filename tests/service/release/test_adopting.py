"""What an adoption proposes, of repos on a real Hub."""

from pathlib import Path
from shutil import copytree

import pytest
from huggingface_hub import HfApi

from config.errors import ConfigurationError, HubError, PublishConflict
from config.settings import Watched
from config.words import Kind, Variant
from hub.tokens import create_token
from publishers.target import read_head
from service.release import adopting
from service.release.adopting import Proposal, Wish
from service.release.paths import may_publish
from service.store import Store
from tests.service.conftest import DEMO, Upstream

REPO = "ours/model-GGUF"
CARD = b"---\nlicense: mit\nbase_model: upstream/model\n---\n# Quants by another tool\n"


@pytest.fixture
def ours(upstream: Upstream) -> HfApi:
    return HfApi(endpoint=upstream.settings.hub_endpoint, token=upstream.settings.token)


@pytest.fixture
def filled(ours: HfApi) -> HfApi:
    """Who owns a repo that another tool filled."""
    ours.create_repo(REPO)
    for path, content in {"README.md": CARD, "model-Q4_0.gguf": b"GGUF 4", "model.q4_0.gguf": b"GGUF four", "model-Q8_0.gguf": b"GGUF 8"}.items():
        ours.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id=REPO)
    return ours


def propose(store: Store, on: Upstream, api: HfApi, **wish: object) -> Proposal:
    return adopting.propose(store, on.settings, api, Wish(**{"repo": REPO, **wish}))


def test_each_file_is_told_with_its_fate_and_what_may_be_mistaken(file_store: Store, upstream: Upstream, filled: HfApi) -> None:
    found = propose(file_store, upstream, filled)
    assert (found.origin, found.source.found) == ("upstream/model", "the watch list")
    assert {item.path: item.fate for item in found.files} == {
        "README.md": "replaced",
        "model-Q4_0.gguf": "replaced",
        "model-Q8_0.gguf": "kept",
        "model.q4_0.gguf": "kept",
    }
    readme, mistaken = found.remarks
    assert f"stays in the repo's history, at commit {filled.repo_info(REPO).sha}" in readme
    assert mistaken.startswith("model.q4_0.gguf stays, and llama.cpp and Ollama may take it for our Q4_0")
    assert {item.path: item.fate for item in propose(file_store, upstream, filled, remove=("*q4_0*", "model-Q8*")).files} == {
        "README.md": "replaced",
        "model-Q4_0.gguf": "replaced",
        "model-Q8_0.gguf": "removed",
        "model.q4_0.gguf": "removed",
    }


def test_whose_publication_comes_is_told_or_read_from_the_card(file_store: Store, upstream: Upstream, filled: HfApi) -> None:
    alone = upstream.settings.with_(watch=())
    recipe = upstream.settings.watch[0].recipe
    by_card = adopting.propose(file_store, alone, filled, Wish(repo=REPO, recipe=recipe))
    assert (by_card.origin, by_card.source.found) == ("upstream/model", f"`base_model` in the card of {REPO}")
    filled.upload_file(path_or_fileobj=b"---\nlicense: mit\n---\n", path_in_repo="README.md", repo_id=REPO)
    with pytest.raises(ConfigurationError, match="Name it by --upstream"):
        adopting.propose(file_store, alone, filled, Wish(repo=REPO, recipe=recipe))
    named = adopting.propose(file_store, alone, filled, Wish(repo=REPO, upstream="upstream/model", recipe=recipe))
    assert named.source.found == "--upstream"
    broken = upstream.settings.with_(watch=(Watched(repo="upstream/model", recipe="/nowhere.yaml"), *upstream.settings.watch))
    assert adopting.propose(file_store, broken, filled, Wish(repo=REPO)).source.recipe == recipe


def test_a_repo_is_adopted_for_what_a_folder_publishes(file_store: Store, upstream: Upstream, filled: HfApi, tmp_path: Path) -> None:
    there = copytree(DEMO / "model", tmp_path / "my tune")
    recipe = upstream.settings.watch[0].recipe
    with pytest.raises(ConfigurationError, match=r"publishes local folder my-tune in ours/my-tune, ours/my-tune-GGUF, not in .* another name by --name"):
        propose(file_store, upstream, filled, upstream=str(there), recipe=recipe)
    found = propose(file_store, upstream, filled, upstream=str(there), name="model", recipe=recipe)
    assert (found.origin, found.source.found) == ("local folder model", "--upstream")
    assert {item.path for item in found.files if item.fate == "replaced"} == {"README.md", "model-Q4_0.gguf"}
    assert adopting.adopt(file_store, filled, found) is not None
    assert read_head(filled, REPO, previously=None).upstream == "local folder model"
    with pytest.raises(PublishConflict, match="was adopted for local folder model, and upstream/model would take its place"):
        propose(file_store, upstream, filled)


def test_the_address_of_a_page_names_an_upstream(file_store: Store, upstream: Upstream, filled: HfApi) -> None:
    found = propose(file_store, upstream, filled, upstream=f"{upstream.settings.hub_endpoint}/upstream/model")
    assert (found.origin, found.source.found) == ("upstream/model", "the watch list")


def test_an_adoption_is_written_once_and_audited(file_store: Store, upstream: Upstream, filled: HfApi) -> None:
    shown = propose(file_store, upstream, filled)
    assert not shown.agreed
    commit = adopting.adopt(file_store, filled, shown)
    assert commit == filled.repo_info(REPO).sha
    (event,) = file_store.audit_events(subject=f"repo/{REPO}")
    assert (event.action, event.details["by"], event.details["shown"], event.details["commit"]) == ("adopted", "ours", shown.head.commit, commit)
    assert event.details["kept"] == ["model-Q8_0.gguf", "model.q4_0.gguf"]
    assert propose(file_store, upstream, filled).agreed
    assert adopting.adopt(file_store, filled, shown) == commit, "who agrees to the same at once has done so"
    shown = propose(file_store, upstream, filled, remove=("model-Q8*",))
    filled.upload_file(path_or_fileobj=b"GGUF, better", path_in_repo="model-Q4_0.gguf", repo_id=REPO)
    assert adopting.adopt(file_store, filled, shown) is None, "what was shown is not what is there"
    assert not propose(file_store, upstream, filled).agreed


def test_what_is_empty_or_a_stub_needs_no_adoption(file_store: Store, upstream: Upstream, ours: HfApi) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        propose(file_store, upstream, ours)
    ours.create_repo(REPO)
    assert propose(file_store, upstream, ours).empty
    ours.upload_file(path_or_fileobj=b"---\nlicense: mit\n---\n", path_in_repo="README.md", repo_id=REPO)
    assert propose(file_store, upstream, ours).empty


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"repo": "https://hub/ours/model"}, "is not the name of a repo"),
        ({"repo": "upstream/model", "upstream": "upstream/model"}, "is the upstream itself"),
        ({"repo": "ours/other-GGUF", "upstream": "upstream/model"}, "publishes upstream/model in ours/model, ours/model-GGUF, not in ours/other-GGUF"),
        ({"remove": ("*.bin",)}, "matches no file"),
        ({"name": "model"}, "no folder is named. Give it by --upstream"),
        ({"upstream": "upstream/model", "name": "model"}, "--name is for folders"),
        ({"upstream": "./nowhere/at/all"}, "is neither the name of a repo"),
    ],
)
def test_what_cannot_be_meant(file_store: Store, upstream: Upstream, filled: HfApi, wish: dict[str, object], words: str) -> None:
    filled.create_repo("ours/other-GGUF")
    recipe = None if wish.get("repo", REPO) == REPO else upstream.settings.watch[0].recipe
    with pytest.raises(ConfigurationError, match=words):
        propose(file_store, upstream, filled, recipe=recipe, **wish)


def test_whoever_may_not_publish_there_may_not_adopt(file_store: Store, upstream: Upstream, filled: HfApi, tmp_path: Path) -> None:
    stranger = HfApi(endpoint=filled.endpoint, token=create_token(tmp_path / "hub", user="stranger"))
    with pytest.raises(HubError, match="is not a member of ours"):
        propose(file_store, upstream, stranger)
    with pytest.raises(PublishConflict, match="is public"):
        adopting.propose(file_store, upstream.settings.with_(private=True), filled, Wish(repo=REPO))


def test_names_that_may_be_published() -> None:
    gguf, whole = Variant(tag="Q4_0", kind=Kind.GGUF), Variant(tag="16bit", kind=Kind.SIXTEEN_BIT)
    upstream = ("config.json", "LICENSE.txt", "odd.safetensors", "README.md")
    for path in ("README.md", "LICENSE.txt", "sluice-manifest.json", "sluice-report.html", "m-Q4_0.gguf", "imatrix.gguf", "params", "template"):
        assert may_publish([gguf], "m", upstream)(path)
    for path in ("config.json", "m-Q8_0.gguf", "model.safetensors", "odd.safetensors", "notes/LICENSE.txt"):
        assert not may_publish([gguf], "m", upstream)(path)
    for path in ("config.json", "model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "odd.safetensors", "vocab.json"):
        assert may_publish([whole], "m", upstream)(path)
    assert not may_publish([whole], "m", upstream)("adapter.safetensors")
