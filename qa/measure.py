"""The stages that measure a variant: questions, greedy answers, and the file itself. Divergence is measured in `qa.group`.

transformers and torch take seconds to import, so the GGUF way does without them: its prompts are rendered by llama.cpp.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.words import Measurement
from engines import llama, llama_server
from qa import file_checks, generation
from qa import mmlu as questionnaire

if TYPE_CHECKING:
    from engines.hf import HfModel

VERSION = 6  # raise when outputs change

CONTEXT = 4096  # tokens of memory for questions and answers; less in a model that was made for less
SEQUENCES = 16  # questions evaluated at a time


def reference(out: Path, *, gguf: Path, mmlu: Path, form: str, shots: int, questions_per_subject: int | None, threads: int) -> dict[str, Any]:
    """The 16-bit GGUF's answers to the questions, in answers.json, by subject in mmlu.json, and under `mmlu` the accuracy, stderr and n.

    `form` is the prompt's, see `qa.mmlu.prompts`.
    """
    subjects = questionnaire.load(mmlu, shots=shots, questions_per_subject=questions_per_subject)
    with _open_gguf(gguf, threads) as model, _form_gguf(form, model, threads) as asked:
        return _reference(out, *questionnaire.ask(model, subjects, asked))


def reference_transformers(out: Path, *, model: Path, mmlu: Path, form: str, shots: int, questions_per_subject: int | None, threads: int) -> dict[str, Any]:
    """The same for the 16-bit safetensors in transformers, against which safetensors variants are compared."""
    from engines import hf  # torch

    subjects = questionnaire.load(mmlu, shots=shots, questions_per_subject=questions_per_subject)
    with hf.open_model(model, threads=threads) as engine:
        return _reference(out, *questionnaire.ask(engine, subjects, _form_transformers(form, engine)))


def gguf(
    out: Path,
    *,
    reference: Path,
    answers: Path,
    variant: Path,
    mmlu: Path,
    form: str,
    shots: int,
    questions_per_subject: int | None,
    prompts: Sequence[str],
    max_tokens: int,
    threads: int,
) -> dict[str, Any]:
    """Every measurement of a GGUF variant against the 16-bit GGUF `reference` and its `answers`, but for its divergence.

    Raises MeasurementError or ToolError.
    """
    files = [file_checks.gguf(variant, reference, threads=threads), file_checks.weights(variant, reference)]
    with llama_server.serve(variant, threads=threads) as server:
        prepared = [generation.Prompt(question=prompt, rendered=server.apply_template(_user(prompt), add_generation_prompt=True)) for prompt in prompts]
    subjects = questionnaire.load(mmlu, shots=shots, questions_per_subject=questions_per_subject)
    with _open_gguf(variant, threads) as model:
        vocabulary = model.vocabulary
        answered = generation.check(model, prepared, bos=vocabulary.piece(vocabulary.bos), stop=vocabulary.end_of_generation, max_tokens=max_tokens)
        with _form_gguf(form, model, threads) as asked:
            given, remarks = questionnaire.ask(model, subjects, asked)
    scores = _questions(out, _load(answers), given, remarks)
    return {"measurements": [asdict(item) for item in (*scores, _efficiency(scores, variant.stat().st_size), *answered, *files)]}


def transformers(
    out: Path,
    *,
    reference: Path,
    answers: Path,
    variant: Path,
    mmlu: Path,
    form: str,
    shots: int,
    questions_per_subject: int | None,
    prompts: Sequence[str],
    max_tokens: int,
    threads: int,
) -> dict[str, Any]:
    """Every measurement of a safetensors folder against the 16-bit folder `reference` and its `answers`, but for its divergence. Raises MeasurementError."""
    from engines import hf  # torch

    files = file_checks.folder(variant, reference)
    subjects = questionnaire.load(mmlu, shots=shots, questions_per_subject=questions_per_subject)
    with hf.open_model(variant, threads=threads) as model:
        tokenizer = model.tokenizer
        prepared = [generation.Prompt(question=prompt, rendered=hf.render_chat(tokenizer, _user(prompt), add_generation_prompt=True)) for prompt in prompts]
        answered = generation.check(model, prepared, bos=tokenizer.bos_token or "", stop=hf.end_tokens(variant), max_tokens=max_tokens)
        given, remarks = questionnaire.ask(model, subjects, _form_transformers(form, model))
    scores = _questions(out, _load(answers), given, remarks)
    size = sum(file.stat().st_size for file in variant.glob("*.safetensors"))
    return {"measurements": [asdict(item) for item in (*scores, _efficiency(scores, size), *answered, files)]}


def _questions(out: Path, before: Sequence[questionnaire.Answer], given: Sequence[questionnaire.Answer], remarks: Sequence[str]) -> list[Measurement]:
    """A variant's answers against the 16-bit model's; each subject's figures and the answers themselves go into mmlu.json and answers.json."""
    _keep(out, given, questionnaire.by_subject(given, before))
    return [questionnaire.accuracy(given, remarks), questionnaire.macro(given), questionnaire.single_letter(given), *questionnaire.against(before, given)]


def _efficiency(measured: Sequence[Measurement], size: int) -> Measurement:
    return questionnaire.efficiency(next(measurement for measurement in measured if measurement.name == "mmlu.accuracy"), size)


def _reference(out: Path, answers: Sequence[questionnaire.Answer], remarks: Sequence[str]) -> dict[str, Any]:
    _keep(out, answers, questionnaire.by_subject(answers))
    accuracy = questionnaire.accuracy(answers, remarks)
    return {"mmlu": {"accuracy": accuracy.value, "stderr": accuracy.stderr, "n": accuracy.n}, "remarks": list(remarks)}


def _keep(out: Path, answers: Sequence[questionnaire.Answer], subjects: Mapping[str, Any]) -> None:
    (out / "answers.json").write_text(json.dumps([asdict(answer) for answer in answers], indent=0), encoding="utf-8")
    (out / "mmlu.json").write_text(json.dumps({"subjects": subjects}, indent=1), encoding="utf-8")


@contextmanager
def _form_gguf(form: str, model: llama.LlamaModel, threads: int) -> Iterator[questionnaire.Form]:
    """The form of that name; conversations are rendered by llama.cpp's own template engine while the block runs."""
    if form == "hendrycks":
        yield questionnaire.HENDRYCKS
        return
    vocabulary = model.vocabulary
    with llama_server.serve(vocabulary.path, threads=threads) as server:
        render = partial(server.apply_template, add_generation_prompt=True)
        yield _conversation(form, render, vocabulary.piece(vocabulary.bos))


def _form_transformers(form: str, model: "HfModel") -> questionnaire.Form:
    """The form of that name; conversations are rendered by transformers."""
    from engines import hf  # torch

    if form == "hendrycks":
        return questionnaire.HENDRYCKS
    render = partial(hf.render_chat, model.tokenizer, add_generation_prompt=True)
    return _conversation(form, render, model.tokenizer.bos_token or "")


def _conversation(form: str, render: questionnaire.Render, bos: str) -> questionnaire.Form:
    return {"chat": questionnaire.chat, "llama": questionnaire.llama}[form](render, bos)


def _open_gguf(file: Path, threads: int) -> AbstractContextManager[llama.LlamaModel]:
    with llama.open_vocabulary(file) as vocabulary:
        context = min(CONTEXT, vocabulary.trained_context)
    return llama.open_model(file, context=context, threads=threads, sequences=SEQUENCES)


def _load(answers: Path) -> list[questionnaire.Answer]:
    return [questionnaire.Answer(**answer) for answer in json.loads(answers.read_text(encoding="utf-8"))]


def _user(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]
