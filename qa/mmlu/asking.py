"""Asks a model multiple-choice questions, and takes the letter that it holds likeliest; what the prompts of a subject share is evaluated once.

Both ways to write a letter as a token, `A` and ` A`, count: their probabilities are added.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from config.errors import MeasurementError
from config.progress import report, within
from engines.model import Floats, Model
from qa.mmlu.prompts import ASK, HENDRYCKS, Form
from qa.mmlu.questions import LETTERS, Question, Subject


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model answered to one question."""

    subject: str
    question: int  # its row in the subject's test file, from 0
    right: str
    chosen: str
    single: str  # chosen if only the customary token of each letter counted
    shots: int  # examples that fitted into the context

    @property
    def correct(self) -> bool:
        """Whether the chosen letter is the right one."""
        return self.chosen == self.right


def ask(model: Model, subjects: Sequence[Subject], form: Form = HENDRYCKS) -> tuple[list[Answer], list[str]]:
    """Each question's answer, and sentences about what had to be left out.

    Examples are dropped from the end until a prompt fits the model's context; a question that does not fit even without examples is left out. The beginning
    that prompts of a subject share is evaluated once. Raises MeasurementError when no question fits or letters are no tokens.
    """
    letters = letter_tokens(model, form, next(form.write(subject, subject.questions[0], 0) for subject in subjects if subject.questions))
    customary = [tokens[:1] for tokens in letters]
    answers: list[Answer] = []
    left_out: Counter[str] = Counter()
    total = sum(len(subject.questions) for subject in subjects)
    report(0, total, "questions")
    for subject in subjects:
        prompts = [(number, *_fitting(model, form, subject, question)) for number, question in enumerate(subject.questions)]
        left_out[subject.name] += sum(not tokens for _, _, tokens in prompts)
        for shots, group in groupby(sorted((item for item in prompts if item[2]), key=lambda item: -item[1]), key=lambda item: item[1]):
            numbers, tokens = zip(*((number, tokens) for number, _, tokens in group), strict=True)
            done = len(answers) + left_out.total()
            with within(done, total, "questions"):
                rows = _last_logits(model, tokens)
            report(done + len(rows), total, "questions")
            for number, row in zip(numbers, rows, strict=True):
                right = subject.questions[number].right
                chosen, single = choose(row, letters), choose(row, customary)
                answers.append(Answer(subject=subject.name, question=subject.first + number, right=right, chosen=chosen, single=single, shots=shots))
    report(total, total, "questions")
    if not answers:
        raise MeasurementError(f"No question fits into the model's context of {model.context} tokens.")
    return answers, _remarks(answers, left_out, {subject.name: len(subject.examples) for subject in subjects}, model.context)


def _fitting(model: Model, form: Form, subject: Subject, question: Question) -> tuple[int, list[int]]:
    """The most shots that fit into the context, and the prompt's tokens; none when not even the question fits."""
    for shots in range(len(subject.examples), -1, -1):
        tokens = form.tokens(model, form.write(subject, question, shots))
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


def letter_tokens(model: Model, form: Form = HENDRYCKS, prompt: str = ASK) -> list[list[int]]:
    """For each letter the tokens that write it after `prompt`, with a space before it and without, the form's customary way first.

    Raises MeasurementError when there is none.
    """
    before = form.tokens(model, prompt)
    found = []
    for letter in LETTERS:
        written = (form.tokens(model, prompt + space + letter) for space in sorted(("", " "), key=lambda space: space != form.space))
        tokens = list(dict.fromkeys(ids[-1] for ids in written if ids[:-1] == before))
        if not tokens:
            raise MeasurementError(f"The tokenizer has no single token for the answer {letter!r} after {prompt[-20:]!r}, so letters cannot be compared.")
        found.append(tokens)
    return found


def choose(logits: Floats, letters: Sequence[Sequence[int]]) -> str:
    """The letter with the most probability over all its tokens."""
    likeliest = max(float(logits[list(tokens)].max()) for tokens in letters)
    masses = [np.exp(logits[list(tokens)].astype(np.float64) - likeliest).sum() for tokens in letters]
    return LETTERS[int(np.argmax(masses))]
