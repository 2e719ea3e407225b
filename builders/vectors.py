"""Tells models that turn texts into vectors, or rank them, and write none: architecture, weights and chat template are often those of a language model."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from config.words import Hold

MODULES = "modules.json"  # how sentence-transformers goes on with what the network computes: pooling, or the scores of two tokens
TAGS = frozenset({"feature-extraction", "sentence-similarity", "sentence-transformers"})  # the Hub's tasks of such models, and their library
RANKING = "text-ranking"  # the task of those that rank: some by the scores of two tokens (Qwen3-Reranker), some in words that they write (ReasonRank)


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


def ranks(task: str | None, repo: str) -> Iterator[Hold]:
    """What a person has to decide about a model of that task, which tells nobody whether it writes a text at all."""
    if task == RANKING:
        yield Hold(
            subject="ranking",
            reason=f"{repo} is tagged `{RANKING}`. All that is measured here is text that a model writes: of one that is read by the scores of its tokens, the "
            "gates say nothing. Approved, it is released as one that writes.",
        )
