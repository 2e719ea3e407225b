"""What of an upstream's card may be repeated."""

from dataclasses import replace
from urllib.parse import quote, unquote

import pytest

from config.facts import LICENSES, LONGEST_LINK, LONGEST_NAME, MOST, Facts, vetted
from hub import cards

EVIL = "x\n---\nevil: 1"
NAMES = ("NVIDIA Open Model License (2025)", "Modified MIT License, v1", "Meta's licence", "智谱", 'He: "no #1" & more')


@pytest.mark.parametrize(
    ("stated", "name", "found"),
    [
        ("apache-2.0", None, ("apache-2.0", None)),
        ("Apache-2.0", None, ("apache-2.0", None)),
        ("other", "tiny-community", ("other", "tiny-community")),
        ("other", EVIL, ("other", None)),
        *(("other", name, ("other", name)) for name in NAMES),
        *((name, None, ("other", name)) for name in NAMES),
        *(("other", name, ("other", None)) for name in ("turned \u202eback", "a\0b", "<b>x</b>", "[`x`]", "---", " ", "x" * (LONGEST_NAME + 1))),
        ("Tiny Community License", None, ("other", "Tiny Community License")),
        ("openrail++", None, ("openrail++", None)),
        (EVIL, EVIL, (None, None)),
        (None, "tiny-community", (None, None)),
        ("", None, (None, None)),
    ],
)
def test_a_licence_is_an_id_or_another_under_its_name(stated: str | None, name: str | None, found: tuple[str | None, str | None]) -> None:
    facts = vetted(Facts(license=stated, license_name=name))
    assert (facts.license, facts.license_name) == found


def test_the_list_of_licences_is_the_hub_s() -> None:
    assert cards.LICENSES == LICENSES


def test_only_plain_words_of_bounded_number_pass_and_pass_again() -> None:
    facts = vetted(
        Facts(
            license="mit",
            license_link="https://example.org/LICENSE",
            languages=("en", "no", "zh-Hant", EVIL, "en"),
            pipeline_tag="text-generation",
            tags=("math", EVIL, "safetensors", "4-bit", "not-for-all-audiences", *(f"t{number}" for number in range(100))),
            base_models=("upstream/base", "https://huggingface.co/upstream/older", "./output/checkpoint-12", "/root/x", "a/../b", EVIL, "nobody"),
            datasets=("squad", "https://huggingface.co/datasets/owner/set", "../x"),
        )
    )
    assert (facts.languages, facts.base_models, facts.datasets) == (("en", "no", "zh-Hant"), ("upstream/base", "upstream/older"), ("squad", "owner/set"))
    assert facts.tags[:2] == ("math", "not-for-all-audiences")
    assert len(facts.tags) == MOST
    assert vetted(facts) == facts
    for link in ("Community License for Tiny Model (1).pdf", "docs/legal/Terms of Use.md"):
        found = vetted(replace(facts, license_link=link))
        assert found.license_link is not None
        assert (unquote(found.license_link), " " in found.license_link, vetted(found)) == (link, False, found)


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        *(
            (link, link)
            for link in ("https://example.org/a?b=c&d=(e)", "https://example.org/a#b", "https://example.org:443/a", "http://example.org", "LICENSE")
        ),
        ("./LICENSE", "LICENSE"),
        ("_LICENSE", "_LICENSE"),
        ("LICENSE_中文.md", quote("LICENSE_中文.md")),
        ("https://example.org/许可", f"https://example.org/{quote('许可')}"),
        *((link, None) for link in ("a/../b", "../LICENSE", "/LICENSE", "//example.org", "javascript:alert(1)", "data:text/html,x", "mailto:a@example.org")),
        *((link, None) for link in ("https://example.org/a b", "https://you@example.org", 'https://example.org/"x', "https://example.org/\u202ex", EVIL)),
        *((link, None) for link in (f"https://example.org/{'x' * LONGEST_LINK}", f"https://example.org/{'许' * 100}")),
    ],
)
def test_a_link_to_terms_leads_to_a_page_or_a_file_beside_the_card(stated: str, found: str | None) -> None:
    facts = vetted(Facts(license="other", license_link=stated))
    assert facts.license_link == found
    assert vetted(facts) == facts
