"""What every command shares: settings, consoles, exit codes, and how errors reach a person."""

import errno
import json
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from config.errors import ConfigurationError, SluiceError
from service.cli.writing import plain, takes_all
from service.execution import words
from service.logs import redact

if TYPE_CHECKING:
    from config.settings import Settings
    from service.operations import Operations

IMPATIENCE = 3.0  # seconds within which a second signal is taken for the first
REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST})  # what a system says of places, not of programs
RESUME = "start the same command again and it goes on where it was"


class Exit(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    BLOCKED = 3  # at least one variant was blocked by a gate
    HELD = 4  # the release waits for a person's decision


def program(config: Path | None) -> list[str]:
    """How the command is called again under the same settings file."""
    return ["sluice", *([] if config is None else ["--config", str(config)])]


class Paper(Console):
    """A console that writes plain characters where its encoding knows no others, so that what is laid out in columns stays so."""

    def render_str(self, text: str, *args: Any, **kwargs: Any) -> Text:
        """Markup as text."""
        return super().render_str(text if takes_all(self.file) else plain(text, self.encoding), *args, **kwargs)


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """Where results and progress go. With `--json` standard output holds one JSON document and nothing else."""

    out: Console
    err: Console
    as_json: bool

    @classmethod
    def open(cls, *, as_json: bool) -> "Terminal":
        """Results on standard output; progress there too, unless a program reads it."""
        # a pipe or a CI log has no width of its own; 80 columns would fold the result table beyond reading
        width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
        out = Paper(width=width, highlight=False)
        return cls(out=out, err=Paper(stderr=True, width=width, highlight=False), as_json=as_json)

    @property
    def progress(self) -> Console:
        """Where progress goes."""
        return self.err if self.as_json else self.out

    def json(self, document: Any) -> None:
        """Print a JSON document on standard output."""
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=not takes_all(sys.stdout)) + "\n")
        sys.stdout.flush()

    def json_line(self, document: Any) -> None:
        """Print a JSON document as one line on standard output."""
        sys.stdout.write(json.dumps(document, ensure_ascii=not takes_all(sys.stdout)) + "\n")
        sys.stdout.flush()


@contextmanager
def explained(*, resume: str = RESUME, signals: bool = True) -> Iterator[None]:
    """Turn an expected error into one paragraph on standard error and an exit code, and Ctrl-C into one line that ends with how to `resume`.

    With `signals`, SIGTERM and SIGHUP are like Ctrl-C: by default they would end this process at once and leave what it started behind.
    """
    try:
        with _interrupting() if signals else nullcontext():
            yield
    except ConfigurationError as error:
        _say(error)
        raise typer.Exit(Exit.USAGE) from error
    except SluiceError as error:
        _say(error)
        raise typer.Exit(Exit.FAILED) from error
    except KeyboardInterrupt as error:
        where = f" at {error}" if str(error) else ""
        with suppress(OSError):  # after SIGHUP there may be no terminal any more
            console = Paper(stderr=True, highlight=False)
            console.print(f"interrupted{where}; {resume}", markup=False, soft_wrap=not console.is_terminal)
        raise typer.Exit(Exit.FAILED) from error
    except Exception as error:
        if (told := _unwritten(error)) is None:
            raise
        _say(SluiceError(told))
        raise typer.Exit(Exit.FAILED) from error


def _unwritten(error: Exception) -> str | None:
    """What to say when disk or database do not take what is to be written; None of every other error."""
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.exc import TimeoutError as NoConnection

    if isinstance(error, OSError) and words.out_of_space(error):
        return f"{error}. Free some space, then {RESUME}."
    if isinstance(error, OSError) and error.errno in REFUSED and error.filename is not None:
        place = "`home` in the settings, or the option that names this one, says where"
        return f"Nothing can be written or read at {error.filename}: {error.strerror}. Use a folder where you may write; {place}. Then {RESUME}."
    if isinstance(error, DBAPIError | NoConnection):
        said = error.orig if isinstance(error, DBAPIError) else error
        return f"The database does not take what is to be written, or does not answer: {said}. Look at its disk and at `database_url`, then {RESUME}."
    return None


@contextmanager
def _interrupting() -> Iterator[None]:
    """Raise KeyboardInterrupt in the main thread at any of these signals, but not at one that follows at once: it would break off what the first set going."""
    last = -math.inf

    def interrupt(_number: int, _frame: object) -> None:
        nonlocal last
        if time.monotonic() - last > IMPATIENCE:
            last = time.monotonic()
            raise KeyboardInterrupt

    # what is ignored stays so, or nohup would be in vain
    wanted = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) not in {signal.SIG_IGN, None}]
    before = {number: signal.signal(number, interrupt) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(error: SluiceError) -> None:
    Paper(stderr=True, highlight=False).print("[bold red]error:[/] ", end="")
    sys.stderr.write(redact(str(error)) + "\n")


def settings_of(context: typer.Context) -> "Settings":
    """Settings for what works on this machine, from the file named by `--config`, or the usual places.

    Raises ConfigurationError where they name a service elsewhere, which this command cannot work on.
    """
    found = settings_anywhere(context)
    if found.server is not None:
        raise ConfigurationError(
            f"`{context.command_path}` works on the machine that it is called on, and SLUICE_SERVER names the service at {found.server}: call it there, or "
            "here with SLUICE_SERVER unset."
        )
    return found


def settings_anywhere(context: typer.Context) -> "Settings":
    """Settings for what works on a service elsewhere as well."""
    from config.settings import load_settings

    path: Path | None = context.obj
    return load_settings(path)


def operations_of(context: typer.Context) -> "Operations":
    """What can be asked of this machine's database, or of the service that the settings name."""
    from service.operations import open_operations

    operations = open_operations(settings_anywhere(context))
    context.call_on_close(operations.close)
    return operations


def command_again(operations: "Operations", run_id: int, config: Path | None) -> str | None:
    """The command that carries the run out again, under the same settings file; None where a service elsewhere does so anyway."""
    words = operations.again(run_id)
    return None if words is None else shlex.join([*program(config), *words])


def goes_on(does: str, again: str | None) -> str:
    """Who goes on with a run that is queued: a service, which `does` that, or the command `again`; as markup."""
    return f"the service {does}" if again is None else f"a running service {does}, or [bold]{escape(again)}[/]"


def verdict_code(summary: dict[str, Any]) -> Exit:
    """The exit code that tells how a run ended; of one that has not, that nothing is wrong, unless it waits for the Hub."""
    if summary["state"] in {"failed", "interrupted", "cancelled", "superseded"} or (summary["state"] == "queued" and summary["error"]):
        return Exit.FAILED
    if summary["state"] in {"queued", "running", "paused"}:
        return Exit.DONE
    if summary["state"] == "held":
        return Exit.HELD
    return Exit.DONE if all(row["verdict"] == "passed" for row in summary["variants"]) else Exit.BLOCKED
