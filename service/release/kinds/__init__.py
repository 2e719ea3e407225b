"""The kinds of variants, one file each: how their files are made, how large they become, in which engine they run, and what their repo holds.

A new kind is a file here that calls its record `KIND`: every module of this folder is read. A recipe names its variants under `variants.others`, by its word.
"""

import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

from builders.ggufs import Stored
from builders.names import predicts
from config.errors import ConfigurationError
from config.recipe import Recipe
from config.words import Variant
from publishers import naming
from publishers.card import Mix
from publishers.form import Form
from publishers.hub import PublishFile
from service.execution.kept import Input, Output
from service.release.graph import FileOf, Stage, Whole
from service.release.products import Built, Made
from service.release.work import Work

if TYPE_CHECKING:
    from service.release.checks.smallest import Model
    from service.release.prospect import Prospect


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What runs a variant, and which form of the 16-bit model it is compared with there."""

    name: str
    original: FileOf | Whole  # the 16-bit model in the form that the engine runs
    asked: str  # the stage in which that answers the first questions
    greedy: str  # the stage in which its greedy answers are read
    compares: tuple[str, ...]  # names of what is measured of the files themselves
    compared: str  # for a person: how
    older: str | None = None  # measurement that an older version of it makes of the files, where a gate is on it

    def model(self, output: Output) -> Input:
        """A variant's files in the form that the engine runs."""
        return output.file() if isinstance(self.original, FileOf) else output.whole

    @property
    def reference(self) -> FileOf | Whole:
        """The 16-bit model for a stage that compares predictions."""
        return replace(self.original, numbers=True) if isinstance(self.original, FileOf) else replace(self.original, chosen=predicts)

    def compared_with(self, output: Output) -> Input:
        """A variant's files for such a stage."""
        return output.file(numbers=True) if isinstance(self.original, FileOf) else output.part(predicts)


LLAMA_CPP = Engine(
    name="llama.cpp",
    original=FileOf(stage="convert"),
    asked="reference",
    greedy="greedy answers",
    compares=("file.failures", "weights.failures"),
    compared="compare the file with the 16-bit one",
)
TRANSFORMERS = Engine(
    name="transformers",
    original=Whole(stage="fix"),
    asked="reference 16bit",
    greedy="greedy answers 16bit",
    compares=("file.failures",),
    compared="check the files",
    older="older.failures",
)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """How planned variants of a kind are held against the stock ones of their size."""

    larger: bool  # than those: being as good is then not enough
    yardstick: Callable[[str], tuple[str, str]]  # what the stock one of that tag is called: in full, and short
    stand_in: Callable[[Work, Made, Made], Output]  # the stock one's files under the planned one's name
    stored: Callable[[Output], Mapping[str, Stored]]  # how each tensor of the files is stored, by name
    differences: Callable[[Mix, Mapping[str, Stored], Mapping[str, Stored]], Mix]  # with where the planned one spends its bytes otherwise
    too_small: Callable[["Prospect", Variant, "Model"], str | None]  # why no variant of the model keeps to the budget, in words


@dataclass(frozen=True, kw_only=True)
class VariantKind:
    """All that is particular to one kind of variants."""

    kind: str  # its word: see `config.words.Kind`
    place: int  # among the kinds, in the order in which they are built and published
    engine: Engine
    stages: Callable[[Recipe], Iterable[Stage]]  # that build its variants
    maker: Callable[[Recipe, Variant], str]  # the stage whose product is the variant's files
    content: Callable[[Work, Sequence[Built]], list[PublishFile]]  # of a repo of such variants, without card, licence and manifest
    holds: Callable[[str, Collection[Variant], Collection[str]], Callable[[str], bool]]  # see `service.release.paths.may_publish`
    form: Form  # what the card says of it whatever was measured
    repo: Callable[[Variant], str]  # the end of the name of the variant's repo
    bits: Callable[["Prospect", Variant], float]  # per weight, before it is built; of a planned variant at most its budget
    bytes: Callable[["Prospect", Variant], int] | None = None  # of its weights, where they are known better than by their bits
    slower: float = 1.0  # times as long as the 16-bit model in the same engine
    original: Callable[["Prospect", Variant], bool] = field(default=lambda prospect, variant: False)  # whether a variant is the 16-bit model itself
    planned: Planned | None = None


def kind_of(variant: Variant) -> VariantKind:
    """What is particular to a variant's kind. Raises ConfigurationError when no file here declares it."""
    found = every().get(variant.kind)
    if found is None:
        known = ", ".join(every())
        raise ConfigurationError(f"There is no kind of variants called {variant.kind}, of which the recipe wants {variant.tag}: there are {known}.")
    return found


def repo_of(variant: Variant, namespace: str, name: str) -> str:
    """The repo that holds this variant of the model `name`: "namespace/name-GGUF". Raises ConfigurationError when the Hub would not accept it."""
    return naming.repo_id(namespace, f"{name}{kind_of(variant).repo(variant)}")


def by_repo(variants: Iterable[Variant], namespace: str, name: str) -> dict[str, tuple[Variant, ...]]:
    """The variants of the model `name` by the repo that is theirs. Raises ConfigurationError."""
    found: dict[str, tuple[Variant, ...]] = {}
    for variant in variants:
        repo = repo_of(variant, namespace, name)
        found[repo] = (*found.get(repo, ()), variant)
    return found


def maker(recipe: Recipe, variant: Variant) -> str:
    """The stage whose product is the variant's files."""
    return kind_of(variant).maker(recipe, variant)


def asked_older(recipe: Recipe, variant: Variant) -> str | None:
    """What an older version of the variant's engine measures of it; None where no gate is on that."""
    measure = kind_of(variant).engine.older
    return measure if any(gate.measure == measure and gate.applies_to(variant) for gate in recipe.gates) else None


def stages(recipe: Recipe) -> Iterator[Stage]:
    """The stages that build all variants of a recipe, kind after kind: what needs no plan before what does."""
    for item in every().values():
        yield from item.stages(recipe)


def every_variant(recipe: Recipe) -> tuple[Variant, ...]:
    """The variants of a recipe, and those that planned ones are only compared with."""
    return (*recipe.variants.listed(), *recipe.variants.yardsticks)


@cache
def every() -> Mapping[str, VariantKind]:
    """All kinds by their words, in their order."""
    modules = sorted(item.name for item in pkgutil.iter_modules(__path__))  # which need the records above
    found: list[VariantKind] = [importlib.import_module(f"{__name__}.{module}").KIND for module in modules]
    return {item.kind: item for item in sorted(found, key=lambda item: item.place)}
