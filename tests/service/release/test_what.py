from pathlib import Path

import pytest

from config.errors import ConfigurationError
from service.release.what import Meant, meant

PUBLIC = "https://huggingface.co"
OWN = "http://127.0.0.1:8090"


def of(what: str, endpoint: str = PUBLIC, revision: str | None = None, name: str | None = None) -> Meant:
    return meant(what, endpoint=endpoint, revision=revision, name=name)


@pytest.mark.parametrize(
    "what",
    [
        "Qwen/Qwen3-0.6B",
        "https://huggingface.co/Qwen/Qwen3-0.6B",
        "https://huggingface.co/Qwen/Qwen3-0.6B/",
        "https://huggingface.co:443/Qwen/Qwen3-0.6B?library=transformers#usage",
        "https://huggingface.co/Qwen/Qwen3-0.6B/tree/main",
        "https://huggingface.co/Qwen/Qwen3-0.6B/blob/main/config.json",
        "hf.co/Qwen/Qwen3-0.6B",
        "huggingface.co/Qwen/Qwen3-0.6B",
        "HTTPS://HuggingFace.co/Qwen/Qwen3-0.6B",
    ],
)
def test_names_and_addresses_of_the_same_repo(what: str) -> None:
    assert of(what) == Meant(repo="Qwen/Qwen3-0.6B", revision="main")


@pytest.mark.parametrize(
    ("rest", "revision"),
    [
        ("tree/v1.0", "v1.0"),
        ("tree/feature%2Fone", "feature/one"),
        ("tree/refs%2Fpr%2F1", "refs/pr/1"),
        ("tree/refs/pr/1", "refs/pr/1"),
        ("commit/" + "a" * 40, "a" * 40),
    ],
)
def test_an_address_may_name_a_revision(rest: str, revision: str) -> None:
    assert of(f"https://hf.co/a/b/{rest}").revision == revision
    assert of(f"https://hf.co/a/b/{rest}", revision=revision).revision == revision
    with pytest.raises(ConfigurationError, match="Leave out one of the two"):
        of(f"https://hf.co/a/b/{rest}", revision="other")
    assert of("https://hf.co/a/b", revision="v2").revision == of("a/b", revision="v2").revision == "v2"


def test_addresses_of_a_hub_of_one_s_own() -> None:
    assert of(f"{OWN}/a/b/tree/v1", OWN) == Meant(repo="a/b", revision="v1")
    assert of("127.0.0.1:8090/a/b", OWN) == Meant(repo="a/b", revision="main")
    assert of("https://hub.example/models/a/b", "https://hub.example/models") == Meant(repo="a/b", revision="main")


@pytest.mark.parametrize(
    ("what", "endpoint", "set_to"),
    [
        ("https://huggingface.co/a/b", OWN, "https://huggingface.co"),
        ("hf.co/a/b", OWN, "https://huggingface.co"),
        (f"{OWN}/a/b", PUBLIC, OWN),
        ("http://127.0.0.1:1/a/b", OWN, "http://127.0.0.1:1"),
        ("https://huggingface.co.evil.example/a/b", PUBLIC, "https://huggingface.co.evil.example"),
        ("https://huggingface.co@evil.example/a/b", PUBLIC, "https://evil.example"),
    ],
)
def test_another_hub_is_refused_by_the_name_of_the_setting(what: str, endpoint: str, set_to: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        of(what, endpoint)
    assert f"hub_endpoint` (SLUICE_HUB_ENDPOINT) to {set_to} " in str(error.value)


@pytest.mark.parametrize(
    "what",
    ["https://huggingface.co", "https://huggingface.co/Qwen", "https://huggingface.co/datasets/a/b", "hf.co/spaces/a/b", "https://hf.co/a/b/discussions/3",
     "https://hf.co/a/b/tree", "https://hf.co/../b", "https://hf.co:port/a/b", "ftp://huggingface.co:99999/a/b"],
)  # fmt: skip
def test_pages_that_are_no_model(what: str) -> None:
    with pytest.raises(ConfigurationError):
        of(what)


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "owner" / "My Model"
    model.mkdir(parents=True)
    assert of(str(model)) == Meant(repo="My-Model", revision="main", folder=str(model))
    assert of(str(model), name="Better").repo == "Better"
    monkeypatch.chdir(model)
    assert of(".").folder == of("../My Model/").folder == str(model)
    (tmp_path / "owner" / "name").mkdir()
    monkeypatch.chdir(tmp_path)
    assert of("owner/name").folder is None, "as ever, a repo"
    with pytest.raises(ConfigurationError, match="write ./owner/name"):
        of("owner/name", name="other")
    assert of("./owner/name").folder == str(tmp_path / "owner" / "name")
    assert of("owner").folder == str(tmp_path / "owner")


@pytest.mark.parametrize(
    ("what", "changes", "words"),
    [
        ("nowhere", {}, "neither the name of a repo"),
        ("./a/b", {}, "neither the name"),
        ("a/b/", {}, "For a repo on the Hub write a/b"),
        ("a/b", {"name": "c"}, "--name is for folders"),
        ("model.gguf", {}, "sluice quantize model.gguf"),
        ("file.txt", {}, "is a file"),
        (".", {"revision": "v1"}, "has no revisions"),
        (".", {"name": "a/b"}, "cannot be the name"),
    ],
)
def test_what_is_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, changes: dict[str, str], words: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model.gguf", "file.txt"):
        (tmp_path / name).write_text("x")
    with pytest.raises(ConfigurationError, match=words):
        of(what, **changes)
