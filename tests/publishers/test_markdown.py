import pytest
from markdown_it import MarkdownIt

from publishers.markdown import Markdown, code, excerpts, text, word

NASTY = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](https://evil.example)",
    "![x](https://evil.example/x.png)",
    "<https://evil.example>",
    "*a* _b_ **c** __d__ ~~e~~ `f`",
    "a | b",
    "line\n---\nbase_model: evil/evil\n",
    "line\r\n# heading",
    "``` \ncode",
    "&lt;b&gt; &amp; &#60;b&#62;",
    "\\<b> \\`x\\` \\[y](z)",
    "$$x$$ \\(y\\) \\\\(z\\\\)",
    "{{ card.repo }} {% include 'x' %}",
    "\u202eevil\u202c",
    "<!-- gone",
    "]]> <![CDATA[",
]


def tokens(markdown: str) -> list[str]:
    parsed = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    return [token.type for block in parsed for token in (block, *(block.children or ()))]


@pytest.mark.parametrize("nasty", NASTY)
def test_text_stays_text(nasty: str) -> None:
    assert set(tokens(f"before {text(nasty)} after")) <= {"paragraph_open", "inline", "text", "text_special", "paragraph_close"}
    assert "$" not in text(nasty)
    assert "\\" not in text(nasty)
    assert "\u202e" not in text(nasty)


@pytest.mark.parametrize("nasty", NASTY)
def test_text_keeps_to_its_cell(nasty: str) -> None:
    table = f"| a | b |\n|---|---|\n| {text(nasty)} | {code('x')} |\n"
    assert tokens(table).count("td_open") == 2


@pytest.mark.parametrize("nasty", [*NASTY, "`", "``", "a`b``c", "plain <|im_end|>"])
def test_code_shows_its_content_and_nothing_else(nasty: str) -> None:
    rendered = MarkdownIt("commonmark").render(f"before {code(nasty)} after")
    inside = rendered.removeprefix("<p>before <code>").removesuffix("</code> after</p>\n")
    assert "<" not in inside, rendered


def test_links_are_broken_up() -> None:
    assert "https://" not in text("see https://evil.example")
    assert "www." not in text("see www.evil.example")


def test_what_is_markdown_already_is_not_escaped_again() -> None:
    assert text(text("a*b")) == "a&#42;b"
    assert text(Markdown("**a**")) == "**a**"


def test_words_of_our_own_stay_readable() -> None:
    assert text("eos_token_id must be 4 (was 5): 0.47 > 0.15") == "eos_token_id must be 4 (was 5): 0.47 > 0.15"
    assert code("<|im_end|>") == "`<|im_end|>`"


@pytest.mark.parametrize("value", ["a b", "a\nb", "$(x)", "a;b", "`x`", ""])
def test_only_words_stand_in_code_blocks(value: str) -> None:
    with pytest.raises(ValueError, match="cannot stand in a code block"):
        word(value)


def test_long_values_are_cut_where_they_part() -> None:
    one, other = excerpts("x" * 500 + "OLD" + "y" * 500, "x" * 500 + "NEW" + "y" * 500)
    assert "OLD" in one
    assert "NEW" in other
    assert max(len(one), len(other)) < 250
    assert excerpts(None, 4) == ("`absent`", "`4`")
