"""MMLU on the bundled model: the shots of a subject evaluated once and kept for all its questions, against every prompt evaluated whole.

Same GGUF file, same engine, same questions, same threads, and as many prompts in one batch as it holds either way; the answers must be the same.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from builders import convert, fixes
from engines import llama
from engines.llama import LlamaModel
from engines.model import Floats
from qa import measure, mmlu

DEMO = Path(__file__).parents[1] / "demo"
PER_SUBJECT = 50  # questions
THREADS = len(os.sched_getaffinity(0))
GOAL = 0.25


class Whole(LlamaModel):
    """A model that keeps nothing of what prompts share."""

    def continuations(self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]]) -> Floats:
        """See `engines.model.Model`."""
        return super().continuations([], [[*prefix, *suffix] for suffix in suffixes])


def main() -> None:
    """Ask the questions both ways, print times and their ratio."""
    console = Console(highlight=False)
    subjects = mmlu.load(DEMO / "data" / "tiny_mmlu", shots=5, questions_per_subject=PER_SUBJECT)
    with (
        tempfile.TemporaryDirectory(prefix="sluice-bench-") as name,
        llama.open_model(prepare(Path(name)), context=measure.CONTEXT, threads=THREADS, sequences=measure.SEQUENCES) as model,
    ):
        whole = Whole(vocabulary=model.vocabulary, context=model.context, sequences=model.sequences, pointer=model.pointer, batch=model.batch)
        ask(model, subjects[:1])  # reads the file into memory
        kept, our_seconds = ask(model, subjects)
        full, their_seconds = ask(whole, subjects)
        prompts = [mmlu.HENDRYCKS.tokens(model, mmlu.HENDRYCKS.write(subject, question, 5)) for subject in subjects for question in subject.questions]
    different = sum(one.chosen != other.chosen for one, other in zip(kept, full, strict=True))
    console.print(f"MMLU, {len(kept)} questions of {len(subjects)} subjects, 5 shots, prompts of {sum(map(len, prompts)) / len(prompts):.0f} tokens on average")
    console.print(
        f"wall time: every prompt whole {their_seconds:.2f} s, shots evaluated once {our_seconds:.2f} s, ratio {our_seconds / their_seconds:.2f} "
        f"(goal {GOAL}); {different} answers differ"
    )


def prepare(folder: Path) -> Path:
    """The bundled model, fixed, as 16-bit GGUF."""
    for part in ("fixed", "base"):
        (folder / part).mkdir()
    fixes.repair(folder / "fixed", snapshot=DEMO / "model", repo="upstream/tiny-chat", fixes=True)
    return folder / "base" / str(convert.convert(folder / "base", model=folder / "fixed", name="tiny-chat")["file"])


def ask(model: LlamaModel, subjects: Sequence[mmlu.Subject]) -> tuple[list[mmlu.Answer], float]:
    """The answers, and seconds."""
    started = time.perf_counter()
    answers, _ = mmlu.ask(model, subjects)
    return answers, time.perf_counter() - started
