"""What a run would do, need and refuse, before anything of the release is downloaded but headers: `sluice run --dry-run`."""

import shutil
from dataclasses import asdict, dataclass
from typing import Any

from builders import snapshot
from builders.rounding.sizes import foretold
from config.recipe import load_recipe
from config.settings import Settings
from config.words import Release
from service.hubclient import connect
from service.release.sizes import PlannedVariant, built_before, size_of
from service.store import open_store


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one run would do."""

    release: Release
    recipe: str
    license: str | None
    download_bytes: int
    variants: tuple[PlannedVariant, ...]
    disk_needed: int  # download, 16-bit GGUF, all variants, and what rounding planned ones takes, at once
    disk_free: int

    def as_json(self) -> dict[str, Any]:
        """The plan as a JSON document."""
        return asdict(self) | {"enough_disk": self.disk_needed <= self.disk_free}


def plan(settings: Settings, repo: str, revision: str, recipe_name: str) -> Plan:
    """Ask the Hub what the release holds, and size every variant. Raises SluiceError as a run would."""
    recipe = load_recipe(recipe_name)
    api = connect(settings)
    upstream = snapshot.resolve(api, repo, revision)
    sizes = snapshot.sizes(api, upstream.release)
    weights = sum(size for path, size in sizes.items() if path.endswith(".safetensors"))
    known = built_before(open_store(settings.database), upstream.release)
    planned = recipe.variants.planned
    variants = tuple(size_of(variant, weights, known, planned.get(variant.tag)) for variant in recipe.variants.listed())
    # what is built to be compared with, and not published
    yardsticks = sum(size_of(variant, weights, known).bytes for variant in recipe.variants.yardsticks)
    anew = {entry.tag for entry in recipe.variants.dynamic if entry.rounding}  # their files are there twice, as llama-quantize rounds them and anew
    rounding = sum(variant.bytes for variant in variants if variant.tag in anew) + (foretold(snapshot.shapes(api, upstream.release, sizes)) if anew else 0)
    settings.folder.mkdir(parents=True, exist_ok=True)
    sixteen_bit_gguf = 0 if "BF16" in recipe.variants.gguf else weights
    return Plan(
        release=upstream.release,
        recipe=recipe.name,
        license=upstream.license,
        download_bytes=sum(sizes.values()),
        variants=variants,
        # the fixed model shares its weights with the download
        disk_needed=sum(sizes.values()) + sixteen_bit_gguf + yardsticks + rounding + sum(variant.bytes for variant in variants if variant.tag != "16bit"),
        disk_free=shutil.disk_usage(settings.folder).free,
    )
