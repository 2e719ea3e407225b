"""Multiple-choice questions (MMLU): their files, prompts, answers by letter, and scores paired with the 16-bit model's."""

from qa.mmlu.asking import Answer, ask, choose, letter_tokens
from qa.mmlu.pairs import aligned, by_subject, encode, influences
from qa.mmlu.prompts import HENDRYCKS, Form, Render, chat, llama
from qa.mmlu.questions import LETTERS, Question, Subject, load
from qa.mmlu.scores import NAMES, accuracy, against, efficiency, macro, mcnemar, single_letter

__all__ = [
    "HENDRYCKS",
    "LETTERS",
    "NAMES",
    "Answer",
    "Form",
    "Question",
    "Render",
    "Subject",
    "accuracy",
    "against",
    "aligned",
    "ask",
    "by_subject",
    "chat",
    "choose",
    "efficiency",
    "encode",
    "influences",
    "letter_tokens",
    "llama",
    "load",
    "macro",
    "mcnemar",
    "single_letter",
]
