"""What an entry of the watch list follows, and what is said about one that cannot be."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from config.errors import ConfigurationError
from config.settings import load_settings
from config.watch import Watched


def test_an_entry_of_before_still_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sluice.yaml").write_text("watch:\n  - {repo: a/b, recipe: reference}\n  - repo: c/d\n    revision: dev\n")
    first, second = load_settings().watch
    assert (first.named, first.recipe, first.revision) == (("a/b",), "reference", "main")
    assert (second.named, second.recipe, second.revision) == (("c/d",), "default", "dev")


def test_a_whole_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sluice.yaml").write_text("""
watch:
  - owners: [Qwen, google]
    repos: [other/one]
    names: [Qwen3-*, gemma-3-*]
    exclude: ["*-GGUF", google/gemma-3-270m]
    tags: text-generation
    minimum_downloads: 1000
    licenses: [apache-2.0]
    private: skip
    gated: follow
    cool_down_minutes: 60
    recipe: default
""")
    (entry,) = load_settings().watch
    assert entry.label == "other/one, Qwen/Qwen3-*|gemma-3-*, google/Qwen3-*|gemma-3-*"
    followed = ("Qwen/Qwen3-4B", "qwen/qwen3-0.6b", "google/gemma-3-1b", "other/one")
    assert [repo for repo in followed if not entry.follows(repo)] == []
    passed = ("Qwen/Qwen2-7B", "Qwen/Qwen3-4B-GGUF", "google/gemma-3-270m", "other/two", "stranger/Qwen3-4B", "other/one-GGUF")
    assert [repo for repo in passed if entry.follows(repo)] == []
    assert entry.tags == ("text-generation",)
    assert entry.concerns == {"qwen", "google", "other"}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, "it follows nothing: give `repo` (owner/name), `repos` or `owners`"),
        ({"repo": "a/b", "names": ["c*"]}, "`names` chooses among the repos of `owners`, and there are none"),
        ({"repo": "https://huggingface.co/a/b"}, "should match pattern"),
        ({"owners": ["a/b"]}, "should match pattern"),
        ({"owners": ["a"], "minimum_downloads": 2**63}, "less than or equal to"),
        ({"owners": ["a"], "private": "maybe"}, "'follow' or 'skip'"),
    ],
)
def test_an_entry_that_cannot_be_is_explained(said: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Watched.model_validate(said)
    assert words in str(refused.value)


def test_a_misspelt_key_is_told_with_the_one_that_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sluice.yaml").write_text("watch: [{owners: [a], licences: [mit]}]")
    with pytest.raises(ConfigurationError, match=r"watch\.0\.licences: Extra inputs are not permitted \(did you mean `licenses`\?\)"):
        load_settings()
