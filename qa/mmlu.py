"""Multiple-choice questions in the form of hendrycks/test (MMLU): prompts, answers by letter, accuracy, flips and efficiency.

The prompt is that repository's, word for word, with one difference that the common harnesses share: there are single spaces in the subject's name, where the
original writes two before it. Questions, choices and answers come from CSV files without a header. Both ways to write a letter as a token, `A` and ` A`,
count: their probabilities are added.
"""

import csv
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from config.errors import MeasurementError
from config.words import Measurement
from engines.model import Floats, Model

LETTERS = "ABCD"
ASK = "Answer:"
GUESSING = 25.0  # points that guessing earns on four choices


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question with its four choices and the letter of the right one."""

    text: str
    choices: tuple[str, ...]
    right: str

    def asked(self) -> str:
        """The question up to and including `Answer:`."""
        lines = [self.text, *(f"{letter}. {choice}" for letter, choice in zip(LETTERS, self.choices, strict=True)), ASK]
        return "\n".join(lines)

    def shown(self) -> str:
        """The question with its answer, as an example."""
        return f"{self.asked()} {self.right}\n\n"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Examples and test questions of one subject."""

    name: str  # as in the file's name: "world_capitals"
    examples: tuple[Question, ...]
    questions: tuple[Question, ...]

    def prompt(self, question: Question, shots: int) -> str:
        """The whole prompt with the first `shots` examples."""
        header = f"The following are multiple choice questions (with answers) about {self.name.replace('_', ' ')}.\n\n"
        return header + "".join(example.shown() for example in self.examples[:shots]) + question.asked()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model answered to one question."""

    subject: str
    question: int  # its row in the subject's test file, from 0
    right: str
    chosen: str
    shots: int  # examples that fitted into the context

    @property
    def correct(self) -> bool:
        """Whether the chosen letter is the right one."""
        return self.chosen == self.right


def load(folder: Path, *, shots: int, questions_per_subject: int | None) -> list[Subject]:
    """The subjects in `folder`, by name. Raises MeasurementError when files are missing, malformed or have too few examples."""
    subjects = []
    for file in sorted((folder / "test").glob("*_test.csv")):
        name = file.stem.removesuffix("_test")
        examples = _read(folder / "dev" / f"{name}_dev.csv")[:shots]
        if len(examples) < shots:
            raise MeasurementError(f"{folder / 'dev'} has {len(examples)} examples of {name}, fewer than the {shots} shots that the recipe asks for.")
        subjects.append(Subject(name=name, examples=tuple(examples), questions=tuple(_read(file)[:questions_per_subject])))
    if not any(subject.questions for subject in subjects):
        raise MeasurementError(f"{folder} holds no questions: there must be test/SUBJECT_test.csv and dev/SUBJECT_dev.csv in it.")
    return subjects


def _read(file: Path) -> list[Question]:
    questions = []
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            for number, row in enumerate(csv.reader(lines), start=1):
                if len(row) != len(LETTERS) + 2 or row[-1] not in LETTERS:
                    raise MeasurementError(f"Row {number} of {file} is not a question, four choices and a letter A to D.")
                questions.append(Question(text=row[0], choices=tuple(row[1:-1]), right=row[-1]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MeasurementError(f"{file} cannot be read: {error}.") from error
    return questions


def ask(model: Model, subjects: Iterable[Subject]) -> tuple[list[Answer], list[str]]:
    """Each question's answer, and sentences about what had to be left out.

    Examples are dropped from the end until a prompt fits the model's context; a question that does not fit even without examples is left out. The beginning
    that prompts of a subject share is evaluated once.
    """
    letters = letter_tokens(model)
    answers: list[Answer] = []
    left_out: Counter[str] = Counter()
    for subject in subjects:
        prompts = [(number, *_fitting(model, subject, question)) for number, question in enumerate(subject.questions)]
        left_out[subject.name] += sum(not tokens for _, _, tokens in prompts)
        for shots, group in groupby(sorted((item for item in prompts if item[2]), key=lambda item: -item[1]), key=lambda item: item[1]):
            numbers, tokens = zip(*((number, tokens) for number, _, tokens in group), strict=True)
            for number, row in zip(numbers, _last_logits(model, tokens), strict=True):
                right = subject.questions[number].right
                answers.append(Answer(subject=subject.name, question=number, right=right, chosen=choose(row, letters), shots=shots))
    if not answers:
        raise MeasurementError(f"No question fits into the model's context of {model.context} tokens.")
    return answers, _remarks(answers, left_out, {subject.name: len(subject.examples) for subject in subjects}, model.context)


def _fitting(model: Model, subject: Subject, question: Question) -> tuple[int, list[int]]:
    """The most shots that fit into the context, and the prompt's tokens; none when not even the question fits."""
    for shots in range(len(subject.examples), -1, -1):
        tokens = model.tokenize(subject.prompt(question, shots), add_special=True, parse_special=False)
        if len(tokens) <= model.context:
            return shots, tokens
    return 0, []


