"""The measurements on anybody's files, without a release, a recipe or a run: stage functions behind `sluice measure`.

A model is a GGUF file, which llama.cpp runs, or a folder in the transformers form. Each function writes nothing that is kept and returns `measurements`,
and what a person wants to see beside them.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from config.errors import MeasurementError, SluiceError
from config.words import Measurement
from engines import llama, llama_server
from qa import divergence, greedy, group, measure, texts
from qa import mmlu as questionnaire

VERSION = 4  # raise when outputs change


def kld(
    out: Path, *, reference: Path, variants: Sequence[Path], text: Sequence[Path], chat: Sequence[Path], tokens: int | None, context: int, threads: int
) -> dict[str, Any]:
    """Under `variants`, in their order, the divergence measurements of GGUF files from the GGUF file `reference`; under `windows` how many were compared.

    Raises MeasurementError when there is too little text or a vocabulary differs, ToolError when a file cannot be loaded.
    """
    windows, marks = _windows(reference, text=text, chat=chat, tokens=tokens, context=context, threads=threads)
    compared = _compare(reference, variants, windows, marks, threads)
    return {"windows": len(windows), "variants": [[asdict(item) for item in found] for found in compared]}


def _windows(
    reference: Path, *, text: Sequence[Path], chat: Sequence[Path], tokens: int | None, context: int, threads: int
) -> tuple[texts.Windows, texts.Marks]:
    """Windows (n, context) of token ids and what each token is, made by the reference's own tokenizer and template; of conversations the answers are scored.

    The text begins with BOS where the tokenizer adds one, before it is cut: llama-perplexity does so, and its figures are to be comparable.
    """
    with llama.open_vocabulary(reference) as vocabulary:
        bos = vocabulary.bos if vocabulary.adds_bos else None
        pairs = [(bos, texts.UNSCORED)] if bos is not None else []
        for file in text:
            plain = vocabulary.tokenize(file.read_text(encoding="utf-8", errors="replace"), add_special=False, parse_special=False)
            pairs += [(token, texts.PLAIN) for token in plain]
        if chat:
            with llama_server.speaking(vocabulary, threads=threads) as by:
                pairs += texts.said(by, chat)
    ids, marks = ([pair[i] for pair in pairs[:tokens]] for i in (0, 1))
    windows = texts.cut(ids, context=context, bos=bos)
    marked = np.asarray(marks[: windows.size], dtype=np.int8).reshape(windows.shape)
    if chat and not (marked[:, context // 2 + 1 :] == texts.ANSWER).any():
        raise MeasurementError(
            "The conversations have no answer to score in the later half of any window: they hold no message of the role `assistant`, or the chat template "
            "leaves them out. Correct one of the two, or measure on plain text."
        )
    return windows, marked


def _compare(reference: Path, variants: Sequence[Path], windows: texts.Windows, marks: texts.Marks, threads: int) -> list[list[Measurement]]:
    """The divergence of each variant: the one place here that knows how `qa.divergence` is called."""
    context = int(windows.shape[1])
    workers, each = group.shares(threads, len(variants))
    with ExitStack() as stack:
        original, *models = (stack.enter_context(llama.open_model(file, context=context, threads=each, batch=group.BATCH)) for file in (reference, *variants))
        found = []
        evaluate = [model.logits_in_parts for model in models]
        for scores in divergence.compare_all(original.logits_in_parts, evaluate, windows, scored=marks > 0, workers=workers):
            if isinstance(scores, SluiceError):
                raise scores
            found.append(divergence.measurements(scores))
    return found


def mmlu(out: Path, *, model: Path, data: Path, shots: int, questions_per_subject: int | None, threads: int) -> dict[str, Any]:
    """mmlu.accuracy and efficiency of a GGUF file or a folder; under `subjects` the questions asked and rightly answered of each. Raises MeasurementError."""
    asked = measure.ask(out, model=model, mmlu=data, form="hendrycks", shots=shots, start=0, end=questions_per_subject, threads=threads)
    answers = measure.answers(out / asked["file"])
    accuracy = questionnaire.accuracy(answers, asked["remarks"])
    size = sum(file.stat().st_size for file in model.glob("*.safetensors")) if model.is_dir() else model.stat().st_size
    total, right = Counter(answer.subject for answer in answers), Counter(answer.subject for answer in answers if answer.correct)
    subjects = {name: {"questions": total[name], "right": right[name]} for name in sorted(total)}
    return {"measurements": [asdict(accuracy), asdict(questionnaire.efficiency(accuracy, size))], "subjects": subjects}


def generate(out: Path, *, model: Path, prompts: Sequence[str], max_tokens: int, threads: int) -> dict[str, Any]:
    """generation.failures of greedy answers in the model's own template. Raises MeasurementError or ToolError."""
    return {"measurements": [asdict(item) for item in greedy.generated(model, prompts, max_tokens=max_tokens, threads=threads)]}
