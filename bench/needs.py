"""What a release is reckoned to need by model size, on this machine: `python -m bench.needs` prints the table that the README shows.

The default recipe, whole and `--quick`, for models of which the shapes are known. Nothing is downloaded or built: these are the estimates of a dry run, which
`python -m bench.estimate` holds against the truth for a model of 135M parameters. Above that nobody has.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from config import choice
from config.data import as_written
from config.settings import Settings
from config.written import load_recipe
from service.machine.speed import speed
from service.release.forecast import forecast
from service.release.shapes import MODELS, prospect
from service.release.way import way

SHOWN = ("SmolLM2-135M", "Llama-3.2-1B", "Qwen3-4B", "Llama-3.1-8B", "Qwen3-32B")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.needs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=list(SHOWN))
    parser.add_argument("--variants", help="only these variants of the default recipe, e.g. Q4_K_M,UD-Q4_K_XL")
    given = parser.parse_args()
    recipe = load_recipe("default", locate=as_written)
    if given.variants:
        recipe = choice.only(recipe, given.variants.split(","))
    print("| model | weights in 16 bits | memory | disk | time | with `--quick` |\n|---|--:|--:|--:|--:|--:|")
    with TemporaryDirectory(prefix="sluice-needs-") as folder:
        settings = Settings(home=Path(folder))
        here = speed(settings)
        for name in given.models:
            whole, quick = (prospect(MODELS[name], each, settings) for each in (recipe, choice.quick(recipe)))
            needs, less = (forecast(way(ahead.recipe), ahead, here, {}, ()) for ahead in (whole, quick))
            room = f"{whole.weights / 1e9:.1f} GB | {needs.memory / 1e9:.0f} GB | {needs.disk / 1e9:.0f} GB"
            print(f"| {name} | {room} | {hours(needs.seconds)} | {hours(less.seconds)} |")


def hours(seconds: float) -> str:
    """As a person tells a duration of that length."""
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 72 * 3600 else f"{seconds / 86_400:.0f} days"


if __name__ == "__main__":
    main()
