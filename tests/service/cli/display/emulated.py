"""A terminal in memory: keeps what would stand on its screen, and breaks lines anew when it is made narrower or wider, as most terminals do."""

import io
import re

from rich.console import Console

CONTROL = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")


class Emulated(io.StringIO):
    """Lines of which each may take several rows, and a cursor that knows rows only."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns
        self.rows: list[list[str]] = [[]]
        self.continued: set[int] = set()  # rows that go on with the line of the row before
        self.row = self.column = 0
        self.cursor_shown = True

    def console(self) -> Console:
        return Console(file=self, force_terminal=True, force_interactive=True, width=self.columns, height=40, highlight=False, color_system=None)

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        super().write(text)
        position = 0
        while position < len(text):
            if found := CONTROL.match(text, position):
                self._control(*found.groups())
                position = found.end()
                continue
            self._put(text[position])
            position += 1
        return len(text)

    def _control(self, given: str, letter: str) -> None:
        number = int(given) if given.isdigit() else 1
        if letter == "A":
            self.row = max(0, self.row - number)
        elif letter == "K":
            self.rows[self.row] = []
        elif given == "?25":
            self.cursor_shown = letter == "h"
        else:
            assert letter == "m", f"an unknown control sequence: {given}{letter}"

    def _put(self, character: str) -> None:
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self._down()
            self.continued.discard(self.row)
        else:
            if self.column == self.columns:
                self._down()
                self.continued.add(self.row)
            line = self.rows[self.row]
            line.extend(" " * (self.column + 1 - len(line)))
            line[self.column] = character
            self.column += 1

    def _down(self) -> None:
        self.row, self.column = self.row + 1, 0
        if self.row == len(self.rows):
            self.rows.append([])

    def resize(self, columns: int) -> None:
        """Break the lines anew; the cursor stays at the character where it was."""
        assert not any(self.rows[self.row + 1 :]), "nothing is written below the cursor"
        del self.rows[self.row + 1 :]
        lines: list[list[str]] = []
        for number, row in enumerate(self.rows):
            if number in self.continued:
                lines[-1].extend(row)
            else:
                lines.append(list(row))
        self.rows, self.continued, self.columns = [], set(), columns
        for line in lines:
            for start in range(0, max(1, len(line)), columns):
                if start:
                    self.continued.add(len(self.rows))
                self.rows.append(line[start : start + columns])
        self.row, self.column = len(self.rows) - 1, len(self.rows[-1])

    def shown(self) -> list[str]:
        """The rows of the screen without empty ones at its end."""
        return "\n".join("".join(row).rstrip() for row in self.rows).rstrip("\n").split("\n")
