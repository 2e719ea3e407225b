"""Check: what the model reads beside text is told before anything is built, for GGUF files go without it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from builders import modalities
from config.words import Kind
from service.release.checks.problem import Remark
from service.release.graph import Check

if TYPE_CHECKING:
    from service.release.prospect import Prospect


def look(prospect: "Prospect") -> Iterator[str]:
    """A remark where GGUF files are wanted of a model that reads images or sound."""
    if any(variant.kind == Kind.GGUF for variant in prospect.recipe.variants.listed()) and (said := modalities.remark(prospect.config)) is not None:
        yield Remark(f"{said}.")


CHECKS = (Check(name="modalities", stage="convert", look=look),)
