"""Recipes apart from any run: those that are known by name, whether a text is one, and what a changed one would build anew."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi
from pydantic import BaseModel, ValidationError

from builders.snapshot import Upstream
from config.data import Local, Reference, as_written, referring
from config.errors import ConfigurationError, SluiceError
from config.files import faults, where_broken
from config.near import hint
from config.recipe import Recipe
from config.settings import Settings
from config.written import RECIPES, Written, read_recipe
from service.execution.kept import Input, StageStore
from service.execution.looking import NotKept
from service.release import datasets
from service.release.checks import gates
from service.release.checks.problem import Remark
from service.release.checks.watch import fault
from service.release.reuse import LookingJob, kept
from service.release.route import Route
from service.release.way import way
from service.release.work import Work
from service.store import RunRecord, Store


class UnknownRecipe(SluiceError):
    """No recipe has that name."""


class RecipeFault(BaseModel):
    """Something that is wrong with a recipe."""

    place: str
    """A key, as `gates.0.at_most`; of what is no YAML line and column."""
    message: str


class RecipeHead(BaseModel):
    """A recipe in the list of recipes."""

    name: str
    error: str | None
    """Why it cannot be used as it is; null when it can."""
    variants: list[str]
    """Tags of what it builds; empty where it cannot be read."""


class RecipeView(RecipeHead):
    """A recipe as it is written, and all that it comes to."""

    text: str
    content: dict[str, Any] | None
    """With everything that it leaves out; null where it cannot be read."""


class RecipeCheck(BaseModel):
    """Whether a text is a recipe."""

    valid: bool
    errors: list[RecipeFault]
    content: dict[str, Any] | None
    """All that it says, with everything that it leaves out; null where it is none."""


class PreviewedStage(BaseModel):
    """A stage of a recipe, and whether it would be done anew."""

    name: str
    does: str
    reused: bool
    """What it makes is kept already."""
    before: bool
    """The run's own recipe has it, too."""


class RecipePreview(BaseModel):
    """What a recipe would do for the release of a run."""

    run: int
    repo: str
    sha: str
    recipe: str
    stages: list[PreviewedStage]
    gone: list[str]
    """Stages of the run's own recipe that this one has not."""
    missing: list[str]
    """Data that are not on this machine: the stages that read them count as to be done anew."""


def known() -> list[RecipeHead]:
    """The recipes that are known by name."""
    return [RecipeHead(name=path.stem, error=fault(path.stem), variants=_variants(path.stem)) for path in sorted(RECIPES.glob("*.yaml"))]


def known_recipe(name: str) -> RecipeView:
    """The recipe of that name. Raises UnknownRecipe."""
    _refuse_unknown(name)
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    return RecipeView(name=name, error=fault(name), variants=_variants(name), text=text, content=checked(text).content)


def written(name: str) -> Written:
    """The recipe of that name, to be parsed. Raises UnknownRecipe, ConfigurationError."""
    _refuse_unknown(name)
    return read_recipe(name)


def _refuse_unknown(name: str) -> None:
    names = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    if name not in names:
        raise UnknownRecipe(f"There is no recipe named {name!r}.{hint(name, names)} Known names: {', '.join(names) or 'none'}.")


def _variants(name: str) -> list[str]:
    try:
        found = read_recipe(name).parsed(data=False, locate=as_written)
    except ConfigurationError:
        return []
    return [variant.tag for variant in found.variants.listed()]


# ---- a text ------------------------------------------------------------------------------------------------------------------------------------


def checked(text: str, folder: Path = Path("/")) -> RecipeCheck:
    """What is wrong with a recipe's text, place by place, or all that it comes to; whether its data are there is not looked at. Paths are of `folder`."""
    content, errors = _loaded(text)
    if errors:
        return RecipeCheck(valid=False, errors=errors, content=None)
    try:
        recipe = Recipe.model_validate(content, context={"folder": folder, "data": False, "locate": as_written})
    except ValidationError as error:
        return RecipeCheck(valid=False, errors=[RecipeFault(place=where, message=what) for where, what in faults(error, Recipe)], content=None)
    try:
        errors = [RecipeFault(place="gates", message=said) for said in gates.wrong(recipe, gates.measured(way(recipe))) if not isinstance(said, Remark)]
    except SluiceError as error:
        errors = [RecipeFault(place="variants", message=str(error))]
    return RecipeCheck(valid=not errors, errors=errors, content=None if errors else referring(recipe.model_dump(mode="json")))


