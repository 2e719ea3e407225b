"""The recipe of a run: kept whole when the run is queued, and read again from there, whatever its file says by then or whether it is there at all."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from config.data import Local, Reference, as_written, referring
from config.digests import content_digest
from config.errors import ConfigurationError
from config.recipe import Recipe
from config.settings import Settings
from config.written import Written, read_recipe
from service.release import datasets
from service.store import KeptRecipe, RunRecord, Store


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A recipe that is ready for a run, and how it is kept."""

    recipe: Recipe
    kept: KeptRecipe

    @property
    def sources(self) -> Sequence[Mapping[str, Any]]:
        """What its texts and questions were when it was chosen, see `datasets.sources`."""
        return self.kept.sources

    @property
    def digests(self) -> dict[Path, str]:
        """What they held then, by the paths at which stages read them."""
        return {path: item["sha256"] for (_, path), item in zip(datasets.used(self.recipe), self.kept.sources, strict=True)}


def choose(settings: Settings, name_or_path: str, api: HfApi) -> Chosen:
    """The recipe as its file says now, its data fetched. Raises ConfigurationError, UpstreamError, HubError."""
    written = read_recipe(name_or_path)
    recipe = datasets.ready(settings, written, api)
    as_kept = written.parsed(data=False, locate=lambda data: as_written(datasets.pinned(settings, data)))
    digest = cache(content_digest)  # of each file once
    kept = KeptRecipe(
        digest=recipe.digest(digest),
        content=referring(as_kept.model_dump(mode="json")),
        sources=tuple(datasets.sources(settings, recipe, digest)),
    )
    return Chosen(recipe=recipe, kept=kept)


def of_run(store: Store, run: RunRecord, settings: Settings, api: HfApi) -> Chosen:
    """The recipe that the run was queued with, and what its data were.

    Raises HubError when data of the Hub are neither here nor to be had; of a run that an older version queued, which kept no recipes, ConfigurationError when
    file or data say otherwise by now.
    """
    kept = store.recipe(run.recipe_digest)
    if kept is not None:
        return _read(settings, run, kept, api)
    found = choose(settings, run.recipe, api)
    if found.kept.digest != run.recipe_digest:
        raise ConfigurationError(
            f"The recipe {run.recipe} or its data changed after run {run.id} was queued, by a version of Sluice that did not keep recipes. "
            f"Start a new run of {run.release.repo} with it."
        )
    store.keep_recipe(found.kept)
    return found


def _read(settings: Settings, run: RunRecord, kept: KeptRecipe, api: HfApi) -> Chosen:
    written = Written(content=kept.content, told=f"The recipe of run {run.id}", folder=settings.folder)
    places = {data: _place(settings, api, data) for data in written.named_data()}
    return Chosen(recipe=written.parsed(data=False, locate=places.__getitem__), kept=kept)


def _place(settings: Settings, api: HfApi, data: Reference | Local) -> Path:
    """Where data lie, or where those of the operator lay: they may be gone, and are missed only by a stage that has to read them."""
    if isinstance(data, Reference):
        return datasets.place(settings, api, data)
    with suppress(ConfigurationError):
        return datasets.place(settings, api, data)
    return data.path