def _last_logits(model: Model, prompts: Sequence[list[int]]) -> Floats:
    """Logits (prompts, vocabulary) after each prompt; the tokens that all begin with are evaluated once, and each keeps one of its own at least."""
    first, last = min(prompts), max(prompts)  # in the order of their tokens, so what these two share, all share
    shortest = min(map(len, prompts)) - 1
    shared = next((i for i in range(shortest) if first[i] != last[i]), shortest)
    return model.continuations(prompts[0][:shared], [prompt[shared:] for prompt in prompts])


def _remarks(answers: Sequence[Answer], left_out: Counter[str], wanted: dict[str, int], context: int) -> list[str]:
    fewer = sum(answer.shots < wanted[answer.subject] for answer in answers)
    remarks = [f"{fewer} questions were asked with fewer examples, because the prompt exceeds the context of {context} tokens"] if fewer else []
    if total := left_out.total():
        remarks.append(f"{total} questions were left out, because they exceed the context of {context} tokens even without examples")
    return remarks


def letter_tokens(model: Model) -> list[list[int]]:
    """For each letter the tokens that write it after `Answer:`, with a space before it and without. Raises MeasurementError when there is none."""
    before = model.tokenize(ASK, add_special=False)
    found = []
    for letter in LETTERS:
        written = (model.tokenize(ASK + space + letter, add_special=False) for space in (" ", ""))
        tokens = sorted({ids[-1] for ids in written if ids[:-1] == before})
        if not tokens:
            raise MeasurementError(f"The tokenizer has no single token for the answer {letter!r} after {ASK!r}, so letters cannot be compared.")
        found.append(tokens)
    return found


def choose(logits: Floats, letters: Sequence[Sequence[int]]) -> str:
    """The letter with the most probability over all its tokens."""
    likeliest = max(float(logits[list(tokens)].max()) for tokens in letters)
    masses = [np.exp(logits[list(tokens)].astype(np.float64) - likeliest).sum() for tokens in letters]
    return LETTERS[int(np.argmax(masses))]


def accuracy(answers: Sequence[Answer], details: Sequence[str] = ()) -> Measurement:
    """mmlu.accuracy: the share of right answers.

    Its binomial standard error is computed with one more right and one more wrong answer: all right in a few questions must not look like certainty.
    """
    n, right = len(answers), sum(answer.correct for answer in answers)
    likely = (right + 1) / (n + 2)
    return Measurement(name="mmlu.accuracy", value=right / n, unit="share", stderr=math.sqrt(likely * (1 - likely) / n), n=n, details=tuple(details))


def against(reference: Sequence[Answer], variant: Sequence[Answer]) -> list[Measurement]:
    """mmlu.difference (variant - reference, with the standard error of paired differences, one more flip either way counted as in `accuracy`) and flips.

    A flip is an answer that turned from right to wrong or from wrong to right ("Accuracy is Not All You Need", arXiv 2407.09141); a wrong answer that became
    another wrong one is counted in the details only. Raises MeasurementError when the two did not answer the same questions.
    """
    before = {(answer.subject, answer.question): answer for answer in reference}
    after = {(answer.subject, answer.question): answer for answer in variant}
    if before.keys() != after.keys():
        raise MeasurementError(f"The variant answered {len(after)} questions and the 16-bit model {len(before)} others, so their answers cannot be paired.")
    pairs = [(before[key], after[key]) for key in before]
    n = len(pairs)
    changes = np.array([new.correct - old.correct for old, new in pairs])
    error = float(np.append(changes, (-1, 1)).std() / math.sqrt(n))
    lost, won = int((changes < 0).sum()), int((changes > 0).sum())
    changed = sum(old.chosen != new.chosen for old, new in pairs)
    detail = f"{lost} from right to wrong, {won} from wrong to right; {changed} of {n} answers changed at all"
    return [
        Measurement(name="mmlu.difference", value=float(changes.mean()), unit="share", stderr=error, n=n),
        Measurement(name="flips", value=lost + won, unit="count", n=n, details=(detail,)),
    ]


def efficiency(share: Measurement, size: int) -> Measurement:
    """(MMLU score - 25) / disk GB, with the score in points of 100 and `size` in bytes; 25 is what guessing earns."""
    gigabytes = size / 1e9
    error = None if share.stderr is None else 100 * share.stderr / gigabytes
    return Measurement(name="efficiency", value=(100 * share.value - GUESSING) / gigabytes, unit="points/GB", stderr=error, n=share.n)
