"""The picture in the README: what the terminal shows of a run, as SVG. `sluice demo --home DIR`, then `python -m bench.picture DIR/service OUT.svg`."""

import argparse
import io
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from config.settings import Settings
from service.cli.display import show_run
from service.runs.summary import summary
from service.store import open_store

# Rich's own, without the fonts that it would fetch: a picture may load nothing where it is shown
FORMAT = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.picture", description=__doc__)
    parser.add_argument("home", type=Path, help="the service's home, as DIR/service of a demo")
    parser.add_argument("out", type=Path)
    parser.add_argument("--run", type=int, default=1)
    given = parser.parse_args()
    store = open_store(Settings(home=given.home, database_url=None).database)
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True, highlight=False)
    found = summary(store, given.run)
    found["publications"] = [item | {"url": "…"} for item in found["publications"]]  # of a Hub that is gone
    show_run(console, found)
    console.save_svg(str(given.out), title="sluice demo", theme=MONOKAI, code_format=FORMAT, unique_id="demo")


if __name__ == "__main__":
    main()
