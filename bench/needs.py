"""What a release is reckoned to need by model size, on this machine: `python -m bench.needs` prints the table that the README shows.

The default recipe, whole and `--quick`, for models of which the shapes are known. Nothing is downloaded or built: these are the estimates of a dry run, which
`python -m bench.estimate` holds against the truth for a model of 135M parameters. Above that nobody has.
"""

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi

from builders.snapshot import Upstream
from config import choice
from config.data import as_written
from config.recipe import Recipe, load_recipe
from config.settings import Settings
from config.words import Release
from service.machine.speed import Speed, speed
from service.release.forecast import Forecast, forecast
from service.release.prospect import Prospect
from service.release.way import way

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model's sizes, as its config.json gives them."""

    layers: int
    hidden: int
    wide: int
    vocabulary: int
    heads: int
    groups: int
    width: int  # of a head
    tied: bool = False

    @property
    def shapes(self) -> Shapes:
        """Of every tensor, by its name in the safetensors."""
        found: Shapes = {"model.embed_tokens.weight": (self.vocabulary, self.hidden), "model.norm.weight": (self.hidden,)}
        if not self.tied:
            found["lm_head.weight"] = (self.vocabulary, self.hidden)
        for layer in range(self.layers):
            at = f"model.layers.{layer}."
            found |= {f"{at}self_attn.{part}_proj.weight": (self.heads * self.width, self.hidden) for part in "q"}
            found |= {f"{at}self_attn.{part}_proj.weight": (self.groups * self.width, self.hidden) for part in "kv"}
            found[f"{at}self_attn.o_proj.weight"] = (self.hidden, self.heads * self.width)
            found |= {f"{at}mlp.{part}_proj.weight": (self.wide, self.hidden) for part in ("gate", "up")}
            found[f"{at}mlp.down_proj.weight"] = (self.hidden, self.wide)
            found |= {f"{at}{part}_layernorm.weight": (self.hidden,) for part in ("input", "post_attention")}
        return found

    @property
    def config(self) -> Mapping[str, int]:
        """What of config.json costs depend on."""
        return {
            "hidden_size": self.hidden, "intermediate_size": self.wide, "vocab_size": self.vocabulary, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.groups, "head_dim": self.width,
        }  # fmt: skip


MODELS = {
    "SmolLM2-135M": Model(layers=30, hidden=576, wide=1536, vocabulary=49_152, heads=9, groups=3, width=64, tied=True),
    "Llama-3.2-1B": Model(layers=16, hidden=2048, wide=8192, vocabulary=128_256, heads=32, groups=8, width=64, tied=True),
    "Qwen3-4B": Model(layers=36, hidden=2560, wide=9728, vocabulary=151_936, heads=32, groups=8, width=128, tied=True),
    "Llama-3.1-8B": Model(layers=32, hidden=4096, wide=14_336, vocabulary=128_256, heads=32, groups=8, width=128),
    "Qwen3-32B": Model(layers=64, hidden=5120, wide=25_600, vocabulary=151_936, heads=64, groups=8, width=128),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.needs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--variants", help="only these variants of the default recipe, e.g. Q4_K_M,UD-Q4_K_XL")
    given = parser.parse_args()
    whole = load_recipe("default", locate=as_written)
    if given.variants:
        whole = choice.only(whole, given.variants.split(","))
    recipes = {"whole": whole, "--quick": choice.quick(whole)}
    print("| model | weights in 16 bits | memory | disk | time | with `--quick` |\n|---|--:|--:|--:|--:|--:|")
    with TemporaryDirectory(prefix="sluice-needs-") as folder:
        settings = Settings(home=Path(folder))
        here = speed(settings)
        for name in given.models:
            found = {label: needed(settings, here, MODELS[name], recipe) for label, recipe in recipes.items()}
            weights = 2 * sum(math.prod(shape) for shape in MODELS[name].shapes.values())
            times = " | ".join(hours(item.seconds) for item in found.values())
            print(f"| {name} | {weights / 1e9:.1f} GB | {found['whole'].memory / 1e9:.0f} GB | {found['whole'].disk / 1e9:.0f} GB | {times} |")


def needed(settings: Settings, here: Speed, model: Model, recipe: Recipe) -> Forecast:
    """What a release of the model takes on this machine."""
    weights = 2 * sum(math.prod(shape) for shape in model.shapes.values())
    ahead = Prospect(
        settings=settings,
        api=HfApi(),
        recipe=recipe,
        upstream=Upstream(release=Release(repo="upstream/model", sha="0" * 40), private=False, gated=False),
        sizes={"model.safetensors": weights, "config.json": 1000, "tokenizer.json": 70 * model.vocabulary},
        shapes=model.shapes,
        config=model.config,
        namespace="ours",
    )
    return forecast(way(recipe), ahead, here, {}, ())


def hours(seconds: float) -> str:
    """As a person tells a duration of that length."""
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 72 * 3600 else f"{seconds / 86_400:.0f} days"


if __name__ == "__main__":
    main()
