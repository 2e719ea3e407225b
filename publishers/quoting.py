"""A part of the upstream's own card as a quotation: its prose and lists, made anew from what a parser of Markdown understands of them.

Left out, because a stranger would speak through it under the publisher's name: HTML, images, the targets of links, code and commands, tables, footnotes.
Every character of what stays goes through `publishers.markdown`, every line is behind the quotation's mark, so nothing of it can end the quotation.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token

from publishers import markdown, sections

LONGEST = 2_500  # characters of the upstream's that are quoted
READ = 200_000  # characters of its card that are looked at
DEEPEST = 4  # lists within lists

# licences that let everybody pass on copies of the text: the permissive ones, public domain, and Creative Commons without NC and ND
PERMISSIVE = frozenset(
    {
        "apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "isc", "zlib", "unlicense", "wtfpl", "0bsd", "cc0-1.0", "pddl",
        "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "artistic-2.0",
        "ecl-2.0", "ms-pl", "postgresql", "ncsa", "afl-3.0", "bsl-1.0",
    }
)  # fmt: skip

# what a reader of a repo with other files must not follow
_ELSEWHERE = re.compile(r"(?i)\b(quick ?start|usage|how to (use|run|get)|install|deploy|getting started|requirements|citation|cite|bibtex|inference|download)")


@dataclass(frozen=True, kw_only=True)
class Quotation:
    """What is quoted, as Markdown, and whether there is more."""

    text: markdown.Markdown
    whole: bool


def allowed(license: str | None) -> bool:
    """Whether a licence lets the card's text be passed on."""
    return license is not None and license.lower() in PERMISSIVE


def quote(card: str, most: int = LONGEST) -> Quotation | None:
    """The first so many characters of a README's prose, as a quotation; None where there is none."""
    _front, body = sections.split(card[:READ].lstrip())  # text that is indented at the very beginning is no code
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(body)
    lines: list[str] = []
    before: _Block | None = None
    left = most
    whole = len(card) <= READ
    for block in _blocks(tokens):
        if block.size > left:
            whole = False
            break
        left -= block.size
        if before is not None and not (before.listed and block.listed):
            lines.append(">")
        lines.append(f"> {block.text}")
        before = block
    return Quotation(text=markdown.Markdown("\n".join(lines)), whole=whole) if lines else None


@dataclass(frozen=True, kw_only=True)
class _Block:
    """A heading, a paragraph or an item, on one line."""

    text: str
    size: int  # characters of the upstream's
    listed: bool


def _blocks(tokens: Sequence[Token]) -> Iterator[_Block]:
    """What can be quoted, in order: headings only before something that they head, and no section about other files' use."""
    lists = _Lists()
    skipped_below, tables = 0, 0
    heading: _Block | None = None
    for position, token in enumerate(tokens):
        lists.meet(token)
        tables += token.nesting if token.type.startswith("table_") else 0
        said = _said(token) if token.type == "inline" and not tables else ""
        text = markdown.text(said)
        if not text:  # also where all that is said shows nothing
            continue
        opening = tokens[position - 1]
        if opening.type == "heading_open":
            level = int(opening.tag[1:])
            if not skipped_below or level <= skipped_below:
                skipped_below = level if _ELSEWHERE.search(said) else 0
                heading = _Block(text=f"**{text}**", size=len(said), listed=False) if level > 1 and not skipped_below else None
        elif not skipped_below:
            if heading is not None:
                yield heading
            heading, marker = None, lists.marker()
            yield _Block(text=marker + _opening(text), size=len(said), listed=bool(marker))


class _Lists:
    """The lists that are open where the parser is."""

    def __init__(self) -> None:
        self._numbers: list[int | None] = []  # of each the next number, None for bullets
        self._marker = ""

    def meet(self, token: Token) -> None:
        """Go on by one token."""
        match token.type:
            case "bullet_list_open" | "ordered_list_open":
                self._numbers.append(1 if token.type == "ordered_list_open" else None)
            case "bullet_list_close" | "ordered_list_close":
                self._numbers.pop()
                self._marker = ""
            case "list_item_open":
                number = self._numbers[-1]
                self._marker = "   " * min(len(self._numbers) - 1, DEEPEST) + ("- " if number is None else f"{number}. ")
                self._numbers[-1] = None if number is None else number + 1
            case _:
                pass

    def marker(self) -> str:
        """What an item's first line begins with; nothing for every other line."""
        marker, self._marker = self._marker, ""
        return marker


def _opening(text: markdown.Markdown) -> str:
    """Text that begins a line: there `#`, `-` or `1.` would be more than a character, unless it is a reference."""
    return text if text[0].isalpha() or text[0] == "&" else f"&#{ord(text[0])};{text[1:]}"


def _said(token: Token) -> str:
    """The words of a piece of text: of links what they show, of code what it says, of images and HTML nothing."""
    words = []
    for part in token.children or ():
        if part.type in {"text", "code_inline"}:
            words.append(part.content)
        elif part.type in {"softbreak", "hardbreak"}:
            words.append(" ")
    return " ".join("".join(words).split())
