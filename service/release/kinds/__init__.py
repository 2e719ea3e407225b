"""The kinds of variants, one file each: how their files are made, in which engine they run, and what their repo holds.

A new kind is a file here, beside its word in `config.words.Kind`, its key in a recipe, its repo's name in `publishers.naming`, its size and times in
`service.release.costs`, and what the card says of it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from config.recipe import Recipe
from config.words import Kind, Variant
from publishers.hub import PublishFile
from service.execution.kept import Input, Output
from service.release.graph import FileOf, Stage, Whole
from service.release.products import Built
from service.release.work import Work


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What runs a variant, and which form of the 16-bit model it is compared with there."""

    name: str
    original: FileOf | Whole  # the 16-bit model in the form that the engine runs
    asked: str  # the stage in which that answers the first questions

    def model(self, output: Output) -> Input:
        """A variant's files in the form that the engine runs."""
        return output.file() if isinstance(self.original, FileOf) else output.whole


LLAMA_CPP = Engine(name="llama.cpp", original=FileOf(stage="convert"), asked="reference")
TRANSFORMERS = Engine(name="transformers", original=Whole(stage="fix"), asked="reference 16bit")


@dataclass(frozen=True, kw_only=True)
class VariantKind:
    """All that is particular to one kind of variants."""

    kind: Kind
    engine: Engine
    stages: Callable[[Recipe], Iterable[Stage]]  # that build its variants
    maker: Callable[[Recipe, Variant], str]  # the stage whose product is the variant's files
    content: Callable[[Work, Sequence[Built]], list[PublishFile]]  # of a repo of such variants, without card, licence and manifest


def kind_of(variant: Variant) -> VariantKind:
    """What is particular to a variant's kind."""
    return _all()[variant.kind]


def maker(recipe: Recipe, variant: Variant) -> str:
    """The stage whose product is the variant's files."""
    return kind_of(variant).maker(recipe, variant)


def stages(recipe: Recipe) -> Iterator[Stage]:
    """The stages that build all variants of a recipe, kind after kind: what needs no plan before what does."""
    for item in _all().values():
        yield from item.stages(recipe)


def every_variant(recipe: Recipe) -> tuple[Variant, ...]:
    """The variants of a recipe, and those that planned ones are only compared with."""
    return (*recipe.variants.listed(), *recipe.variants.yardsticks)


@cache
def _all() -> dict[Kind, VariantKind]:
    from service.release.kinds import bnb_4bit, gguf, sixteen_bit  # they need the records above

    return {item.kind: item for item in (gguf.GGUF, sixteen_bit.SIXTEEN_BIT, bnb_4bit.BNB_4BIT)}
