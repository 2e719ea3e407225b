"""`python -m hub --root DIR`: serve a Hub, printing its address."""

import argparse
import logging
import sys
from pathlib import Path

from hub.errors import RootError
from hub.server import serve


def main() -> int:
    """Serve until told to stop; the exit status is 1 when the root or the address cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m hub", description="Serve an embedded Hub on a folder until SIGTERM or Ctrl-C.")
    parser.add_argument("--root", type=Path, required=True, help="the folder that holds everything; made if missing")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=0, help="the port to listen on (default: a free one)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        serve(arguments.root, host=arguments.host, port=arguments.port, ready=_say)
    except RootError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _say(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
