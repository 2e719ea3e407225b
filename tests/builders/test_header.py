"""What a GGUF's header says of where the model comes from, as the converter's own library reads it."""

from dataclasses import replace
from pathlib import Path

from gguf import Metadata

from builders import front_matter, header
from builders.snapshot import facts
from config.facts import Facts, vetted

HUB = "https://hub.example"
FACTS = Facts(
    license="other",
    license_name="tiny-community",
    license_link="LICENSE.md",
    languages=("en", "no"),
    pipeline_tag="text-generation",
    tags=("math", "safetensors"),
    base_models=("meta-llama/Llama-3.1-8B", "upstream/tiny-base-v2"),
    datasets=("squad", "owner/a-set"),
)


def read(folder: Path, card: str) -> Metadata:
    """What the converter makes of the card: the function that it calls itself."""
    folder.mkdir(exist_ok=True)
    (folder / front_matter.CARD).write_text(card, encoding="utf-8")
    return Metadata.load(None, folder, "tiny-chat")


def test_the_converter_finds_every_fact(tmp_path: Path) -> None:
    found = read(tmp_path / "tiny-chat", header.card(FACTS, repo="upstream/tiny-chat", hub=HUB))
    assert (found.license, found.license_name, found.license_link) == ("other", "tiny-community", f"{HUB}/upstream/tiny-chat/blob/main/LICENSE.md")
    assert (found.name, found.organization, found.source_repo_url) == ("tiny-chat", "Upstream", f"{HUB}/upstream/tiny-chat")
    assert found.base_models == [
        {"name": "Llama 3.1 8B", "organization": "Meta Llama", "repo_url": f"{HUB}/meta-llama/Llama-3.1-8B"},
        {"name": "Tiny Base v2", "organization": "Upstream", "version": "v2", "repo_url": f"{HUB}/upstream/tiny-base-v2"},
    ]
    assert found.datasets == [{"name": "Squad"}, {"name": "A Set", "organization": "Owner", "repo_url": f"{HUB}/datasets/owner/a-set"}]
    assert (found.tags, found.languages) == (["math", "text-generation"], ["en", "no"])


def test_no_address_is_given_that_leads_nowhere(tmp_path: Path) -> None:
    found = read(tmp_path / "a", header.card(FACTS, repo="upstream/tiny-chat", hub=None))
    assert (found.license_link, found.organization, found.source_repo_url) == ("LICENSE.md", "Upstream", None)
    assert [sorted(model) for model in found.base_models or ()] == [["name", "organization"], ["name", "organization", "version"]]
    local = read(tmp_path / "b", header.card(FACTS, repo="tiny-chat", hub=HUB))
    assert (local.license_link, local.organization, local.source_repo_url) == ("LICENSE.md", None, None)
    plain = header.card(replace(FACTS, license_link="http://example.org/terms?for=us"), repo="upstream/tiny-chat", hub=HUB)
    assert read(tmp_path / "c", plain).license_link == "http://example.org/terms?for=us"


def test_a_card_that_says_nothing_adds_nothing(tmp_path: Path) -> None:
    found = read(tmp_path / "tiny-chat", header.card(Facts(), repo=None, hub=HUB))
    bare = Metadata.load(None, tmp_path / "missing" / "tiny-chat", "tiny-chat")
    assert found == bare
    assert (found.license, found.base_models, found.tags, found.languages) == (None, None, None, None)


def test_a_stranger_s_words_reach_no_other_key(tmp_path: Path) -> None:
    evil = "x\nlicense: mit\nauthor: me\n---\n"
    stated = {
        "license": [evil, "mit\x00"],
        "license_link": evil,
        "model_name": "another",
        "author": "me",
        "language": [evil, False],
        "tags": [evil, {"a": 1}, "math"],
        "base_model": [{"name": evil}, evil],
        "datasets": evil,
        "pipeline_tag": evil,
    }
    found = read(tmp_path / "tiny-chat", header.card(vetted(facts(stated, known=True)), repo="upstream/tiny-chat", hub=HUB))
    assert (found.name, found.author, found.license, found.license_name, found.license_link) == ("tiny-chat", None, "other", None, None)
    assert (found.base_models, found.datasets, found.tags, found.languages) == (None, None, ["math"], ["no"])
