"""What is wrong with single answers, and whether all of them together are fit to calibrate on."""

import math
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from config.errors import MeasurementError
from engines.repetition import repetitions

# Sound models are far from these: tests/builders/generated/test_answers.py has their figures. Little variety is no fault: the bundled one knows few sentences.
DROPPED = 0.7  # of the answers, at most: a model of 135M parameters that knows English only runs in circles in a third of them
SAME = 0.25  # of the answers are one and the same, at most
ENTROPY = 3.0  # bits of the distribution of tokens, at least
DENSITY = 0.06  # bytes that a byte of text takes when it is compressed, at least
DISTINCT = 0.03  # of the runs of NGRAM tokens, at least
NGRAM = 4
ENOUGH = 32  # answers before anything is said about all
SHOWN = 60  # characters of an answer that a sentence quotes


@dataclass(kw_only=True)
class Tally:
    """All answers that were written for one part."""

    answers: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # by reason
    cut: int = 0  # of those kept: ended by the limit of tokens
    texts: Counter[str] = field(default_factory=Counter)  # each answer and how often it was given, dropped ones included
    kept: list[Sequence[int]] = field(default_factory=list)  # tokens
    said: list[str] = field(default_factory=list)  # the same as text

    def add(self, tokens: Sequence[int], text: str, *, asked: str, ended: bool) -> bool:
        """Count an answer; whether it may be kept."""
        self.answers += 1
        self.texts[text.strip()] += 1
        if (reason := fault(tokens, text, asked=asked)) is not None:
            self.dropped[reason] += 1
            return False
        self.cut += not ended
        self.kept.append(tokens)
        self.said.append(text)
        return True

    @property
    def hopeless(self) -> bool:
        """Whether so many were dropped that more of them would be a waste."""
        return self.answers >= ENOUGH and self.dropped.total() > DROPPED * self.answers

    @property
    def figures(self) -> dict[str, float]:
        """What the thresholds are held against."""
        same = max(self.texts.values(), default=0) / max(1, self.answers)
        dropped = self.dropped.total() / max(1, self.answers)
        return {"dropped": dropped, "same": same, "entropy": entropy(self.kept), "density": density(self.said), "distinct": distinct(self.kept)}


def fault(tokens: Sequence[int], text: str, *, asked: str) -> str | None:
    """Why an answer must not be kept, in words that follow "answers that"; None when it may."""
    if not text.strip():
        return "are empty"
    if repetitions(tokens):
        return "repeat themselves"
    if asked and text.strip() == asked.strip():
        return "only repeat the prompt"
    if "\ufffd" in text:
        return "hold bytes that are no characters"
    return None


def unfit(tally: Tally, figures: Mapping[str, float]) -> Iterator[str]:
    """What is wrong with the answers as a whole, a sentence each; `figures` are the tally's."""
    if not tally.answers:
        yield "The model was asked nothing: no prompt could be rendered in its chat template."
        return
    if (share := figures["dropped"]) > DROPPED:
        reasons = ", ".join(f"{count} {reason}" for reason, count in tally.dropped.most_common())
        yield f"Of {tally.answers} answers {share:.0%} had to be dropped, {DROPPED:.0%} are allowed: {reasons}."
    if tally.answers < ENOUGH:
        return
    if (share := figures["same"]) > SAME:
        [(text, _)] = tally.texts.most_common(1)
        yield f'{share:.0%} of {tally.answers} answers are the same, {SAME:.0%} are allowed: "{text[:SHOWN]}".'
    if not tally.kept:
        return
    if (bits := figures["entropy"]) < ENTROPY:
        yield f"The answers' tokens have {bits:.2f} bits of entropy, at least {ENTROPY:g} are wanted: they hardly ever change."
    if (dense := figures["density"]) < DENSITY:
        yield f"The answers can be compressed to {dense:.1%} of their bytes, at least {DENSITY:.0%} are wanted: they say the same again and again."
    if (share := figures["distinct"]) < DISTINCT:
        yield f"Of the answers' runs of {NGRAM} tokens {share:.1%} are distinct, at least {DISTINCT:.0%} are wanted: they say the same again and again."


def entropy(answers: Sequence[Sequence[int]]) -> float:
    """Bits of the distribution of single tokens over all answers; 0 without any."""
    counts = Counter(token for answer in answers for token in answer)
    total = counts.total()
    return -sum(count / total * math.log2(count / total) for count in counts.values()) + 0.0 if total else 0.0


def density(texts: Sequence[str]) -> float:
    """Compressed bytes over bytes of all texts, one after the other; 1 without any."""
    whole = "\n".join(texts).encode()
    return len(zlib.compress(whole, 9)) / len(whole) if whole else 1.0


def distinct(answers: Sequence[Sequence[int]]) -> float:
    """Share of the runs of NGRAM tokens over all answers that are distinct; 1 without any."""
    runs = [tuple(answer[i : i + NGRAM]) for answer in answers for i in range(len(answer) - NGRAM + 1)]
    return len(set(runs)) / len(runs) if runs else 1.0


def refuse(result: Mapping[str, Any]) -> None:
    """Raise MeasurementError, with every reason, when what `stage.write` returned says that its text is not fit for use."""
    if result["failures"]:
        reasons = " ".join(result["failures"])
        raise MeasurementError(f"The text that the model wrote cannot be used. {reasons} Look at model, chat template and sampling, or bring text of your own.")
