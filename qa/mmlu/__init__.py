"""Multiple-choice questions (MMLU): their files, prompts, answers by letter, and scores paired with the 16-bit model's."""

from qa.mmlu.asking import Answer, ask, choose, letter_tokens
from qa.mmlu.prompts import HENDRYCKS, Form, Render, chat, llama
from qa.mmlu.questions import LETTERS, Question, Subject, load
from qa.mmlu.scores import accuracy, against, by_subject, efficiency, macro, mcnemar, single_letter

__all__ = [
    "HENDRYCKS",
    "LETTERS",
    "Answer",
    "Form",
    "Question",
    "Render",
    "Subject",
    "accuracy",
    "against",
    "ask",
    "by_subject",
    "chat",
    "choose",
    "efficiency",
    "letter_tokens",
    "llama",
    "load",
    "macro",
    "mcnemar",
    "single_letter",
]
