"""Write `.eval_results/mmlu.yaml`, by which the Hub shows on a model's page, and on a benchmark's leaderboard, what was measured.

The Hub knows a benchmark by its data set and a task of that. An entry names one figure; what else must be known of it stands in its note: which file it is of,
and how the questions were asked. There is no date, so that equal figures give equal bytes: the Hub takes that of the commit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from config.words import Measurement


@dataclass(frozen=True, kw_only=True)
class Result:
    """The accuracy of one published file on all test questions of a benchmark's task."""

    dataset: str  # "owner/name" of a data set on the Hub
    revision: str  # 40 hex digits
    task: str
    file: str  # in the repo
    accuracy: Measurement  # a share of its `n` questions
    asked: str  # how: "5-shot, hendrycks prompt"
    source: str | None  # address of the card; None where the repo has no lasting one


def render(results: Sequence[Result]) -> bytes:
    """The file with these results in their order; empty where there are none."""
    entries = [_entry(result) for result in results]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True, width=10**6).encode() if entries else b""


def _entry(result: Result) -> EvalResultEntry:
    accuracy = result.accuracy
    error = "" if accuracy.stderr is None else f", standard error {100 * accuracy.stderr:.2f}"
    return EvalResultEntry(
        dataset_id=result.dataset,
        task_id=result.task,
        dataset_revision=result.revision,
        value=round(100 * accuracy.value, 2),  # percent, as in the Hub's own examples
        source_url=result.source,
        source_name=None if result.source is None else "Model card",
        notes=f"{result.file}: {result.asked}, {accuracy.n:,} questions{error}",
    )
