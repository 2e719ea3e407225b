"""What answers are worth: accuracy over questions and over subjects, the paired difference to the 16-bit model with its exact test, and efficiency."""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from config.errors import MeasurementError
from config.recipe import ASKED
from config.words import Measurement
from qa.mmlu.asking import Answer

NAMES = ASKED  # first words of the measurements that rest on the answers
GUESSING = 25.0  # points that guessing earns on four choices


def accuracy(answers: Sequence[Answer], details: Sequence[str] = ()) -> Measurement:
    """mmlu.accuracy: the share of right answers over all questions (micro average).

    Its binomial standard error is computed with one more right and one more wrong answer: all right in a few questions must not look like certainty.
    """
    n, right = len(answers), sum(answer.correct for answer in answers)
    return Measurement(name="mmlu.accuracy", value=right / n, unit="share", stderr=_binomial_error(right, n), n=n, details=tuple(details))


def macro(answers: Sequence[Answer]) -> Measurement:
    """mmlu.macro: the mean of the subjects' accuracies.

    The standard error is that of a sample stratified by subject. The one more right and one more wrong answer are spread over the subjects by their size, so
    that with subjects of one size and accuracy it equals that of `accuracy`.
    """
    subjects = _by_subject(answers)
    shares, variances = [], []
    for found in subjects.values():
        n, right, extra = len(found), sum(answer.correct for answer in found), len(found) / len(answers)
        likely = (right + extra) / (n + 2 * extra)
        shares.append(right / n)
        variances.append(likely * (1 - likely) / n)
    error = math.sqrt(sum(variances)) / len(subjects)
    detail = f"mean over {len(subjects)} subjects"
    return Measurement(name="mmlu.macro", value=sum(shares) / len(shares), unit="share", stderr=error, n=len(answers), details=(detail,))


def single_letter(answers: Sequence[Answer]) -> Measurement:
    """mmlu.single_letter: the accuracy if only the customary token of each letter counted, for instance ` A` after `Answer:`, instead of both."""
    n, right, both = len(answers), sum(answer.single == answer.right for answer in answers), sum(answer.correct for answer in answers)
    changed = sum(answer.single != answer.chosen for answer in answers)
    detail = f"counting both tokens of each letter changes the score by {100 * (both - right) / n:+.2f} points and the choice in {changed} of {n} questions"
    return Measurement(name="mmlu.single_letter", value=right / n, unit="share", stderr=_binomial_error(right, n), n=n, details=(detail,))


def against(reference: Sequence[Answer], variant: Sequence[Answer]) -> list[Measurement]:
    """The variant's answers paired with the 16-bit model's: mmlu.difference, flips, flips.share, mmlu.wins, mmlu.losses and mmlu.mcnemar_p.

    The difference is variant - reference, with the standard error of paired differences, one more flip either way counted as in `accuracy`.
    A flip is an answer that turned from right to wrong (a loss) or from wrong to right (a win) ("Accuracy is Not All You Need", arXiv 2407.09141); a wrong
    answer that became another wrong one is counted in the details only. Their share has the same kind of error as `accuracy`.
    Raises MeasurementError when the two did not answer the same questions.
    """
    pairs = paired(reference, variant)
    n = len(pairs)
    changes = np.array([new.correct - old.correct for old, new in pairs])
    error = float(np.append(changes, (-1, 1)).std() / math.sqrt(n))
    lost, won = int((changes < 0).sum()), int((changes > 0).sum())
    changed = sum(old.chosen != new.chosen for old, new in pairs)
    detail = f"{lost} from right to wrong, {won} from wrong to right; {changed} of {n} answers changed at all"
    return [
        Measurement(name="mmlu.difference", value=float(changes.mean()), unit="share", stderr=error, n=n),
        Measurement(name="flips", value=lost + won, unit="count", n=n, details=(detail,)),
        Measurement(name="flips.share", value=(lost + won) / n, unit="share", stderr=_binomial_error(lost + won, n), n=n),
        Measurement(name="mmlu.wins", value=won, unit="count", n=n),
        Measurement(name="mmlu.losses", value=lost, unit="count", n=n),
        Measurement(name="mmlu.mcnemar_p", value=mcnemar(won, lost), unit="probability", n=won + lost),
    ]


def mcnemar(won: int, lost: int) -> float:
    """The exact two-sided p-value of McNemar's test: how likely wins and losses as unequal as these are when either is as likely as the other.

    Twice the binomial tail of the rarer one, at most 1; without a flip 1. Computed in whole numbers up to the last division.
    """
    flips = won + lost
    tail = sum(math.comb(flips, k) for k in range(min(won, lost) + 1))
    return float(min(1.0, 2 * tail / 2**flips))


def efficiency(share: Measurement, size: int) -> Measurement:
    """(MMLU score - 25) / disk GB, with the score in points of 100 and `size` in bytes; 25 is what guessing earns."""
    gigabytes = size / 1e9
    error = None if share.stderr is None else 100 * share.stderr / gigabytes
    return Measurement(name="efficiency", value=(100 * share.value - GUESSING) / gigabytes, unit="points/GB", stderr=error, n=share.n)


def _binomial_error(right: int, n: int) -> float:
    likely = (right + 1) / (n + 2)
    return math.sqrt(likely * (1 - likely) / n)


def _by_subject(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    found: defaultdict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        found[answer.subject].append(answer)
    return dict(sorted(found.items()))


def paired(reference: Sequence[Answer], variant: Sequence[Answer]) -> list[tuple[Answer, Answer]]:
    """Each question's two answers, the 16-bit model's first. Raises MeasurementError when the two did not answer the same questions."""
    before = {(answer.subject, answer.question): answer for answer in reference}
    after = {(answer.subject, answer.question): answer for answer in variant}
    if before.keys() != after.keys():
        raise MeasurementError(f"The variant answered {len(after)} questions and the 16-bit model {len(before)} others, so their answers cannot be paired.")
    return [(before[key], after[key]) for key in before]
