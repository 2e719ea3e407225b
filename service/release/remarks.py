"""What a card tells of a release that is no fault, and good to know."""

from collections import Counter
from collections.abc import Iterator, Sequence

from builders import predicting
from builders.weights import read_header, weight_files
from publishers.card import Row
from service.release import functions
from service.release.work import Work

REMARKS = (
    "template.remarks",
    "sanity.loops",
    "parity.known",
    "parity.departures",
    "tokenizer.departures",
    "metadata.lacking",
    "long.known",
    "long.unseen",
    "imatrix.unreached",
    "imatrix.unused",
    "conversations.adapted",
    "conversations.skipped",
)
"""Measurements whose details are told."""


def remarks(work: Work) -> tuple[str, ...]:
    """What is known of the release's family and was found of itself that is no fault, but good to know."""
    measured, notes = work.measured, work.output("fix").result["notes"]
    found = (detail for name in REMARKS if name in measured and measured[name].inapplicable is None for detail in measured[name].details)
    return tuple(f"{' '.join(remark.split()).rstrip('.')}." for remark in (*notes, *found, *_left_out(work)))


def older_version(rows: Sequence[Row]) -> Iterator[str]:
    """What an older version of their engine does with variants and says so, which deceives nobody: each sentence once, and of how many."""
    found = [row.measurements["older.failures"] for row in rows if "older.failures" in row.measurements]
    said = Counter(line.rstrip(".") for item in found if item.inapplicable is None for line in item.details)
    yield from (f"{line}{'' if count == len(rows) else f' ({count} of {len(rows)} variants)'}." for line, count in said.items())


def _left_out(work: Work) -> Iterator[str]:
    """That no GGUF file has the model's layers for multi-token prediction, where the recipe wants it so and there are some."""
    if work.recipe.variants.multi_token_prediction:
        return
    fixed = work.output("fix")
    names = [tensor.name for file in weight_files(fixed.whole.path) for tensor in read_header(file)]
    if predicting.found(names, functions.configuration(fixed)):
        yield "The upstream's layers for multi-token prediction (NextN) are left out of every GGUF file: llama.cpp runs them only to draft"
