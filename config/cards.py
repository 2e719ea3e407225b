"""What a recipe decides about model cards."""

from typing import Literal, Self

from pydantic import model_validator

from config.strict import Strict


class Recommendation(Strict):
    """Which file a card recommends: the smallest published one whose figure keeps the bound with 95 % confidence, and of files of one size the closest."""

    measure: Literal["kld.mean", "kld.p99", "kld.p999", "same_top", "mmlu.accuracy", "mmlu.difference"] = "kld.mean"
    """The figure."""
    at_most: float | None = None
    """The figure may be no more than this."""
    at_least: float | None = None
    """The figure may be no less than this; give one of the two."""

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("give exactly one of `at_most` and `at_least`")
        return self


class CardRules(Strict):
    """What the recipe decides about model cards."""

    recommend: Recommendation | str | None = Recommendation(at_most=0.05)
    """A bound, or the tag of the variant to recommend; null: none is. The default ends where a card's word is "very good"."""
