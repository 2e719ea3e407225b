"""The three forms of prompt: hendrycks/test's own, a conversation through the model's chat template, and Llama's with "The best answer is".

Exact strings, where ⏎ is a newline, `{…}` is filled in, and examples stand before the question that is asked:

`hendrycks`, plain text, the letter follows with a space. Word for word that repository's, with one difference that the common harnesses share: single spaces
around the subject's name, where the original writes two before it::

    The following are multiple choice questions (with answers) about {subject}.⏎⏎
    {question}⏎A. {choice}⏎B. {choice}⏎C. {choice}⏎D. {choice}⏎Answer: {letter}⏎⏎      for each example
    {question}⏎A. {choice}⏎B. {choice}⏎C. {choice}⏎D. {choice}⏎Answer:

`chat`, the letter follows the template's generation prompt. There is no system turn, because some templates refuse one, so the first user turn opens with the
same sentence about the subject::

    user       [first turn only: The following are … about {subject}.⏎⏎]{question}⏎A. {choice}⏎B. {choice}⏎C. {choice}⏎D. {choice}⏎Answer:
    assistant  {letter}                                                               for each example

`llama`, as in Meta's published evaluations of its instruct models; the letter follows with a space after the generation prompt and `The best answer is`::

    user       Given the following question and four candidate answers (A, B, C and D), choose the best answer.⏎Question: {question}⏎A. {choice}⏎B. {choice}⏎
               C. {choice}⏎D. {choice}⏎
               Your response should end with "The best answer is [the_answer_letter]" where the [the_answer_letter] is one of A, B, C or D.
    assistant  The best answer is {letter}.                                           for each example

Not covered: chain of thought; a reasoning model is asked for its letter at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engines.model import Message, Model
from qa.mmlu.questions import LETTERS, Question, Subject
from qa.turns import prompt_tokens

ASK = "Answer:"
BEST = "The best answer is"
CHOOSE = "Given the following question and four candidate answers (A, B, C and D), choose the best answer."
END = f'Your response should end with "{BEST} [the_answer_letter]" where the [the_answer_letter] is one of A, B, C or D.'

Render = Callable[[Sequence[Message]], str]
"""A conversation as text, up to and including the prompt for the next answer."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a question becomes a prompt."""

    write: Callable[[Subject, Question, int], str]  # the whole prompt with the first so many examples
    space: str  # what the form itself writes between the prompt and the letter: the customary way of the two
    bos: str | None = None  # how a rendered conversation writes BOS, which may be ""; None for plain text, where special tokens are mere text

    def tokens(self, model: Model, text: str) -> list[int]:
        """Token ids of a prompt, with one BOS at most."""
        if self.bos is None:
            return model.tokenize(text, add_special=True, parse_special=False)
        return prompt_tokens(model, text, self.bos)


def chat(render: Render, bos: str) -> Form:
    """The form `chat` in a model's template; `bos` is how that writes BOS."""
    return Form(write=lambda subject, question, shots: render(_chat_turns(subject, question, shots)), space="", bos=bos)


def llama(render: Render, bos: str) -> Form:
    """The form `llama` in a model's template; `bos` is how that writes BOS."""
    return Form(write=lambda subject, question, shots: render(_llama_turns(subject, question, shots)) + BEST, space=" ", bos=bos)


def _header(subject: Subject) -> str:
    return f"The following are multiple choice questions (with answers) about {subject.title}.\n\n"


def _choices(question: Question) -> str:
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, question.choices, strict=True))


def _asked(question: Question) -> str:
    return f"{question.text}\n{_choices(question)}\n{ASK}"


def _hendrycks(subject: Subject, question: Question, shots: int) -> str:
    shown = "".join(f"{_asked(example)} {example.right}\n\n" for example in subject.examples[:shots])
    return _header(subject) + shown + _asked(question)


def _chat_turns(subject: Subject, question: Question, shots: int) -> list[Message]:
    return _turns(subject, question, shots, ask=_asked, answer="{}", opening=_header(subject))


def _llama_turns(subject: Subject, question: Question, shots: int) -> list[Message]:
    return _turns(subject, question, shots, ask=lambda asked: f"{CHOOSE}\nQuestion: {asked.text.strip()}\n{_choices(asked)}\n{END}", answer=BEST + " {}.")


def _turns(subject: Subject, question: Question, shots: int, *, ask: Callable[[Question], str], answer: str, opening: str = "") -> list[Message]:
    messages: list[Message] = []
    for example in subject.examples[:shots]:
        messages.append({"role": "user", "content": ("" if messages else opening) + ask(example)})
        messages.append({"role": "assistant", "content": answer.format(example.right)})
    return [*messages, {"role": "user", "content": ("" if messages else opening) + ask(question)}]


HENDRYCKS = Form(write=_hendrycks, space=" ")
