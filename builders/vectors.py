"""Tells models that turn texts into vectors, or rank them, and write none: architecture, weights and chat template are often those of a language model."""

from collections.abc import Collection, Mapping
from typing import Any

MODULES = "modules.json"  # how sentence-transformers goes on with what the network computes: pooling, or the scores of two tokens
TAGS = frozenset({"feature-extraction", "sentence-similarity", "text-ranking", "sentence-transformers"})  # the Hub's tasks of such models, and their library


def refusal(listed: Collection[str], card: Mapping[str, Any], where: str) -> str | None:
    """What is said of a model whose files are those `listed` where it is such a one, by them or by task and library in its card; None of a language model.

    What the Hub makes of an architecture by itself is no such word: it calls a language model that was saved without its class `feature-extraction`.
    """
    tag = next((tag for name in ("pipeline_tag", "library_name") if (tag := str(card.get(name))) in TAGS), None)
    if MODULES in listed:
        shown, remedy = f"it has {MODULES} of sentence-transformers", f"leave {MODULES} out of a copy in a folder, and release that"
    elif tag is not None:
        shown, remedy = f"it is tagged `{tag}`", "have the tag corrected, in a copy in a folder for instance"
    else:
        return None
    return (
        f"{where} is no language model but one that turns texts into vectors or ranks them: {shown}. All that is measured here is text that a model writes. "
        f"Name the language model that it was made from; or, where it is one all the same, {remedy}."
    )
