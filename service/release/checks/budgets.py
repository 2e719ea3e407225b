"""Check: every planned variant can be as small as its budget wants it, whatever its mix."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from config.errors import ConfigurationError
from config.plans import Budget, Nf4Budget, Profile, Rules
from service.release.checks import smallest
from service.release.checks.smallest import Model
from service.release.graph import Check
from service.release.kinds import kind_of

if TYPE_CHECKING:
    from service.release.prospect import Prospect


def impossible(prospect: "Prospect") -> Iterator[str]:
    """A sentence for each planned variant whose budget no mix can keep."""
    variants = [variant for variant in prospect.recipe.variants.listed() if variant.planned]
    model = smallest.of_safetensors(prospect.shapes, prospect.config) if variants else None
    for variant in variants:
        how = kind_of(variant).planned
        if model is not None and how is not None and (sentence := how.too_small(prospect, variant, model)) is not None:
            yield f"The variant {variant.tag} cannot be built: {sentence}"


def too_small(budget: Budget, model: Model, *, profile: Profile, rules: Rules) -> str | None:
    """Why no GGUF file of the model keeps to the budget, and what to do; None when one may."""
    try:
        room, least = smallest.most(budget, model), smallest.least(model, rules.within(profile))
    except ConfigurationError as error:
        return str(error)
    if room is None or least.bytes <= room:
        return None
    where = "" if profile == "any" else f", the smallest that the profile {profile} allows"
    return (
        f"its budget{_in_words(budget)} leaves {_size(room)} for the weights, and in no mix are they smaller than {_size(least.bytes)} "
        f"({8 * least.bytes / model.parameters:.2f} bits per weight), mostly in {least.type}{where}. Raise the budget above that, or allow smaller types."
    )


def too_small_nf4(budget: Nf4Budget, model: Model) -> str | None:
    """Likewise of NF4 safetensors."""
    room, least = smallest.most_nf4(budget, model), smallest.least_nf4(model)
    if room is None or least.bytes <= room:
        return None
    return f"its budget is {_size(room)}, and plain NF4 has more than {_size(least.bytes)}. Raise it, or say by `above` how much more than that it may have."


def _in_words(budget: Budget) -> str:
    if budget.bytes is not None:
        return f" of {_size(budget.bytes)}"
    if budget.bpw is not None:
        return f" of {budget.bpw:g} bits per weight"
    return f" of {_size(budget.fit.memory)} with a cache of {budget.fit.context} tokens" if budget.fit else ""


def _size(count: int) -> str:
    """Bytes as a person writes them, and exactly where they are few."""
    for unit, base in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= base:
            return f"{count / base:.2f} {unit}"
    return f"{count} bytes"


CHECKS = (Check(name="budgets", stage="plan", look=impossible),)
