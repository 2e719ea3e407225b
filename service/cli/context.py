"""What every command shares: settings, consoles, exit codes, and how errors reach a person."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from config.errors import ConfigurationError, SluiceError
from config.settings import Settings, load_settings
from service.logs import redact


class Exit(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    BLOCKED = 3  # at least one variant was blocked by a gate


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
        out = Console(width=width, highlight=False)
        return cls(out=out, err=Console(stderr=True, width=width, highlight=False), as_json=as_json)

    @property
    def progress(self) -> Console:
        """Where progress goes."""
        return self.err if self.as_json else self.out

    def json(self, document: Any) -> None:
        """Print a JSON document on standard output."""
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        sys.stdout.flush()


@contextmanager
def explained() -> Iterator[None]:
    """Turn an expected error into one paragraph on standard error and an exit code."""
    try:
        yield
    except ConfigurationError as error:
        _say(error)
        raise typer.Exit(Exit.USAGE) from error
    except SluiceError as error:
        _say(error)
        raise typer.Exit(Exit.FAILED) from error
    except KeyboardInterrupt as error:
        Console(stderr=True).print("interrupted; start the same command again and it goes on where it was")
        raise typer.Exit(Exit.FAILED) from error


def _say(error: SluiceError) -> None:
    Console(stderr=True, highlight=False).print("[bold red]error:[/] ", end="")
    sys.stderr.write(redact(str(error)) + "\n")


def settings_of(context: typer.Context) -> Settings:
    """Settings from the file named by `--config`, or the usual places."""
    path: Path | None = context.obj
    return load_settings(path)


def verdict_code(summary: dict[str, Any]) -> Exit:
    """The exit code that tells how a run ended."""
    if summary["state"] == "failed":
        return Exit.FAILED
    return Exit.DONE if all(row["verdict"] == "passed" for row in summary["variants"]) else Exit.BLOCKED
