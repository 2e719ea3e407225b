"""Does the GGUF still answer like its model far into a long text: beyond a window of attention, and beyond the length that positions are scaled from?

`qa.parity` reads windows of 512 tokens, and what begins later is not seen there: attention to the last tokens only (sliding windows, chunks), positions that
are stretched (YaRN, LongRoPE, Llama 3). So one text is read that goes past every such edge within reach, at best to twice its length, and its last tokens are
compared. Any text will do, for both must read it alike; a short one is repeated. Where positions alone decide, farther edges are reached by a short text whose
tokens are given positions beyond them.

A known difference of llama.cpp's has a name, the versions that were looked at, and an exact account of itself: a config.json with which transformers, too,
computes what llama.cpp does. Where the account holds, what is left is measured and gated, and the card says what differs. What it does not account for blocks.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from config.errors import MeasurementError
from config.words import Measurement, inapplicable
from engines import hf, kv_cache, llama, text_part, toolchain
from qa import divergence, reach
from qa.parity import CONTEXT as READ_ANYWAY
from qa.reach import SCORED, SHORTEST, SLIDING, Config, Edge, edges, edges_of_header, length, window
from qa.texts import Windows, pieces

if TYPE_CHECKING:
    from engines.hf import HfModel

VERSION = 2  # raise when outputs change

PARTS = 8  # of the tokens at the end, by whose spread the error is told
NOTABLE = 0.001  # nats; what is below is rounding
NAMES = {"long.kld": "nats", "long.known": "nats", "long.unseen": "count"}  # with units
CELLS = 256  # llama.cpp's memory is a multiple of so many tokens long


@dataclass(frozen=True, kw_only=True)
class Known:
    """One known difference of llama.cpp's."""

    name: str
    versions: frozenset[str]  # of the pinned llama.cpp in which it was seen: another version is to be looked at again
    account: Callable[[Config, Mapping[str, str]], Config | None]  # of config.json and header: a config.json with which transformers computes alike
    says: Callable[[Config], str]  # what differs, for the card


def compare(out: Path, *, model: Path, gguf: Path, texts: Sequence[Path], threads: int) -> dict[str, Any]:
    """long.kld (mean, nats, transformers ‖ GGUF, over the last tokens of a long text, known differences set aside, or of one at far positions if it is more),
    long.known (the whole divergence where a known difference accounts for it, else 0), long.unseen (edges that are too far away to be looked at).

    `texts` are conversations (.jsonl) or plain text. Raises MeasurementError when there is no text, and ToolError.
    """
    with llama.open_vocabulary(gguf) as vocabulary:
        header, bos = vocabulary.metadata, vocabulary.bos if vocabulary.adds_bos else None
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    loaded = _loaded(model)
    ahead = [*edges(loaded), *edges_of_header(header)]
    if (size := length(ahead, kv_cache.context_length(loaded) or SHORTEST)) <= READ_ANYWAY:
        why = f"The model was made for {size} tokens at most, which are compared anyway"
        return {"measurements": [asdict(inapplicable(name, why, unit)) for name, unit in NAMES.items()]}
    with hf.open_model(model, threads=threads) as original:
        text = _text(original, texts, size, bos)
        found = _compared(original, gguf, text, threads=threads)
        start = reach.far(ahead, loaded, size)
        placed = None if start is None else _compared(original, gguf, text[:, : reach.PLACED], threads=threads, start=start)
    for item in KNOWN if found.mean > NOTABLE else ():
        other = item.account(config, header) if toolchain.VERSION in item.versions else None
        if other is not None:
            with _changed(model, other) as folder, hf.open_model(folder, threads=threads) as original:
                left = _compared(original, gguf, text, threads=threads)
            if left.mean <= max(NOTABLE, found.mean / 100):
                place = f"over tokens {size - SCORED} to {size} of a text their divergence is {found.mean:.2g} nats (llama.cpp {toolchain.VERSION})"
                found = replace(left, known=found.mean, remark=(f"{item.says(config)}; {place}",))
                break
    return _measured(found, placed, ahead, size)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """How far the two are from each other, in nats."""

    mean: float
    error: float | None
    n: int  # tokens
    end: int  # position after the last of them
    known: float = 0.0  # before what is known was set aside
    remark: tuple[str, ...] = ()


