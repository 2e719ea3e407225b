"""Progress while a run works: a bar that is kept up to date in a terminal, lines elsewhere."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.control import Control
from rich.live import Live
from rich.markup import escape
from rich.segment import ControlType
from rich.text import Text

from service.amounts import in_order
from service.cli.display.watch import Watch, Work, told
from service.repeating import repeated

REFRESH = 0.2  # seconds between two pictures in a terminal
LINE_SECONDS = 30.0  # between two lines about the same stage elsewhere
WIDEST = 79  # columns of the picture, however wide the terminal is
BAR = 20  # columns of a bar where there is room
SHORTEST_BAR, SHORTEST_NAME = 6, 16
FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


@contextmanager
def progress(console: Console, *, line_seconds: float = LINE_SECONDS) -> Iterator[Watch]:
    """A listener that shows a run's stages: a line for each that has ended, and how far the one at work has come.

    That is a bar in a terminal, and elsewhere a line every `line_seconds`. A KeyboardInterrupt goes on with the words where the work was.
    """
    with _bars(console) if console.is_interactive else _lines(console, line_seconds) as watch:
        try:
            yield watch
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(watch.where()) from error


@contextmanager
def _lines(console: Console, seconds: float) -> Iterator[Watch]:
    watch = Watch(printed=lambda head, words: console.print(f"{head}  {words}", soft_wrap=True))
    said: dict[tuple[str, datetime], int] = {}

    def tick() -> bool:
        now = datetime.now(UTC)
        with watch.lock:  # a stage must not be said to be at work below the line of its end
            for work in watch.board.at_work:
                due = int(work.elapsed(now) / seconds)
                if due > said.get((work.stage, work.began), 0):
                    said[work.stage, work.began] = due
                    watch.printed(f"· {work.elapsed(now):7.1f} s", f"{escape(work.stage)}  {escape(told(work, now))}")
        return True

    with repeated(tick, seconds=min(1.0, seconds / 10), name="progress"):
        yield watch


@contextmanager
def _bars(console: Console) -> Iterator[Watch]:
    screen = Screen(console)
    with _while_there_is_a_terminal():
        screen.live.start()
    try:
        with repeated(screen.refresh, seconds=REFRESH, name="progress"):
            yield screen.watch
    finally:
        with _while_there_is_a_terminal():
            screen.refresh()
            screen.live.stop()
    if screen.watch.board.finished:
        with _while_there_is_a_terminal():
            console.print(screen.watch.board.overall(datetime.now(UTC)))


@contextmanager
def _while_there_is_a_terminal() -> Iterator[None]:
    """When it is gone, as after SIGHUP or under nohup, there is nobody to show anything to; the work goes on, or is ended in order."""
    with suppress(OSError):
        yield


class Screen:
    """The picture of a board at the foot of a terminal; what is printed stays above it."""

    def __init__(self, console: Console) -> None:
        self.watch = Watch(printed=self._print)
        self._console = console
        self._lock = threading.RLock()
        self._drawn: list[int] = []  # columns of the picture's lines
        self._frame = 0
        self.live = Live(console=console, auto_refresh=False, transient=True, get_renderable=self._picture)

    def refresh(self) -> bool:
        """Draw the picture anew; always True, to be repeated."""
        with self._lock, _while_there_is_a_terminal():
            self._frame += 1
            self._gather()
            self.live.refresh()
        return True

    def _print(self, head: str, words: str) -> None:
        start = Text.from_markup(f"{head}  ")
        room = max(SHORTEST_NAME, self._console.width - start.cell_len - 1)
        lines = Text.from_markup(words).wrap(self._console, room)
        for line in lines:
            line.rstrip()
        with self._lock, _while_there_is_a_terminal():
            self._gather()
            self._console.print(start + Text(f"\n{' ' * start.cell_len}").join(lines))
            self.live.refresh()

    def _gather(self) -> None:
        """Go up to where the picture's lines would end if a terminal made narrower since had not broken them into several: Rich goes up as many as it drew."""
        extra = sum(max(0, math.ceil(columns / self._console.width) - 1) for columns in self._drawn)
        if extra:
            erase = (ControlType.ERASE_IN_LINE, 2)
            self._console.control(Control(ControlType.CARRIAGE_RETURN, erase, *((ControlType.CURSOR_UP, 1), erase) * extra))

    def _picture(self) -> RenderableType:
        board, now = self.watch.board, datetime.now(UTC)
        columns = min(WIDEST, self._console.width - 1)
        lines = [row(work, now, columns=columns, frame=self._frame) for work in board.at_work]
        if lines or board.finished:
            lines.append(Text("  " + board.overall(now), style="dim", no_wrap=True, overflow="ellipsis"))
            lines[-1].truncate(columns, overflow="ellipsis")
        self._drawn = [line.cell_len for line in lines]
        return Group(*lines)


def row(work: Work, now: datetime, *, columns: int, frame: int = 0) -> Text:
    """The line of a stage at work, no wider than so many columns: its name, a bar if there is room and a total, and how far it has come."""
    parts, shortest = work.how_far(now), min(SHORTEST_NAME, cell_len(work.stage))
    while len(parts) > 1 and shortest + len(in_order(parts)) + 4 > columns:
        parts = parts[:-1]
    words = in_order(parts)
    room = columns - 4 - len(words)  # beside the spinner
    share = _share(work)
    name = Text(work.stage)
    name.truncate(max(shortest, room if share is None else room - SHORTEST_BAR - 2), overflow="ellipsis")
    line = Text.assemble((FRAMES[frame % len(FRAMES)], "cyan"), " ", name, "  ")
    bar = min(BAR, room - name.cell_len - 2)
    if share is not None and bar >= SHORTEST_BAR:
        filled = int(share * bar)
        line.append("━" * filled, "green").append("─" * (bar - filled), "dim").append("  ")
    line.append(words)
    line.truncate(columns, overflow="ellipsis")
    return line


def _share(work: Work) -> float | None:
    if work.phase is None or not work.phase.latest.total:
        return None
    return min(1.0, work.phase.latest.done / work.phase.latest.total)