def _loaded(text: str) -> tuple[Mapping[str, Any], list[RecipeFault]]:
    """The mapping that the text holds, or what is wrong with it. Aliases are refused: a short text of them stands for a long one."""
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            return {}, [RecipeFault(place="file", message="it uses an alias (*name), which is read from files alone; write out what it stands for")]
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where, what = where_broken(error)
        return {}, [RecipeFault(place=where or "file", message=f"it is not valid YAML: {what}")]
    except (RecursionError, ValueError, OverflowError) as error:  # what YAML's own dates and numbers cannot be
        return {}, [RecipeFault(place="file", message=f"it cannot be read: {error}")]
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        return {}, [RecipeFault(place="file", message="it must hold a mapping (key: value lines)")]
    return content, []


def from_text(text: str, folder: Path = Path("/")) -> Written:
    """The text as a recipe that can be parsed. Raises ConfigurationError with everything that is wrong with it."""
    found = checked(text, folder)
    if not found.valid:
        raise ConfigurationError(f"The text is not a valid recipe: {'; '.join(f'{item.place}: {item.message}' for item in found.errors)}.")
    return Written(content=_loaded(text)[0], told="The text", folder=folder)


# ---- what it would do --------------------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Job(LookingJob):
    """Takes data that are not there for something that nothing was made of yet."""

    def data(self, path: Path) -> Input:
        if path not in self.promised and not path.exists():
            raise NotKept(str(path))
        return super().data(path)


def preview(store: Store, settings: Settings, api: HfApi, run: RunRecord, written: Written) -> RecipePreview:
    """Which stages the recipe has for the run's release, and which of them would be done anew; nothing is made or fetched.

    Raises ConfigurationError when it is no recipe, UpstreamError and HubError when the release cannot be looked at.
    """
    missing: list[str] = []

    def locate(data: Reference | Local) -> Path:
        if isinstance(data, Local):
            found = data.path if data.path.exists() else None
        else:
            there = datasets.find(settings, data)
            found = None if there is None else there.located
        if found is None and str(data) not in missing:
            missing.append(str(data.path if isinstance(data, Local) else data))
        return found or as_written(data)

    recipe = written.parsed(data=False, locate=locate)
    route = Route(api=api, folder=run.folder, target=run.target)
    upstream = route.resolve(run.release.repo, run.release.sha)
    reused = _reused(store, settings, api, run, recipe, upstream)
    before = _stages_of(store, settings, run)
    graph = way(recipe)
    return RecipePreview(
        run=run.id,
        repo=run.release.repo,
        sha=run.release.sha,
        recipe=recipe.label,
        stages=[PreviewedStage(name=item.name, does=item.does, reused=item.name in reused, before=item.name in before) for item in graph.stages],
        gone=[name for name in before if all(item.name != name for item in graph.stages)],
        missing=list(dict.fromkeys(missing)),
    )


def _reused(store: Store, settings: Settings, api: HfApi, run: RunRecord, recipe: Recipe, upstream: Upstream) -> frozenset[str]:
    stages = StageStore(settings.folder, reading=True)
    job = _Job(store=store, run=run, recipe=recipe, settings=settings, stages=stages)
    return kept(Work(job=job, api=api, graph=way(recipe), products={"upstream": upstream}), job)


def _stages_of(store: Store, settings: Settings, run: RunRecord) -> list[str]:
    """Names of the stages of the run's own recipe; none where an older version kept no recipe."""
    own = store.recipe(run.recipe_digest)
    if own is None:
        return []
    written = Written(content=own.content, told=f"The recipe of run {run.id}", folder=settings.folder)
    return [stage.name for stage in way(written.parsed(data=False, locate=as_written)).stages]


def foreign_data(written: Written, store: Store, run: RunRecord) -> Iterator[str]:
    """Files of this machine that the recipe names, and the run's own did not: who asks over a network learns nothing of them."""
    own = store.recipe(run.recipe_digest)
    known_before = set() if own is None else {str(item.path) for item in _local(Written(content=own.content, told="", folder=written.folder))}
    yield from (str(item.path) for item in _local(written) if str(item.path) not in known_before)


def _local(written: Written) -> list[Local]:
    return [item for item in written.named_data() if isinstance(item, Local)]
