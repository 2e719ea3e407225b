"""What a run would build, and the disk it needs, before anything is downloaded: `sluice run --dry-run`."""

import shutil
from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from builders import snapshot
from builders.rounding.sizes import foretold
from config.recipe import Dynamic, DynamicNf4, load_recipe
from config.settings import Settings
from config.words import Kind, Release, Variant
from service.cli.display import megabytes
from service.hubclient import connect
from service.release.early import refuse_wrong
from service.runs.summary import summary
from service.store import Store, open_store

# Bits per weight of llama.cpp's stock mixes for Llama 3.1 8B, from tools/quantize/README.md and llama-quantize --help: other shapes differ by some per cent.
STOCK_BITS = {
    "BF16": 16.0, "F16": 16.0,
    "Q8_0": 8.5, "Q6_K": 6.56, "Q5_K_M": 5.7, "Q5_K_S": 5.57, "Q5_1": 6.04, "Q5_0": 5.57, "Q4_K_M": 4.89, "Q4_K_S": 4.67, "Q4_1": 5.11,
    "Q4_0": 4.64, "IQ4_NL": 4.68, "IQ4_XS": 4.46, "Q3_K_L": 4.3, "Q3_K_M": 4.0, "Q3_K_S": 3.64, "IQ3_M": 3.76, "IQ3_S": 3.66, "IQ3_XS": 3.5, "IQ3_XXS": 3.25,
    "Q2_K": 3.16, "Q2_K_S": 2.97, "IQ2_M": 2.93, "IQ2_S": 2.74, "IQ2_XS": 2.59, "IQ2_XXS": 2.38, "IQ1_M": 2.15, "IQ1_S": 2.0,
}  # fmt: skip
NF4_BITS = 4.5  # 4-bit weights, double-quantized block scales, 16-bit embeddings: grows as the model shrinks


@dataclass(frozen=True, kw_only=True)
class PlannedVariant:
    """A variant and its size."""

    tag: str
    bytes: int
    exact: bool  # known from an earlier build of the same release, or from the Hub's listing; else estimated


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
    refuse_wrong(open_store(settings.database), settings, api, recipe, upstream)
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


def built_before(store: Store, release: Release) -> dict[str, int]:
    """Sizes of the variants that earlier runs built from this release, by tag."""
    found: dict[str, int] = {}
    for run in store.runs(limit=100):
        if run.release == release:
            found |= {row["tag"]: row["bytes"] for row in summary(store, run.id)["variants"] if row["bytes"] is not None}
    return found


def size_of(variant: Variant, weights: int, known: dict[str, int], dynamic: Dynamic | DynamicNf4 | None = None) -> PlannedVariant:
    """A variant's bytes; `weights` are those of the 16-bit safetensors, and of a planned variant they are at most its budget."""
    if variant.tag in known:
        return PlannedVariant(tag=variant.tag, bytes=known[variant.tag], exact=True)
    if variant.kind is Kind.SIXTEEN_BIT:
        return PlannedVariant(tag=variant.tag, bytes=weights, exact=True)
    if dynamic is not None:
        return PlannedVariant(tag=variant.tag, bytes=_budget(dynamic, weights), exact=False)
    bits = NF4_BITS if variant.kind is Kind.BNB_4BIT else STOCK_BITS[variant.tag]
    return PlannedVariant(tag=variant.tag, bytes=round(weights * bits / 16), exact=False)


def _budget(dynamic: Dynamic | DynamicNf4, weights: int) -> int:
    """The most bytes that a planned variant may have; of a memory to fit into all of it, for the cache's share is not known before the model is."""
    if dynamic.bytes is not None:
        return min(dynamic.bytes, weights)
    if isinstance(dynamic, DynamicNf4):
        return min(weights, round(weights * (dynamic.bpw or NF4_BITS * (1 + (dynamic.above or 0.0))) / 16))
    if dynamic.fit is not None:
        return min(dynamic.fit.memory, weights)
    return round(weights * (STOCK_BITS[dynamic.like] if dynamic.like else dynamic.bpw or 16.0) / 16)


def table(planned: Plan) -> Table:
    """The plan for a person."""
    result = Table(
        title=f"{planned.release.repo} at {planned.release.sha[:12]} (licence: {escape(planned.license or 'not stated')}), recipe {escape(planned.recipe)}",
        title_justify="left",
        show_footer=True,
    )
    enough = "enough" if planned.disk_needed <= planned.disk_free else "[red]not enough[/]"
    result.add_column("variant", footer=f"download {megabytes(planned.download_bytes)}")
    result.add_column("size", justify="right", footer=f"disk needed {megabytes(planned.disk_needed)}")
    result.add_column("", footer=f"{megabytes(planned.disk_free)} free: {enough}")
    for variant in planned.variants:
        result.add_row(escape(variant.tag), megabytes(variant.bytes), "exact" if variant.exact else "estimate")
    return result
