"""The stages in which variants are asked questions. Divergence is measured in `qa.group`, greedy answers in `qa.greedy`.

A model is a GGUF file, which llama.cpp runs, or a folder of safetensors, which transformers runs. transformers and torch take seconds to import, so the GGUF
way does without them: its prompts are rendered by llama.cpp.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from config.words import Measurement
from engines import llama, llama_server
from engines.model import Model
from qa import looks
from qa import mmlu as questionnaire

VERSION = 8  # raise when outputs change

CONTEXT = 4096  # tokens of memory for questions; less in a model that was made for less
SEQUENCES = 16  # questions evaluated at a time


def questions(out: Path, *, mmlu: Path, shots: int, questions_per_subject: int | None, most: int | None) -> dict[str, Any]:
    """Read the questions before anything is asked. Under `looks` how many of each subject are asked at first, and at each look at a larger sample.

    `most` is how many that may be; a subject that has fewer is asked all it has. Raises MeasurementError when the questions are unusable.
    """
    subjects = questionnaire.load(mmlu, shots=shots, questions_per_subject=most)
    largest = max(len(subject.questions) for subject in subjects)
    return {"subjects": len(subjects), "looks": looks.sizes(questions_per_subject or largest, largest)}


def ask(out: Path, *, model: Path, mmlu: Path, form: str, shots: int, start: int, end: int | None, threads: int) -> dict[str, Any]:
    """Write the model's answers to the questions from row `start` to before row `end` of each subject to answers.json, see `answers`; without `end` to all.

    `form` is the prompt's, see `qa.mmlu.prompts`. Under `remarks` what had to be left out. Raises MeasurementError or ToolError.
    """
    subjects = questionnaire.load(mmlu, shots=shots, questions_per_subject=end, start=start)
    with _asked(model, form, threads) as (opened, written):
        given, remarks = questionnaire.ask(opened, subjects, written)
    if form != "hendrycks" and written is questionnaire.HENDRYCKS:
        remarks.append("the model has no chat template, so all questions were asked in plain text, in the form hendrycks")
    (out / "answers.json").write_text(json.dumps([asdict(answer) for answer in given], indent=0), encoding="utf-8")
    return {"file": "answers.json", "remarks": remarks}


def answers(file: Path) -> list[questionnaire.Answer]:
    """What `ask` wrote."""
    return [questionnaire.Answer(**answer) for answer in json.loads(file.read_text(encoding="utf-8"))]


def scores(before: Sequence[questionnaire.Answer], given: Sequence[questionnaire.Answer], remarks: Sequence[str], size: int) -> list[Measurement]:
    """Every measurement of a variant of `size` bytes from the 16-bit model's answers and its own. Raises MeasurementError when they answer other questions."""
    accuracy = questionnaire.accuracy(given, remarks)
    alone = [accuracy, questionnaire.macro(given), questionnaire.single_letter(given)]
    return [*alone, *questionnaire.against(before, given), questionnaire.efficiency(accuracy, size)]


@contextmanager
def _asked(path: Path, form: str, threads: int) -> Iterator[tuple[Model, questionnaire.Form]]:
    """The model, opened for questions, and the form of that name; conversations are rendered by the engine that runs the model.

    A model without a chat template is asked in plain text.
    """
    if path.is_dir():
        from engines import hf  # torch

        with hf.open_model(path, threads=threads) as engine:
            form = "hendrycks" if engine.tokenizer.chat_template is None else form
            yield engine, _form(form, partial(hf.render_chat, engine.tokenizer, add_generation_prompt=True), engine.tokenizer.bos_token or "")
        return
    with llama.open_vocabulary(path) as vocabulary:
        context, bos = min(CONTEXT, vocabulary.trained_context), vocabulary.piece(vocabulary.bos)
        form = "hendrycks" if vocabulary.chat_template is None else form
    with llama.open_model(path, context=context, threads=threads, sequences=SEQUENCES) as model:
        if form == "hendrycks":
            yield model, questionnaire.HENDRYCKS
            return
        with llama_server.serve(path, threads=threads) as server:
            yield model, _form(form, partial(server.apply_template, add_generation_prompt=True), bos)


def _form(name: str, render: questionnaire.Render, bos: str) -> questionnaire.Form:
    return {"hendrycks": questionnaire.HENDRYCKS, "chat": questionnaire.chat(render, bos), "llama": questionnaire.llama(render, bos)}[name]
