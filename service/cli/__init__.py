"""The `sluice` command."""

import sys

PYTHON = ((3, 11, 4), (3, 12))  # from the first up to the second


def main() -> None:
    """Entry point. In an installation that is too broken for the command itself, what is wrong is told with Python's own means."""
    if not PYTHON[0] <= sys.version_info[:3] < PYTHON[1]:
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(f"error: Sluice needs Python 3.11 (3.11.4 or newer), and this is {found}. Install it and run `make setup PYTHON=/path/to/python3.11`.")
    try:
        from service.cli.main import main as begin

        begin()  # a command imports what it needs when it is called
    except ImportError as error:
        from service.cli import rescue

        sys.exit(rescue.tell(error, sys.argv[1:]))


__all__ = ["main"]
