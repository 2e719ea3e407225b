"""Does the 16-bit GGUF answer like the model it was converted from, before anything is quantized? Token ids and logits of both are compared."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from config.progress import counted
from config.words import Measurement
from engines import hf, llama
from qa import divergence
from qa.texts import cut, pieces

VERSION = 2  # raise when outputs change

CONTEXT = 512  # tokens in a window
WINDOWS = 8  # of them at most: a wrong conversion shows in the first
PIECES = 2000  # conversations and lines whose token ids are compared, at most
SHOWN = 60  # characters of a text that a sentence quotes


def compare(out: Path, *, model: Path, gguf: Path, texts: Sequence[Path], threads: int) -> dict[str, Any]:
    """parity.token_mismatches, parity.kld (mean, nats, transformers ‖ GGUF) and parity.max_difference (largest change of any token's probability, a share).

    `texts` are conversations (.jsonl) or plain text. transformers computes in float32 and llama.cpp rounds activations to the type of the weights, so a right
    conversion has a small divergence, not none. Raises MeasurementError when there is too little text.
    """
    with hf.open_model(model, threads=threads) as original, llama.open_model(gguf, context=CONTEXT, threads=threads) as converted:
        ids: list[int] = []
        details, compared = [], 0
        for text, special in counted(islice(pieces(original.tokenizer, texts), PIECES), "texts"):
            expected = original.tokenize(text, add_special=False, parse_special=special)
            found = converted.tokenize(text, add_special=False, parse_special=special)
            if expected != found:
                details.append(f"{text[:SHOWN]!r} is {expected[:8]}… ({len(expected)} tokens) in transformers and {found[:8]}… ({len(found)}) in llama.cpp")
            compared += 1
            ids += expected
        vocabulary = converted.vocabulary
        windows = cut(ids[: CONTEXT * WINDOWS], context=CONTEXT, bos=vocabulary.bos if vocabulary.adds_bos else None)
        scores = divergence.compare(original.logits, converted.logits, windows)
    mean, error = divergence.clustered(scores.kld)
    tokens = int(scores.kld.size)
    measurements = [
        Measurement(name="parity.token_mismatches", value=len(details), unit="count", n=compared, details=tuple(details)),
        Measurement(name="parity.kld", value=mean, unit="nats", stderr=error, n=tokens),
        Measurement(name="parity.max_difference", value=float(scores.difference.max()), unit="share", n=tokens),
    ]
    return {"measurements": [asdict(measurement) for measurement in measurements]}
