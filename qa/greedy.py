"""The stages that read greedy answers, of the 16-bit model and of each variant, and look at a variant's file.

A model is a GGUF file, which llama.cpp runs, or a folder of safetensors, which transformers runs and which alone needs torch. Models without a chat template
give no answers: what they go on with from an opening need not end, and greedily it runs in circles even in good ones.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from config.words import BASE_MODEL, Measurement, inapplicable
from engines import llama, llama_server
from qa import file_checks, generation
from qa.generation import Answer

VERSION = 5  # raise when outputs change

FILE = "greedy.json"


def original(out: Path, *, model: Path, prompts: Sequence[str], max_tokens: int, threads: int) -> dict[str, Any]:
    """Write the 16-bit model's own answers to greedy.json, so that no variant is blamed for what it does wrong itself; see `qa.generation.excusable`.

    Raises MeasurementError or ToolError.
    """
    found = answers(model, prompts, max_tokens=max_tokens, threads=threads) or []
    (out / FILE).write_text(json.dumps([asdict(answer) for answer in found]), encoding="utf-8")
    return {"file": FILE, "remarks": [answer.told for answer in found if answer.wrong]}


def check(out: Path, *, reference: Path, variant: Path, prompts: Sequence[str], max_tokens: int, threads: int, original: Path | None = None) -> dict[str, Any]:
    """The variant's file or folder against the 16-bit `reference`, and its greedy answers to `prompts`; `original` is what the stage of that name wrote.

    A variant that is the 16-bit model itself has given its answers. Raises MeasurementError or ToolError.
    """
    if variant.is_dir():
        files = [file_checks.folder(variant, reference)]
    else:
        files = [file_checks.gguf(variant, reference, threads=threads), file_checks.weights(variant, reference, threads=threads)]
    given = [] if original is None else [Answer(**answer) for answer in json.loads(original.read_text(encoding="utf-8"))]
    excused = generation.excusable(given)
    if not has_template(reference):  # what a variant lost of it is a fault of its file
        greedy = _none()
    elif given and variant.samefile(reference):
        greedy = generation.measurements(given, excused)
    else:
        greedy = generated(variant, prompts, max_tokens=max_tokens, threads=threads, excused=excused)
    return {"measurements": [asdict(item) for item in (*greedy, *files)]}


def generated(model: Path, prompts: Sequence[str], *, max_tokens: int, threads: int, excused: Sequence[int] = ()) -> tuple[Measurement, ...]:
    """The measurements of the model's greedy answers in its own template, see `qa.generation.measurements`. Raises MeasurementError or ToolError."""
    found = answers(model, prompts, max_tokens=max_tokens, threads=threads)
    return _none() if found is None else generation.measurements(found, excused)


def _none() -> tuple[Measurement, ...]:
    return tuple(inapplicable(f"generation.{name}", BASE_MODEL, unit) for name, unit in (("failures", "count"), ("repetition", "share"), ("excused", "count")))


def has_template(model: Path) -> bool:
    """Whether a folder or a GGUF file has a chat template. Raises MeasurementError or ToolError."""
    if model.is_dir():
        from engines import hf  # torch

        return hf.load_tokenizer(model).chat_template is not None
    with llama.open_vocabulary(model) as vocabulary:
        return vocabulary.chat_template is not None


def answers(model: Path, prompts: Sequence[str], *, max_tokens: int, threads: int) -> list[Answer] | None:
    """The greedy answers in the model's own template; None where it has none. Raises MeasurementError or ToolError."""
    conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
    if model.is_dir():
        from engines import hf  # torch

        if not has_template(model):
            return None
        with hf.open_model(model, threads=threads) as engine:
            tokenizer = engine.tokenizer
            rendered = [hf.render_chat(tokenizer, messages, add_generation_prompt=True) for messages in conversations]
            asked = _prompts(prompts, rendered)
            return generation.answers(engine, asked, bos=tokenizer.bos_token or "", stop=hf.end_tokens(model), max_tokens=max_tokens, unused=engine.unused)
    with llama.open_vocabulary(model) as vocabulary:
        if vocabulary.chat_template is None:
            return None
        with llama_server.serve(model, threads=threads) as server:
            rendered = [server.apply_template(messages, add_generation_prompt=True) for messages in conversations]
        # an answer that the context cuts off would look like one that does not end
        context = min(max_tokens + max(len(vocabulary.tokenize(text, add_special=True)) for text in rendered), vocabulary.trained_context)
    with llama.open_model(model, context=context, threads=threads) as loaded:
        names = loaded.vocabulary
        asked = _prompts(prompts, rendered)
        stops, bos = names.end_of_generation, names.piece(names.bos)
        return generation.answers(loaded, asked, bos=bos, stop=stops, max_tokens=max_tokens, unused=names.unused)


def _prompts(asked: Sequence[str], rendered: Sequence[str]) -> list[generation.Prompt]:
    return [generation.Prompt(question=question, rendered=text) for question, text in zip(asked, rendered, strict=True)]
