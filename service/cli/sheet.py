"""A table for the terminal in which no word is broken: where it is too wide, prose wraps between words, and a long name has a line of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions
from rich.text import Text

INDENT = 3  # columns before what stands below a name
LEAST = 16  # columns that prose has at least, if its words are no longer

Cell = list[Text]
"""The lines of a cell."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column; a heading may have several lines."""

    heading: str
    right: bool = False  # figures stand at its right edge
    prose: bool = False  # may be wrapped between words


def names(*headings: str) -> list[Column]:
    """Columns of words that are never wrapped."""
    return [Column(heading=heading) for heading in headings]


def figures(*headings: str) -> list[Column]:
    """Columns of figures."""
    return [Column(heading=heading, right=True) for heading in headings]


@dataclass(kw_only=True)
class Sheet:
    """Rows of cells in markup; the first column names the row."""

    columns: Sequence[Column]
    title: str = ""
    rows: list[Sequence[str]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Add a row of as many cells as there are columns."""
        if len(cells) != len(self.columns):
            raise ValueError(f"a row of {len(cells)} cells for {len(self.columns)} columns")
        self.rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """The lines, none wider than the console, but for a word or a figure that is wider by itself."""
        heads = [_lines(console, column.heading) for column in self.columns]
        rows = [[_lines(console, cell) for cell in row] for row in self.rows]
        if self.title:
            yield Text.assemble((console.render_str(self.title).plain, "italic"))
        yield Text()
        widths = _widths([[*heads], *rows], self.columns, options.max_width)
        if widths is None:
            yield from _blocks(console, self.columns, heads, rows, options.max_width)
        else:
            fitted = list(zip(self.columns, widths, strict=True))
            wrapped = [[_wrapped(console, cell, width) if kind.prose else cell for cell, (kind, width) in zip(row, fitted, strict=True)] for row in rows]
            for line in _laid(heads, widths, self.columns, bottom=True):
                line.stylize("bold")
                yield line
            yield Text(" " + "─" * min(sum(widths) + len(widths) - 1, options.max_width - 1))
            for row in wrapped:
                yield from _laid(row, widths, self.columns)
        yield Text()


def _lines(console: Console, cell: str) -> Cell:
    return list(console.render_str(cell, highlight=False).split("\n", allow_blank=True))


def _natural(cell: Cell) -> int:
    return max((line.cell_len for line in cell), default=0)


def _longest_word(cell: Cell) -> int:
    return max((Text(word).cell_len for line in cell for word in line.plain.split()), default=0)


def _widths(rows: Sequence[Sequence[Cell]], columns: Sequence[Column], room: int) -> list[int] | None:
    """The columns' widths; the first may be too small for some names. None when not even so it fits."""
    widths = [max(_natural(row[place]) for row in rows) for place in range(len(columns))]
    free = room - len(columns)  # a blank before each
    prose = [place for place, column in enumerate(columns) if column.prose and place]
    words = {place: max(_longest_word(row[place]) for row in rows) for place in prose}
    least = {place: min(widths[place], max(LEAST, min(words[place], room // 2))) for place in prose}  # a longer one, as paths are, is broken
    fixed = sum(width for place, width in enumerate(widths) if place not in least)
    if fixed + sum(least.values()) > free:
        short = free - (fixed - widths[0]) - sum(least.values())
        if short < INDENT - 1:
            return None
        widths[0] = max(INDENT - 1, *(length for row in rows if (length := _natural(row[0])) <= short), 0)
    spare = free - sum(width for place, width in enumerate(widths) if place not in least) - sum(least.values())
    for place in sorted(prose, key=lambda place: widths[place] - least[place]):
        share = min(widths[place] - least[place], spare // (len(prose) - prose.index(place)) if len(prose) > 1 else spare)
        widths[place] = least[place] + share
        spare -= share
    return widths


def _wrapped(console: Console, cell: Cell, width: int) -> Cell:
    """The cell's lines, those that are too long broken between words."""
    lines: Cell = []
    for line in cell:
        lines += line.wrap(console, width)
    for line in lines:
        line.rstrip()
    return lines


def _laid(row: Sequence[Cell], widths: Sequence[int], columns: Sequence[Column], *, bottom: bool = False) -> Iterator[Text]:
    """The lines of a row. A name that is too long comes first, by itself."""
    if _natural(row[0]) > widths[0]:
        yield from (Text(" ") + line for line in row[0])
        row = [[], *row[1:]]
    height = max(map(len, row))
    for number in range(height):
        line = Text()
        for cell, width, column in zip(row, widths, columns, strict=True):
            place = number - (height - len(cell)) if bottom else number
            part = cell[place].copy() if 0 <= place < len(cell) else Text()
            blank = " " * max(0, width - part.cell_len)
            line += Text(" ") + (Text(blank) + part if column.right else part + Text(blank))
        line.rstrip()
        yield line


def _blocks(console: Console, columns: Sequence[Column], heads: Sequence[Cell], rows: Sequence[Sequence[Cell]], room: int) -> Iterator[Text]:
    """Each row as a name with what is said of it below, for terminals in which no table has room."""
    for row in rows:
        yield from (Text(" ") + line for line in row[0])
        for head, cell in zip(heads[1:], row[1:], strict=True):
            heading, said = " ".join(line.plain for line in head).strip().replace("/ ", "/"), Text(" ").join(cell)
            if said.plain.strip():
                for line in Text.assemble(f"{heading}: " if heading else "", said).wrap(console, max(LEAST, room - INDENT)):
                    line.rstrip()
                    yield Text(" " * INDENT) + line
