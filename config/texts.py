"""The part of a recipe that says on what variants are calibrated and measured: texts, questions, prompts."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from config.data import DataPath
from config.defaults import default
from config.strict import Strict

GENERATED = 60_000  # tokens of text that `generated: true` asks for


class Text(Strict):
    """Text for calibration or evaluation."""

    chat: tuple[DataPath, ...] = ()
    """JSON Lines of `{"messages": [...]}`, rendered through the model's own chat template."""
    plain: tuple[DataPath, ...] = ()
    """UTF-8 text files, used as they are."""
    generated: int = Field(default=0, ge=0)
    """Tokens of text that the 16-bit model writes itself: answers to prompts in `config/prompts/`, or, where it has no chat template, continuations of the
    openings there. `true` is 60000; needs a gate on `generated.failures`."""
    tokens: int = Field(default=1_500_000, gt=0)
    """Use at most this many tokens."""

    @field_validator("generated", mode="before")
    @classmethod
    def _as_many_as_usual(cls, value: Any) -> Any:
        return GENERATED * value if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.chat and not self.plain and not self.generated:
            raise ValueError("name at least one file under `chat` or `plain`, or let the model write: `generated: true`")
        return self


class EvaluationText(Text):
    """Text to measure divergence on: a first sample, and what it may be extended to where that does not decide a gate."""

    tokens: int = Field(default=100_000, gt=0)
    """The first sample: use at most this many tokens."""
    most_tokens: int | None = Field(default=None, gt=0)
    """Extend it to at most this many, for the variants with a gate that the sample leaves undecided; four times `tokens` when absent."""

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.most_tokens is not None and self.most_tokens < self.tokens:
            raise ValueError(f"`most_tokens` ({self.most_tokens}) must not be less than `tokens` ({self.tokens}), which the first sample takes")
        return self

    @property
    def most(self) -> int:
        """Tokens that the sample may be extended to."""
        return 4 * self.tokens if self.most_tokens is None else self.most_tokens


class Mmlu(Strict):
    """Multiple-choice questions: hendrycks/test's CSV files, or parquet files laid out as in the Hub's cais/mmlu."""

    data: DataPath
    """A folder of DIR/{dev,test}/SUBJECT_{dev,test}.csv, or of DIR/SUBJECT/{dev,test}-*.parquet, or of DIR/all/{dev,test}-*.parquet."""
    form: Literal["hendrycks", "llama", "chat"] = "hendrycks"
    """The prompt: hendrycks/test's own text; through the model's chat template, for instruct models: Llama's "The best answer is", or plain questions."""
    shots: int = Field(default=5, ge=0, le=5)
    """Worked examples before each question."""
    questions_per_subject: int | None = Field(default=None, gt=0)
    """The first sample: ask the first so many questions of each subject; all when absent."""
    most_questions_per_subject: int | None = Field(default=None, gt=0)
    """Extend it to at most so many, for the variants with a gate that the sample leaves undecided; four times `questions_per_subject` when absent."""

    @model_validator(mode="after")
    def _grows(self) -> Self:
        first, most = self.questions_per_subject, self.most_questions_per_subject
        if most is not None and first is None:
            raise ValueError("`most_questions_per_subject` goes with `questions_per_subject`: without that, all questions are asked at once")
        if most is not None and first is not None and most < first:
            raise ValueError(f"`most_questions_per_subject` ({most}) must not be less than `questions_per_subject` ({first}), which the first sample takes")
        return self

    @property
    def most(self) -> int | None:
        """Questions of a subject that the sample may be extended to; None: the first sample has all."""
        if self.questions_per_subject is None:
            return None
        return 4 * self.questions_per_subject if self.most_questions_per_subject is None else self.most_questions_per_subject


class Generation(Strict):
    """Greedy answers that must stop by themselves and not loop."""

    prompts: tuple[str, ...] = Field(min_length=1)
    """Questions of a user, put into the model's own chat template."""
    max_tokens: int = Field(default=512, gt=0)
    """An answer that is not at its end by then counts as one that runs on."""


class Evaluation(Strict):
    """What every variant is measured on."""

    divergence: EvaluationText = Field(default_factory=lambda: EvaluationText.model_validate(default("evaluation", "divergence")))
    """What KL divergence is measured on."""
    context: int = Field(default=512, ge=32)
    """Window length in tokens; as in llama-perplexity, the second half of each window is scored, and of `chat` only the assistant's answers."""
    mmlu: Mmlu | None = None
    """Questions; without them there are no `mmlu.*`, `flips` and `efficiency`, and nothing else is missing."""
    generation: Generation = Field(default_factory=lambda: Generation.model_validate(default("evaluation", "generation")))
    """Questions that greedy answers must come to an end on."""
