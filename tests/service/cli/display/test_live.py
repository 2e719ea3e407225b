import errno
import io
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from config.progress import Progress
from service.cli.display import Watch, progress
from service.cli.display.live import row
from service.cli.display.watch import Work
from service.execution.workbench import Event
from service.pace import Phase
from tests.service.cli.display.emulated import Emulated
from tests.service.helpers import eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def started(stage: str, **changes: object) -> Event:
    return Event(stage=stage, state="started", **changes)


def progressed(stage: str, done: int, total: int | None = 40, unit: str = "windows") -> Event:
    return Event(stage=stage, state="progressed", progress=Progress(done=done, total=total, unit=unit))


def done(stage: str, **changes: object) -> Event:
    return Event(**{"stage": stage, "state": "done", "seconds": 1.25, **changes})


def working(stage: str = "measure", *, done: int = 12, total: int | None = 40, unit: str = "windows") -> Work:
    """A stage that did all this in ten seconds, which have just gone by."""
    latest = Progress(done=done, total=total, unit=unit)
    phase = Phase(first=0, began=NOW - timedelta(seconds=10), latest=latest, reported=NOW)
    return Work(stage=stage, began=NOW - timedelta(seconds=63), estimate=None, phase=phase)


def headless() -> Console:
    return Console(file=io.StringIO(), width=200, highlight=False)


def lines(console: Console) -> list[str]:
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_headless_progress_is_one_line_for_each_finished_stage() -> None:
    console = headless()
    with progress(console) as listener:
        listener(started("convert"))
        listener(progressed("convert", 1))
        listener(done("convert"))
        listener(done("measure Q4_0", state="failed", seconds=2.0, message="out of [memory]"))
    assert lines(console) == ["✓     1.2 s  convert", "✗     2.0 s  measure Q4_0  out of [memory]"]


def test_headless_a_stage_at_work_is_told_of_again_and_again_though_no_event_comes() -> None:
    console = headless()
    with progress(console, line_seconds=0.2) as listener:
        listener(started("measure [Q4_0]"))
        eventually(lambda: len(lines(console)) >= 2)
        listener(progressed("measure [Q4_0]", 0))
        time.sleep(0.05)
        listener(progressed("measure [Q4_0]", 1))
        listener(started("other"))
        listener(done("other"))
        eventually(lambda: len(lines(console)) >= 5)
        listener(done("measure [Q4_0]"))
        ended = len(lines(console))
        time.sleep(0.5)
    told = [line for line in lines(console) if line.startswith("·")]
    assert told[0].endswith("s  measure [Q4_0]  0 s")
    assert any("measure [Q4_0]  1 of 40 windows, " in line and line.endswith(" left") for line in told)
    assert len(lines(console)) == ended, "nothing more about a stage that has ended"


def test_headless_a_stage_that_ends_in_time_is_told_of_once() -> None:
    console = headless()
    with progress(console, line_seconds=0.4) as listener:
        for number in range(6):
            listener(started(f"stage {number}"))
            time.sleep(0.15)
            listener(done(f"stage {number}"))
    assert [line[0] for line in lines(console)] == ["✓"] * 6


def test_an_interruption_says_where() -> None:
    def interrupted(*events: Event) -> str:
        with pytest.raises(KeyboardInterrupt) as caught, progress(headless()) as listener:
            tell_and_interrupt(listener, *events)
        return str(caught.value)

    assert interrupted() == ""
    assert interrupted(started("measure", seconds=61)) == "measure after 1 min 1 s"
    assert interrupted(started("measure"), progressed("measure", 7)) == "measure, 7 of 40 windows, after 0 s"
    assert interrupted(started("measure"), done("measure")) == ""


def tell_and_interrupt(listener: Watch, *events: Event) -> None:
    for event in events:
        listener(event)
    time.sleep(0.3)  # until it is shown
    raise KeyboardInterrupt


def test_in_a_terminal_finished_stages_stand_above_the_bar_and_stay() -> None:
    terminal = Emulated(80)
    with progress(terminal.console()) as listener:
        for number in range(30):
            listener(started(f"stage {number}"))
            listener(done(f"stage {number}"))
        listener(started("measure"))
        listener(progressed("measure", 0))
        time.sleep(0.1)
        listener(progressed("measure", 20))
        eventually(lambda: "20 of 40 windows" in terminal.shown()[-2])
        assert not terminal.cursor_shown
        *above, bar, overall = terminal.shown()
        assert above == [f"✓     1.2 s  stage {number}" for number in range(30)]
        assert "measure  ━━━━━━━━━━──────────  20 of 40 windows, " in bar
        assert bar.endswith(" left")
        assert overall == "  30 stages finished in 0 s"
        listener(done("measure"))
    assert terminal.shown() == [*above, "✓     1.2 s  measure", "31 stages finished in 0 s"]
    assert terminal.cursor_shown


def test_in_a_terminal_an_interruption_leaves_what_was_finished_and_nothing_else() -> None:
    terminal = Emulated(80)
    with pytest.raises(KeyboardInterrupt), progress(terminal.console()) as listener:
        tell_and_interrupt(listener, started("fix"), done("fix"), started("measure"))
    assert "measure" in terminal.getvalue()
    assert terminal.shown() == ["✓     1.2 s  fix"]
    assert terminal.cursor_shown


