"""The stages that measure a variant: divergence from the 16-bit model, questions, greedy answers, and the file itself.

transformers and torch take seconds to import, so the GGUF way does without them: its prompts are rendered by llama.cpp.
"""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from config.words import Measurement
from engines import llama, llama_server
from engines.model import Model
from qa import divergence, file_checks, generation, group, texts
from qa import mmlu as questionnaire

VERSION = 2  # raise when outputs change

CONTEXT = 4096  # tokens of memory for questions and answers; less in a model that was made for less
SEQUENCES = 16  # questions evaluated at a time


def reference(out: Path, *, gguf: Path, mmlu: Path, shots: int, questions_per_subject: int | None, threads: int) -> dict[str, Any]:
    """The 16-bit GGUF's answers to the questions, in answers.json, and under `mmlu` its accuracy, stderr and n."""
    with _open_gguf(gguf, threads) as model:
        return _reference(out, model, mmlu, shots, questions_per_subject)


def reference_transformers(out: Path, *, model: Path, mmlu: Path, shots: int, questions_per_subject: int | None, threads: int) -> dict[str, Any]:
    """The same for the 16-bit safetensors in transformers, against which safetensors variants are compared."""
    from engines import hf  # torch

    with hf.open_model(model, threads=threads) as engine:
        return _reference(out, engine, mmlu, shots, questions_per_subject)


def gguf(
    out: Path,
    *,
    reference: Path,
    answers: Path,
    diverged: Path,
    variant: Path,
    mmlu: Path,
    shots: int,
    questions_per_subject: int | None,
    prompts: Sequence[str],
    max_tokens: int,
    threads: int,
) -> dict[str, Any]:
    """Every measurement of a GGUF variant against the 16-bit GGUF `reference` and its `answers`; `diverged` is its file of `qa.group`.

    Raises MeasurementError or ToolError.
    """
    distance = group.load(diverged)
    files = file_checks.gguf(variant, reference, threads=threads)
    with llama_server.serve(variant, threads=threads) as server:
        asked = [generation.Prompt(question=prompt, rendered=server.apply_template(_user(prompt), add_generation_prompt=True)) for prompt in prompts]
    with _open_gguf(variant, threads) as model:
        vocabulary = model.vocabulary
        answered = generation.check(model, asked, bos=vocabulary.piece(vocabulary.bos), stop=vocabulary.end_of_generation, max_tokens=max_tokens)
        asked_again = _questions(model, _load(answers), questionnaire.load(mmlu, shots=shots, questions_per_subject=questions_per_subject))
    return _result([*distance, *asked_again, _efficiency(asked_again, variant.stat().st_size), answered, files])


def transformers(
    out: Path,
    *,
    reference: Path,
    answers: Path,
    windows: Path,
    variant: Path,
    mmlu: Path,
    shots: int,
    questions_per_subject: int | None,
    prompts: Sequence[str],
    max_tokens: int,
    context: int,
    threads: int,
) -> dict[str, Any]:
    """Every measurement of a safetensors folder against the 16-bit folder `reference` and its `answers`. Raises MeasurementError."""
    from engines import hf  # torch

    tokens, marks, kinds = texts.load(windows, context)
    files = file_checks.folder(variant, reference)
    with hf.open_model(reference, threads=threads) as original, hf.open_model(variant, threads=threads) as model:
        tokenizer = model.tokenizer
        asked = [generation.Prompt(question=prompt, rendered=hf.render_chat(tokenizer, _user(prompt), add_generation_prompt=True)) for prompt in prompts]
        answered = generation.check(model, asked, bos=tokenizer.bos_token or "", stop=hf.end_tokens(variant), max_tokens=max_tokens)
        distance = divergence.measurements(divergence.compare(original.logits, model.logits, tokens, scored=marks > 0), kinds)
        asked_again = _questions(model, _load(answers), questionnaire.load(mmlu, shots=shots, questions_per_subject=questions_per_subject))
    size = sum(file.stat().st_size for file in variant.glob("*.safetensors"))
    return _result([*distance, *asked_again, _efficiency(asked_again, size), answered, files])


def _questions(model: Model, answers: Sequence[questionnaire.Answer], subjects: Sequence[questionnaire.Subject]) -> list[Measurement]:
    """The questions put to a variant, and its answers against the 16-bit model's."""
    given, remarks = questionnaire.ask(model, subjects)
    return [questionnaire.accuracy(given, remarks), *questionnaire.against(answers, given)]


def _efficiency(measured: Sequence[Measurement], size: int) -> Measurement:
    return questionnaire.efficiency(next(measurement for measurement in measured if measurement.name == "mmlu.accuracy"), size)


def _reference(out: Path, model: Model, mmlu: Path, shots: int, questions_per_subject: int | None) -> dict[str, Any]:
    answers, remarks = questionnaire.ask(model, questionnaire.load(mmlu, shots=shots, questions_per_subject=questions_per_subject))
    (out / "answers.json").write_text(json.dumps([asdict(answer) for answer in answers], indent=0), encoding="utf-8")
    accuracy = questionnaire.accuracy(answers, remarks)
    return {"mmlu": {"accuracy": accuracy.value, "stderr": accuracy.stderr, "n": accuracy.n}, "remarks": remarks}


def _open_gguf(file: Path, threads: int) -> AbstractContextManager[llama.LlamaModel]:
    with llama.open_vocabulary(file) as vocabulary:
        context = min(CONTEXT, vocabulary.trained_context)
    return llama.open_model(file, context=context, threads=threads, sequences=SEQUENCES)


def _load(answers: Path) -> list[questionnaire.Answer]:
    return [questionnaire.Answer(**answer) for answer in json.loads(answers.read_text(encoding="utf-8"))]


def _user(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _result(measurements: Sequence[Measurement]) -> dict[str, Any]:
    return {"measurements": [asdict(measurement) for measurement in measurements]}
