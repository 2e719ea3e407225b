"""Our side of the divergence bench, in a process of its own like llama-perplexity: tokenizes a text, measures variants, prints their mean KLD, and then the
seconds that loading, evaluating and scoring took.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as c
import numpy as np

from engines import llama
from qa import divergence, group, texts

WATCHED = (
    (c, "llama_model_load_from_file", "loading"),
    (c, "llama_init_from_model", "loading"),
    (c, "llama_decode", "evaluation"),
    (divergence, "_base", "scoring"),  # the evaluation that it asks for is taken off below
    (divergence, "_score", "scoring"),
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--windows", type=int, required=True)
    parser.add_argument("reference", type=Path)
    parser.add_argument("variants", type=Path, nargs="+")
    given = parser.parse_args()
    spent: list[tuple[str, float]] = []
    for module, name, phase in WATCHED:
        setattr(module, name, watched(getattr(module, name), phase, spent))
    with llama.open_vocabulary(given.reference) as vocabulary:
        ids = vocabulary.tokenize(given.text.read_text(encoding="utf-8"), add_special=True, parse_special=False)
        windows = texts.cut(ids[: given.windows * given.context], context=given.context, bos=vocabulary.bos if vocabulary.adds_bos else None)
    np.save(given.out / "tokens.npy", windows)
    np.save(given.out / "marks.npy", np.full(windows.shape, texts.PLAIN, dtype=np.int8))
    group.measure(given.out, reference=given.reference, variants=given.variants, windows=given.out, context=given.context, threads=given.threads)
    found = [
        group.pool([group.Part(file=given.out / f"{position}.npy", start=0, end=len(windows))], given.out, given.context)
        for position in range(len(given.variants))
    ]
    print(json.dumps([next(item.value for item in pooled.measurements if item.name == "kld.mean") for pooled in found]))
    seconds = {phase: sum(each for name, each in spent if name == phase) for _, _, phase in WATCHED}
    workers, _ = group.shares(given.threads, len(given.variants))
    evaluation, scoring = seconds["evaluation"] / workers, (seconds["scoring"] - seconds["evaluation"]) / workers
    print(json.dumps({"loading": seconds["loading"], "evaluation": evaluation, "scoring": scoring}))


def watched(function: Callable[..., Any], phase: str, spent: list[tuple[str, float]]) -> Callable[..., Any]:
    """The function, which now also writes down how long each call took, in whichever thread."""

    def run(*arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            spent.append((phase, time.perf_counter() - started))

    return run


if __name__ == "__main__":
    main()
