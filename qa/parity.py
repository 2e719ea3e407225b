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
from qa.tokenizer_remarks import BOUND, Referee, departures, remarks

VERSION = 4  # raise when outputs change

CONTEXT = 512  # tokens in a window
WINDOWS = 8  # of them at most: a wrong conversion shows in the first
PIECES = 2000  # conversations and lines whose token ids are compared, at most
SHOWN = 60  # characters of a text that a sentence quotes


def compare(out: Path, *, model: Path, gguf: Path, texts: Sequence[Path], threads: int) -> dict[str, Any]:
    """parity.token_mismatches (texts that llama.cpp reads otherwise than tokenizer.json, or than transformers without one), parity.known (share of tokens that
    known differences of llama.cpp's tokenizer touch; beyond a bound they are mismatches), parity.departures (texts that transformers alone reads otherwise than
    tokenizer.json; see `qa.tokenizer_remarks`), parity.kld (mean, nats, transformers ‖ GGUF), parity.max_difference (largest change of any token's probability,
    a share).

    `texts` are conversations (.jsonl) or plain text. transformers computes in float32 and llama.cpp rounds activations to the type of the weights, so a right
    conversion has a small divergence, not none. Raises MeasurementError when there is too little text.
    """
    with hf.open_model(model, threads=threads) as original, llama.open_model(gguf, context=CONTEXT, threads=threads) as converted:
        ids: list[int] = []
        found, compared, read = [], 0, 0
        referee = Referee(original.tokenizer, converted.vocabulary)
        for text, special in counted(islice(pieces(original.tokenizer, texts), PIECES), "texts"):
            expected = original.tokenize(text, add_special=False, parse_special=special)
            in_gguf = converted.tokenize(text, add_special=False, parse_special=special)
            if (reading := referee.judge(text, expected, in_gguf, special=special)) is not None:
                found.append(reading)
            compared, read = compared + 1, read + len(expected)
            ids += expected
        vocabulary = converted.vocabulary
        windows = cut(ids[: CONTEXT * WINDOWS], context=CONTEXT, bos=vocabulary.bos if vocabulary.adds_bos else None)
        scores = divergence.compare(original.logits, converted.logits, windows)
    details = [reading.said(SHOWN) for reading in found if reading.mismatch]
    explained = [(reading, reading.known) for reading in found if reading.known is not None]
    touched = sum(reading.touched for reading, _ in explained) / read
    if touched > BOUND:
        details += [f"{reading.said(SHOWN)}, as is known of llama.cpp, and too often in this text: {known.name}" for reading, known in explained]
    mean, error = divergence.clustered(scores.kld)
    tokens = int(scores.kld.size)
    measurements = [
        Measurement(name="parity.token_mismatches", value=len(details), unit="count", n=compared, details=tuple(details)),
        Measurement(name="parity.known", value=touched, unit="share", n=read, details=tuple(remarks(found, SHOWN))),
        departures("parity.departures", found, compared, SHOWN),
        Measurement(name="parity.kld", value=mean, unit="nats", stderr=error, n=tokens),
        Measurement(name="parity.max_difference", value=float(scores.difference.max()), unit="share", n=tokens),
    ]
    return {"measurements": [asdict(measurement) for measurement in measurements]}
