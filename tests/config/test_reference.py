"""The reference pages say what the schemas say, and say something of every key."""

import re

import pytest

from config.reference import DOCS, pages


@pytest.mark.parametrize("name", sorted(pages()))
def test_the_page_is_what_the_schemas_say(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], "run `make docs`"


@pytest.mark.parametrize(("name", "text"), sorted(pages().items()))
def test_every_key_is_explained(name: str, text: str) -> None:
    keys = [line for line in text.splitlines() if re.match(r"\| `\w+` \| ", line) and line.count(" | ") >= 3]
    assert keys
    assert [line for line in keys if line.endswith("|  |")] == []


def test_every_link_leads_to_a_heading_of_its_page() -> None:
    for text in pages().values():
        headings = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in re.findall(r"^## (.+)$", text, re.MULTILINE)}
        assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= headings