def test_a_terminal_that_is_made_narrower_and_wider_keeps_every_line_and_shows_one_bar() -> None:
    terminal = Emulated(100)
    console = terminal.console()
    with progress(console) as listener:
        listener(started("fix"))
        listener(done("fix"))
        listener(started("measure a variant with a rather long name"))
        for count in (0, 7):
            time.sleep(0.05)
            listener(progressed("measure a variant with a rather long name", count))
        eventually(lambda: "7 of 40" in terminal.shown()[-2])
        for columns in (60, 33, 120, 40, 80):
            with console._lock, listener.lock:  # a terminal is resized at once, not while something is written
                terminal.resize(columns)
                console.size = (columns, 40)
            listener(progressed("measure a variant with a rather long name", 8))
            time.sleep(0.5)
            shown = terminal.shown()
            assert shown[0].startswith("✓     1.2 s  fix")
            assert sum("of 40" in line for line in shown) == 1, shown
            assert len(shown) == 3, shown
            assert max(map(len, shown)) < columns


def test_a_long_line_of_a_finished_stage_is_broken_below_its_words() -> None:
    terminal = Emulated(40)
    with progress(terminal.console()) as listener:
        listener(done("gates [Q2_K]", state="failed", seconds=0.0, message="kld.mean is 0.43, at most 0.15 is allowed."))
    assert terminal.shown() == ["✗            gates [Q2_K]  kld.mean is", "             0.43, at most 0.15 is", "             allowed."]


class Gone(Emulated):
    """A terminal that somebody closed."""

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


def test_work_goes_on_when_its_terminal_is_gone() -> None:
    with progress(Gone(80).console()) as listener:
        listener(started("fix"))
        time.sleep(0.3)
        listener(done("fix"))
    assert listener.board.finished == 1
    with pytest.raises(KeyboardInterrupt, match="^fix after 0 s$"), progress(Gone(80).console()) as listener:
        tell_and_interrupt(listener, started("fix"))
    with pytest.raises(OSError, match="disk"), progress(Gone(80).console()):
        raise OSError("a disk's error is not the terminal's")


def test_a_dumb_terminal_gets_lines() -> None:
    terminal = Emulated(80)
    console = Console(file=terminal, force_terminal=True, width=80, height=40, highlight=False, color_system=None, _environ={"TERM": "dumb"})
    with progress(console) as listener:
        listener(started("fix"))
        listener(done("fix"))
    assert terminal.shown() == ["✓     1.2 s  fix"]


def test_the_line_of_a_stage_has_a_bar_where_there_is_room() -> None:
    assert row(working(), NOW, columns=79).plain == "⠋ measure  ━━━━━━──────────────  12 of 40 windows, 1.2/s, 23 s left"
    assert row(working(total=None), NOW, columns=79).plain == "⠋ measure  12 windows, 1.2/s"
    assert row(working(), NOW, columns=50).plain == "⠋ measure  12 of 40 windows, 1.2/s, 23 s left"
    assert row(working(done=5 * 10**8, total=10**9, unit="bytes"), NOW, columns=79).plain.endswith("  500.00 MB of 1.00 GB, 50.00 MB/s, 10 s left")


@pytest.mark.parametrize("columns", [79, 60, 50, 40, 30, 20, 10, 1])
@pytest.mark.parametrize("stage", ["fix", "divergence of UD-Q4_K_XL, UD-Q3_K_XL, UD-Q2_K_XL, Q4_K_M and others"])
def test_the_line_of_a_stage_is_never_wider_than_it_may_be(stage: str, columns: int) -> None:
    for work in (working(stage), working(stage, done=123_456, total=1_234_567, unit="questions"), working(stage, total=None)):
        assert row(work, NOW, columns=columns).cell_len <= columns
    if columns >= 40:
        assert "12 of 40 windows" in row(working(stage), NOW, columns=columns).plain


def test_the_whole_tells_its_time_left_when_every_estimate_is_known() -> None:
    terminal = Emulated(80)
    with progress(terminal.console()) as listener:
        listener(expected("fix", 1.0, measure=100.0, publish=20.0))
        listener(started("fix"))
        listener(done("fix"))
        listener(expected("measure", 100.0, publish=20.0))
        listener(started("measure"))
        eventually(lambda: "measure  0 s of about 1 min 40 s" in terminal.shown()[-2])
        assert terminal.shown()[-1] == "  1 of 3 stages finished in 0 s, about 2 min left"
        listener(done("measure"))
        listener(expected("publish", None))
        listener(started("publish one"))
        eventually(lambda: terminal.shown()[-1] == "  2 of 3 stages finished in 0 s")


def expected(stage: str, estimate: float | None, **coming: float) -> Event:
    return Event(stage=stage, state="expected", estimate=estimate, coming=coming)


def test_many_threads_may_tell() -> None:
    terminal = Emulated(80)
    with progress(terminal.console()) as listener:
        threads = [threading.Thread(target=tell, args=(listener, f"stage {number}")) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
            assert not thread.is_alive()
        assert listener.board.at_work == ()
    assert sorted(terminal.shown()) == sorted([*(f"✓     1.2 s  stage {number}" for number in range(6)), terminal.shown()[-1]])


def tell(listener: Watch, stage: str) -> None:
    listener(started(stage))
    for count in range(30):
        listener(progressed(stage, count))
    listener(done(stage))