def _measured(found: _Found, placed: _Found | None, ahead: Sequence[Edge], size: int) -> dict[str, Any]:
    reached = 0 if placed is None else placed.end
    unseen = {edge.tokens: edge for edge in reversed(ahead) if edge.tokens + SCORED > (max(size, reached) if edge.positions else size)}
    worst = found if placed is None or found.mean >= placed.mean else placed
    said = tuple(f"What begins after {edge.tokens} tokens ({edge.key}) was not compared: the comparison ends at {size} tokens" for edge in unseen.values())
    measurements = [
        Measurement(name="long.kld", value=worst.mean, unit="nats", stderr=worst.error, n=worst.n, details=_places(worst, placed)),
        Measurement(name="long.known", value=found.known, unit="nats", n=found.n, details=found.remark),
        Measurement(name="long.unseen", value=len(said), unit="count", details=said),
    ]
    return {"measurements": [asdict(measurement) for measurement in measurements]}


def _places(worst: _Found, placed: _Found | None) -> tuple[str, ...]:
    """Where it is, if two places were looked at."""
    return () if placed is None else (f"at positions {worst.end - worst.n} to {worst.end}",)


def _loaded(model: Path) -> Config:
    """What transformers makes of config.json. Raises MeasurementError."""
    from transformers import AutoConfig

    try:
        return dict(AutoConfig.from_pretrained(model, local_files_only=True, trust_remote_code=False).get_text_config().to_dict())
    except Exception as error:  # the file is a stranger's: any parser below may raise anything
        raise MeasurementError(f"transformers cannot read {model / 'config.json'}: {error}. Look at that file.") from error


def _text(original: "HfModel", texts: Sequence[Path], size: int, bos: int | None) -> Windows:
    """One window (1, size) of the texts, over and over where they are shorter. Raises MeasurementError when there is none."""
    read = [
        original.tokenize(text, add_special=False, parse_special=special)
        for text, special in islice(pieces(original.tokenizer, texts), size)  # each has a token at least
    ]
    ids = list(islice(cycle(chain.from_iterable(read)), size)) if any(read) else []
    if not ids:
        raise MeasurementError("There is no text to compare both engines on. Name evaluation text in the recipe.")
    if bos is not None:
        ids[0] = bos
    return np.asarray([ids], dtype=np.int32)


def _compared(original: "HfModel", gguf: Path, text: Windows, *, threads: int, start: int = 0) -> _Found:
    """Mean over the last tokens, with its error from neighbouring parts of them, which take the place of windows. The first stands at position `start`.

    llama.cpp's context holds all positions up to the last, since it chooses LongRoPE's factors by that.
    """
    size = text.shape[1]
    with llama.open_model(gguf, context=-(-(start + size) // CELLS) * CELLS, threads=threads) as converted:
        here, there = partial(original.logits, start=start), partial(converted.logits_in_parts, start=start)
        scores = divergence.compare(here, there, text, first=size - SCORED)
    kld = scores.kld[0]
    mean, error = divergence.clustered(np.stack(np.split(kld[: len(kld) // PARTS * PARTS], PARTS)))
    return _Found(mean=mean, error=error, n=len(kld), end=start + size)


@contextmanager
def _changed(model: Path, config: Config) -> Iterator[Path]:
    """While the block runs, a folder with the model's files and another config.json."""
    with tempfile.TemporaryDirectory(prefix="sluice-config-") as name:
        folder = Path(name)
        for file in model.iterdir():
            if file.name != "config.json":
                (folder / file.name).symlink_to(file.resolve())
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        yield folder


# ---- what is known of llama.cpp ----------------------------------------------------------------------------------------------------------------


def _without_window(config: Config, header: Mapping[str, str]) -> Config | None:
    """Attention to everything in every layer, where the header has no window."""
    if window(config) is None or header.get(f"{header.get('general.architecture', '')}.attention.sliding_window", "0") not in {"", "0"}:
        return None
    own = {**text_part.of(config), "sliding_window": None}
    own |= {"use_sliding_window": False} if "use_sliding_window" in own else {}
    if "layer_types" in own:
        own["layer_types"] = ["full_attention" if kind == SLIDING else kind for kind in own["layer_types"]]
    return own if text_part.of(config) is config else {**config, "text_config": own}


KNOWN: Sequence[Known] = (
    Known(
        name="no sliding window",
        versions=frozenset({"0.3.36"}),
        account=_without_window,
        says=lambda config: (
            f"Beyond {window(config)} tokens llama.cpp attends to the whole text, where transformers attends to the last {window(config)} tokens only "
            "(`sliding_window` of config.json, for which this architecture has no place in GGUF)"
        ),
    ),
)
