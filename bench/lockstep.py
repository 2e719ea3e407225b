"""Our side of the divergence bench, in a process of its own like llama-perplexity: tokenizes a text, measures variants, prints their mean KLD."""

import argparse
import json
from pathlib import Path

import numpy as np

from engines import llama
from qa import group, texts


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


if __name__ == "__main__":
    main()
