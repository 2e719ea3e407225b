"""A variant's answers beside the 16-bit model's in a form that is short enough to keep, so that later variants can be compared question by question.

By subject a character for each of its questions in their order: a digit, or `.` where it was not asked. Of the digit's bits, 1 says that the variant chose
the right letter, 2 that the 16-bit model did, and 4 that the variant would if only the customary token of each letter counted.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from engines.model import Doubles
from qa.divergence import influence
from qa.mmlu.asking import Answer
from qa.mmlu.scores import paired

UNASKED = "."


def encode(reference: Sequence[Answer], variant: Sequence[Answer]) -> dict[str, str]:
    """The answers by subject. Raises MeasurementError when the two did not answer the same questions."""
    found: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for old, new in paired(reference, variant):
        found[new.subject][new.question] = str(new.correct + 2 * old.correct + 4 * (new.single == new.right))
    return {subject: "".join(digits.get(row, UNASKED) for row in range(max(digits) + 1)) for subject, digits in sorted(found.items())}


def aligned(one: Mapping[str, str], other: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Both with the same subjects and as many characters in each, so that what stands at one place is one question."""
    longest = {subject: max(len(one.get(subject, "")), len(other.get(subject, ""))) for subject in sorted(one.keys() | other.keys())}
    first, second = ({subject: side.get(subject, "").ljust(length, UNASKED) for subject, length in longest.items()} for side in (one, other))
    return first, second


def influences(answers: Mapping[str, str]) -> dict[str, Doubles]:
    """By how much each question (questions) moves each figure that is an average over questions, by its name; NaN where it was not asked."""
    codes = _codes("".join(answers.values()))
    asked = codes >= 0
    ours, theirs, single = (np.where(asked, (codes >> bit) & 1, np.nan) for bit in range(3))
    values = {"mmlu.accuracy": ours, "mmlu.single_letter": single, "mmlu.difference": ours - theirs, "flips.share": np.abs(ours - theirs)}
    found = {name: influence(value[:, None])[1] for name, value in values.items()}
    subjects = np.split(ours, np.cumsum([len(row) for row in answers.values()])[:-1])
    count = sum(not np.isnan(subject).all() for subject in subjects)
    alone = [influence(subject[:, None])[1] / count if not np.isnan(subject).all() else subject for subject in subjects]
    return found | {"mmlu.macro": np.concatenate(alone)}


def by_subject(answers: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """For each subject its questions, those that the variant and the 16-bit model answered rightly, and wins and losses of the variant."""
    found = {}
    for subject, row in answers.items():
        codes = _codes(row)[_codes(row) >= 0]
        ours, theirs = codes & 1, codes >> 1 & 1
        found[subject] = {
            "questions": len(codes),
            "right": int(ours.sum()),
            "reference": int(theirs.sum()),
            "wins": int((ours > theirs).sum()),
            "losses": int((ours < theirs).sum()),
        }
    return found


def _codes(row: str) -> npt.NDArray[np.int64]:
    """The digits (questions); negative where a question was not asked."""
    return np.frombuffer(row.encode(), dtype=np.uint8).astype(np.int64) - ord("0")
