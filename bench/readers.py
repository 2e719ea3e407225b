"""The readers' table: what people's programs make of what Sluice publishes: `python -m bench.readers`, or `make readers`.

Fetches the programs once, in pinned versions and into folders of their own; releases the bundled model by the demo's recipe and makes stock files of
SmolLM2-135M-Instruct, or takes a folder that `sluice release … --to FOLDER` has left; puts the repos on an embedded Hub, and asks each program. What it has
read once a program is not asked again. One that cannot be fetched is named and left out.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.utils.tqdm import disable_progress_bars
from rich.console import Console
from rich.table import Table

from bench import program, stock
from bench.models.fetched import MODELS
from config.errors import SluiceError, ToolError
from config.words import MANIFEST
from engines import environments
from hub.server import running
from hub.tokens import create_token
from qa.readers import releases, table
from qa.readers.words import Outcome, Reader, Result, Variant

REAL = "SmolLM2-135M-Instruct"
SHOWN = 3  # tags that a cell names
RESULTS = {Result.SAME: "the same", Result.OTHER: "something else", Result.REFUSED: "refuses"}
"""Columns; what is not run, or breaks, is told below the table."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.readers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="folders that `sluice release … --to FOLDER` has left; when absent, releases are made for it")
    parser.add_argument("--models", nargs="*", choices=("demo", REAL), default=["demo", REAL], help="what to release where no folder is given")
    parser.add_argument("--fetched-only", action="store_true", help="fetch no programs")
    given = parser.parse_args()
    console = program.console()
    disable_progress_bars()
    constants.HF_HUB_DISABLE_XET = True  # the embedded Hub stores files by LFS
    if not given.fetched_only:
        fetch(console)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as made:
        try:
            for folder in given.folders or released(Path(made), given.models):
                show(console, folder)
        except SluiceError as error:
            raise SystemExit(str(error)) from error


def fetch(console: Console) -> None:
    """Install what readers need; what cannot be is said, and its reader is not run."""
    for environment in environments.ALL:
        try:
            environments.install(environment)
        except ToolError as error:
            console.print(f"not installed: {error}")


def released(made: Path, models: Sequence[str]) -> Iterator[Path]:
    """Folders with repos that are made for this."""
    for name in models:
        out = made / name
        if name == "demo":
            with _demo(made / "home") as api:
                _download(api, out)
        else:
            MODELS[name](made / "model")
            stock.make(made / "model", out, name)
        yield out


def show(console: Console, folder: Path, readers: Sequence[Reader] = table.READERS) -> None:
    """Print the table of a folder of repos, and below it what there is to say of each reader."""
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as root, running(Path(root)) as url:
        api = HfApi(endpoint=url, token=create_token(Path(root), user=releases.NAMESPACE))
        for repo in sorted(path for path in folder.iterdir() if (path / MANIFEST).is_file()):
            api.create_repo(f"{releases.NAMESPACE}/{repo.name}")
            api.upload_folder(repo_id=f"{releases.NAMESPACE}/{repo.name}", folder_path=repo)
        variants = releases.found(folder, hub=url)
        found = list(table.rows(variants, readers, heard=_heard))
    console.print(_printed(folder.name, variants, found))
    for row in found:
        for result in Result:
            if said := _grouped(row.of(result), result):
                console.print(f"  {row.reader.name}, {result.value}: {said}", soft_wrap=True)


def _heard(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _printed(name: str, variants: Sequence[Variant], rows: Sequence[table.Row]) -> Table:
    shown = Table(title=f"{name}: {len(variants)} variants", title_justify="left")
    for heading in ("reader", "version", *RESULTS.values()):
        shown.add_column(heading)
    for row in rows:
        cells = [_cell(row, result) for result in RESULTS]
        version = row.reader.version() if not row.of(Result.MISSING) else f"{row.reader.version()} (not run)"
        shown.add_row(row.reader.name, version, *cells)
    return shown


def _cell(row: table.Row, result: Result) -> str:
    tags = [variant.tag for variant, _ in row.of(result)]
    if len(tags) == len(row.outcomes) > 1:
        return f"all {len(tags)}"
    return f"{len(tags)}" if len(tags) > SHOWN else ", ".join(tags)


def _grouped(items: Sequence[tuple[Variant, Outcome]], result: Result) -> str:
    """What was said, each once, with the variants of which it was: what differs, and of what is the same only what is remarkable beside that."""
    words: dict[str, list[str]] = {}
    for variant, outcome in items:
        first, _, rest = outcome.words.partition("; ")
        if said := rest if result is Result.SAME else first:
            words.setdefault(said, []).append(variant.tag)
    return "; ".join(f"{_listed(tags, items)}: {said}" for said, tags in words.items())


def _listed(tags: Sequence[str], items: Sequence[tuple[Variant, Outcome]]) -> str:
    return "all" if len(tags) == len(items) > 1 else ", ".join(tags)


@contextmanager
def _demo(home: Path) -> Iterator[HfApi]:
    """The embedded Hub of the demo after its release."""
    from service import demo

    with demo.stage(home, fixes=True) as scene:
        demo.run(scene, lambda _event: None)
        yield HfApi(endpoint=scene.settings.hub_endpoint, token=scene.settings.token)


def _download(api: HfApi, out: Path) -> None:
    from service.demo import NAMESPACE

    for repo in api.list_models(author=NAMESPACE):
        api.snapshot_download(repo.id, local_dir=out / repo.id.partition("/")[2])


if __name__ == "__main__":
    main()
