"""Looks, before any variant is built, for what would spoil them all unseen: leaked evaluation text, a false header, an importance matrix with holes.

Covered: passages that calibration and evaluation share; the 16-bit GGUF's metadata against what transformers loads; every entry of the importance matrix.
Not covered: shared text in other words or another language, and evaluation questions, which are too short to tell a leak from chance.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader, ReaderTensor

from config.errors import MeasurementError
from config.words import Measurement
from engines import quantizable
from qa import reach
from qa.file_checks import open_gguf
from qa.texts import conversations

VERSION = 5  # raise when outputs change

RUN = 32  # words; about the 50 tokens from which Lee et al. (arXiv 2107.06499) count a passage as repeated and not as said twice
WORD = re.compile(r"[぀-ヿ㐀-鿿]|[^\W぀-ヿ㐀-鿿]+")  # kana and Chinese characters are words of their own: no spaces stand between them
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no position of a run is lost
SHOWN = 60  # characters of a text that a sentence quotes
MOST_DETAILS = 20  # shared passages named one by one

EPSILON = "attention.layer_norm_rms_epsilon"
# Each key of the GGUF (after the architecture's name) with the attributes of a transformers config that say the same.
HYPERPARAMETERS: Mapping[str, Sequence[str]] = {
    "context_length": ("max_position_embeddings",),
    "embedding_length": ("hidden_size",),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.key_length": ("head_dim",),
    EPSILON: ("rms_norm_eps", "norm_eps"),
    "attention.layer_norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
    "attention.sliding_window": ("sliding_window",),
    "expert_count": ("num_local_experts", "num_experts", "n_routed_experts"),
    "expert_used_count": ("num_experts_per_tok",),
}
MAY_LACK = {"attention.head_count_kv", "attention.key_length", "attention.sliding_window"}  # llama.cpp derives them, or the architecture does not use them
LATENT_ATTENTION = {"attention.head_count_kv", "attention.key_length"}  # mean something else where keys are compressed (kv_lora_rank)
ROPE_BASE = 10000.0  # what llama.cpp assumes when the file does not say
TOLERANCE = 1e-6  # relative; GGUF holds 32-bit floats
FACTORS = 1e-4  # relative; those of positions are computed in 32 bits too
FREQUENCIES, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"  # tensors of factors of positions
LLAMA_3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # what the converter takes for them
SPECIAL = {"bos": "tokenizer.ggml.bos_token_id", "eos": "tokenizer.ggml.eos_token_id", "pad": "tokenizer.ggml.padding_token_id"}


Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A conversation or a whole text file."""

    title: str
    words: list[str]


def overlap(out: Path, *, chat: Sequence[Path], plain: Sequence[Path], evaluated_chat: Sequence[Path], evaluated_plain: Sequence[Path]) -> dict[str, Any]:
    """overlap.share, the share of evaluation words that calibration text holds too, and overlap.shared, how many evaluation documents hold such words.

    A word counts when it stands in a run of RUN words, upper and lower case and punctuation aside, that also stands in the calibration text, or in a shorter
    document that is in it as a whole. GPT-3 (arXiv 2005.14165, appendix C) looks for 13-grams and PaLM (arXiv 2204.02311, section 8) for 8-grams, to find
    benchmark questions in a crawl. Here both texts may come from one source, where runs of that length are stock phrases, and what matters is a passage that
    was calibrated on, so runs are as long as those that deduplication of training text removes. The files count as a whole, whatever part of them is used.
    Raises MeasurementError when a file cannot be read or there are no words to measure on.
    """
    known: dict[str, int] = {}
    calibration = [_hashes(document.words, known) for document in _documents(chat, plain)]
    runs = np.unique(np.concatenate([_runs(hashes) for hashes in calibration])) if calibration else np.zeros(0, dtype=np.uint64)
    short = {hashes.tobytes() for hashes in calibration if len(hashes) < RUN}
    words = shared = 0
    details = []
    for document in _documents(evaluated_chat, evaluated_plain):
        hashes = _hashes(document.words, known)
        found = np.full(len(hashes), hashes.tobytes() in short) if len(hashes) < RUN else _covered(np.isin(_runs(hashes), runs))
        words += len(hashes)
        if found.any():
            shared += int(found.sum())
            first = int(found.argmax())
            begins = " ".join(document.words[first : first + RUN])[:SHOWN]
            details.append(f'{int(found.sum())} of the {len(hashes)} words of {document.title} are in the calibration text too, from "{begins}"')
    if not words:
        raise MeasurementError("The evaluation text has no words, so nothing can be measured on it. Name other files under `evaluation.divergence`.")
    measurements = [
        Measurement(name="overlap.share", value=shared / words, unit="share", n=words),
        Measurement(name="overlap.shared", value=len(details), unit="count", details=tuple(details[:MOST_DETAILS])),
    ]
    return {"measurements": [asdict(measurement) for measurement in measurements]}


def _documents(chat: Iterable[Path], plain: Iterable[Path]) -> Iterator[Document]:
    for path in map(Path, chat):
        for number, messages in enumerate(conversations([path]), start=1):
            text = "\n".join(str(message.get("content") or "") for message in messages)
            yield Document(title=f"conversation {number} of {path.name}", words=WORD.findall(text.casefold()))
    for path in map(Path, plain):
        try:
            yield Document(title=path.name, words=WORD.findall(path.read_text(encoding="utf-8").casefold()))
        except UnicodeDecodeError as error:
            raise MeasurementError(f"{path} is not UTF-8 text: {error}. Convert it, or name another file in the recipe.") from error


def _hashes(words: Sequence[str], known: dict[str, int]) -> Hashes:
    """A number for each word; `known` gives words their order of appearance, from which the number is mixed (splitmix64's finalizer)."""
    mixed = np.fromiter((known.setdefault(word, len(known) + 1) for word in words), dtype=np.uint64, count=len(words)) * MULTIPLIER
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)


def _runs(hashes: Hashes) -> Hashes:
    """A number for each run of RUN words: a polynomial over its words' numbers, modulo 2**64. 10**6 and 10**6 of them agree by chance once in 10**7 times."""
    count = max(0, len(hashes) - RUN + 1)
    total = np.zeros(count, dtype=np.uint64)
    for offset in range(RUN if count else 0):
        total = total * MULTIPLIER + hashes[offset : offset + count]
    return total


def _covered(starts: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The words (n) that stand in one of the runs which begin at the marked places (n - RUN + 1)."""
    return np.convolve(starts, np.ones(RUN)) > 0.5


def imatrix(out: Path, *, imatrix: Path, gguf: Path) -> dict[str, Any]:
    """imatrix.failures: matrices of the unquantized GGUF's layers that the importance matrix has no sound entry for; imatrix.unreached: the share of all
    experts' matrices that no calibration text reached, while it reached others of their layer; imatrix.unused: matrices that need no entry, because llama.cpp
    never multiplies anything by them, as in layers for multi-token prediction.

    llama-imatrix sums the squares of every matrix's inputs and counts the tokens, for each expert by itself; it collects nothing for embeddings and output.
    What llama-quantize keeps as it is (norms, routers) needs no entry. Raises MeasurementError, ToolError.
    """
    entries = {tensor.name: np.asarray(tensor.data) for tensor in open_gguf(imatrix).tensors}
    header = Header(open_gguf(gguf))
    needed = [header.tensors[entry.name] for entry in quantizable.in_layers(gguf)]
    missing = [tensor.name for tensor in needed if f"{tensor.name}{quantizable.SUMS}" not in entries]
    unused = _never_multiplied(gguf, missing) if missing else set()
    details = [f"{tensor.name} {fault}" for tensor in needed if tensor.name not in unused for fault in _entry_faults(tensor, entries)]
    unreached = {tensor.name: found for tensor in needed if (found := _unreached(tensor, entries))}
    experts = sum(count for tensor in needed if (count := _experts(tensor)) > 1)
    share = sum(map(len, unreached.values())) / experts if experts else 0.0
    measurements = [
        Measurement(name="imatrix.failures", value=len(details), unit="count", n=len(needed), details=tuple(details)),
        Measurement(name="imatrix.unreached", value=share, unit="share", n=experts, details=tuple(_unreached_told(unreached, experts))),
        Measurement(name="imatrix.unused", value=len(unused), unit="count", n=len(needed), details=tuple(_unused(unused, header))),
    ]
    return {"measurements": [asdict(measurement) for measurement in measurements]}


def _never_multiplied(gguf: Path, names: Sequence[str]) -> set[str]:
    from engines import graph  # loads llama.cpp

    return set(names) - graph.multiplied(gguf)


def _unused(names: Collection[str], header: "Header") -> Iterator[str]:
    """A sentence for each layer that holds matrices by which nothing is multiplied."""
    layers = Counter(name.split(".")[1] for name in names)
    predicting = int(header.own("nextn_predict_layers") or 0)
    first = int(header.own("block_count") or 0) - predicting
    for layer, count in layers.items():
        why = "is for multi-token prediction (NextN), which" if predicting and int(layer) >= first else f"holds {count} matrices that"
        yield (
            f"Layer {layer} {why} llama.cpp runs in no ordinary answer, so no text gives its matrices importances, and nothing here measures them: they are "
            f"{quantizable.UNMEASURED} in every quantized GGUF file"
        )


def _experts(tensor: ReaderTensor) -> int:
    return math.prod(map(int, tensor.shape[2:]))


def _unreached(tensor: ReaderTensor, entries: Mapping[str, npt.NDArray[np.float32]]) -> list[int]:
    """The experts of a matrix that saw no token, where others did. With many of them, rarely chosen, that is what a text of some length leaves."""
    counts = entries.get(f"{tensor.name}.counts", np.zeros(0))
    if counts.size != _experts(tensor) or not counts.any():
        return []
    return [int(expert) for expert in np.flatnonzero(counts.reshape(-1) == 0)]


def _unreached_told(unreached: Mapping[str, Sequence[int]], experts: int) -> Iterator[str]:
    if unreached:
        name, numbers = next(iter(unreached.items()))
        count = sum(map(len, unreached.values()))
        yield (
            f"No calibration text reached {count} of {experts} experts' matrices, among them expert {numbers[0]} of {name}: these are quantized without "
            "importances of their own. More calibration text, or text of more kinds, reaches more of them"
        )


def _entry_faults(tensor: ReaderTensor, entries: Mapping[str, npt.NDArray[np.float32]]) -> Iterator[str]:
    """What is wrong with one matrix's entry, in words that follow the matrix's name."""
    sums, counts = entries.get(f"{tensor.name}.in_sum2"), entries.get(f"{tensor.name}.counts")
    if sums is None or counts is None:
        yield "has no entry: no calibration text reached it"
        return
    columns, experts = int(tensor.shape[0]), _experts(tensor)
    if sums.size != columns * experts or counts.size not in {1, experts}:  # matrices of heads, which all see every token, are counted at once
        yield f"has {experts} × {columns} inputs, and its entry holds {sums.size} sums and {counts.size} counts: it belongs to another model"
        return
    sums, counts = sums.reshape(experts, columns), np.broadcast_to(counts.reshape(-1), (experts,))
    if not np.isfinite(sums).all() or not np.isfinite(counts).all():
        yield "has an entry that is not finite: activations overflowed"
    elif (sums < 0).any():
        yield "has an entry with negative sums of squares: the file is damaged"
    elif not counts.any():
        yield "has an entry of zeros: no calibration text reached it"
    elif silent := [expert for expert in range(experts) if counts[expert] and not sums[expert].any()]:
        which = f"{len(silent)} of {experts} experts, among them expert {silent[0]}" if experts > 1 else "all of its inputs"
        yield f"has an entry of zeros for {which}: whatever the text, nothing is multiplied by it"


def metadata(out: Path, *, model: Path, gguf: Path) -> dict[str, Any]:
    """metadata.failures: what the GGUF's header says otherwise than the model's own files, as transformers reads them; metadata.lacking: what it has no place
    for and what changes answers far into a text, as far as `qa.long_text` cannot measure it.

    Compared: context, sizes, heads, epsilon, RoPE base and scaling, experts, bos, eos and pad, number of tokens, chat template.
    Raises MeasurementError when either cannot be read.
    """
    from transformers import AutoConfig

    from engines import hf

    reader = open_gguf(gguf)
    try:
        config = AutoConfig.from_pretrained(model, local_files_only=True, trust_remote_code=False).get_text_config()
    except Exception as error:  # the file is a stranger's: any parser below may raise anything
        raise MeasurementError(f"transformers cannot read {model / 'config.json'}: {error}. Look at that file.") from error
    header = Header(reader)
    tokenizer = hf.load_tokenizer(model)
    details = [*_hyperparameters(header, config), *_rope(header, config), *_vocabulary(header, tokenizer, config)]
    lacking = tuple(_lacking(header, config))
    measurements = [
        Measurement(name="metadata.failures", value=len(details), unit="count", details=tuple(details)),
        Measurement(name="metadata.lacking", value=len(lacking), unit="count", details=lacking),
    ]
    return {"measurements": [asdict(measurement) for measurement in measurements]}


def _lacking(header: "Header", config: Any) -> Iterator[str]:
    said, context = config.to_dict(), int(getattr(config, "max_position_embeddings", 0) or 0)
    window = reach.window(said)
    if window is not None and min(context, reach.LONGEST) - reach.SCORED < window < context and not header.own("attention.sliding_window"):
        yield (
            f"config.json lets layers attend to the last {window} tokens only (`sliding_window`), and the GGUF file has no place for that: beyond it llama.cpp "
            "attends to everything. No text here is long enough to measure what that does"
        )
    parameters = getattr(config, "rope_parameters", None) or {}
    if parameters.get("rope_type") == "dynamic":
        yield (
            f"config.json stretches positions beyond {context} tokens by the length of the text (`rope_type: dynamic`), and the GGUF file has no place for it: "
            f"use it with {context} tokens of context at most"
        )


class Header:
    """The metadata of a GGUF file."""

    def __init__(self, reader: GGUFReader) -> None:
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self._fields = reader.fields
        self.architecture = str(self.get("general.architecture"))

    def get(self, key: str) -> Any:
        """The value under a full key; None when the file does not have it."""
        field = self._fields.get(key)
        return None if field is None else field.contents()

    def own(self, key: str) -> Any:
        """The value under a key of the architecture."""
        return self.get(f"{self.architecture}.{key}")

    @property
    def tokens(self) -> int:
        """How many tokens the vocabulary has."""
        field = self._fields.get("tokenizer.ggml.tokens")
        return 0 if field is None else len(field.data)


def _hyperparameters(header: Header, config: Any) -> Iterator[str]:
    for key, attributes in HYPERPARAMETERS.items():
        stated = next(((name, value) for name in attributes if (value := getattr(config, name, None)) is not None), None)
        found = header.own(key)
        if found is None and key.endswith("epsilon"):  # Mamba's layer_norm_epsilon is that of an RMS norm
            found = header.own(EPSILON)
        if stated is None or isinstance(found, list) or isinstance(stated[1], list):  # a list has a value for each layer
            continue
        if (found is None and key in MAY_LACK) or (key in LATENT_ATTENTION and getattr(config, "kv_lora_rank", None)):
            continue
        if not _same(found, stated[1]):
            yield f"{key} is {_shown(found)}, and {stated[0]} of config.json is {stated[1]}"


def _rope(header: Header, config: Any) -> Iterator[str]:
    """Base and scaling; transformers 5 keeps both in rope_parameters, for some models once for each kind of attention."""
    parameters = getattr(config, "rope_parameters", None) or {}
    local = parameters.get("sliding_attention") or {}
    parameters = parameters.get("full_attention", parameters)
    base, kind = parameters.get("rope_theta"), parameters.get("rope_type", "default")
    if base is not None and not _same(found := header.own("rope.freq_base") or ROPE_BASE, base):
        yield f"rope.freq_base is {found}, and rope_theta of config.json is {base}"
    swa = header.own("rope.freq_base_swa")
    if swa is not None and local.get("rope_theta") is not None and not _same(swa, local["rope_theta"]):
        yield f"rope.freq_base_swa is {swa}, and rope_theta of config.json for sliding attention is {local['rope_theta']}"
    expected: dict[str, Any] = {}
    match kind:
        case "default":
            expected = {"type": None}
        case "linear" | "yarn":
            expected = {"type": kind, "factor": parameters.get("factor")}
        case "llama3":
            yield from _factors(header, kind, {FREQUENCIES: list(_frequencies(parameters, config))})
        case "longrope":
            yield from _factors(header, kind, {LONG: parameters.get("long_factor") or [], SHORT: parameters.get("short_factor") or []})
    if kind == "yarn":
        expected["original_context_length"] = parameters.get("original_max_position_embeddings")
    for key, value in expected.items():
        found = header.own(f"rope.scaling.{key}")
        found = None if found == "none" else found
        if not _same(found, value):
            yield f"rope.scaling.{key} is {_shown(found)}, and config.json says {_shown(value)}"


def _factors(header: Header, kind: str, wanted: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """The tensors by whose values positions are scaled, in which a config.json of another revision, or another model's, does not show otherwise."""
    if not wanted.keys() <= header.tensors.keys():
        yield f"{' and '.join(wanted)} {'are' if len(wanted) > 1 else 'is'} missing, and config.json asks for RoPE scaling of the type {kind}"
        return
    for name, expected in wanted.items():
        pairs = enumerate(zip(map(float, header.tensors[name].data), expected, strict=False))
        wrong = ((at, found, value) for at, (found, value) in pairs if not math.isclose(found, value, rel_tol=FACTORS))
        for at, found, value in islice(wrong, 1):
            yield f"{name} holds {found:.6g} at place {at}, and by config.json (RoPE scaling of the type {kind}) it is {value:.6g}"


def _frequencies(parameters: Mapping[str, Any], config: Any) -> Iterator[float]:
    """By what Llama 3's scaling divides the frequency of each pair of a head's values (transformers, `_compute_llama3_parameters`)."""
    factor, low, high, length = (float(parameters.get(name) or default) for name, default in LLAMA_3.items())
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    width = int(head * (parameters.get("partial_rotary_factor") or 1.0))
    for place in range(0, width, 2):
        wave = 2 * math.pi * (parameters.get("rope_theta") or ROPE_BASE) ** (place / width)
        if wave < length / high:
            yield 1.0
        elif wave >= length / low:
            yield factor
        else:
            smooth = (length / wave - low) / (high - low)
            yield 1 / ((1 - smooth) / factor + smooth)


def _vocabulary(header: Header, tokenizer: Any, config: Any) -> Iterator[str]:
    """Special tokens by what is believed first: the tokenizer, and where it names none, config.json."""
    for name, key in SPECIAL.items():
        own = getattr(tokenizer, f"{name}_token_id")
        stated = own if own is not None else getattr(config, f"{name}_token_id", None)
        allowed = stated if isinstance(stated, list) else [stated]
        if stated is not None and header.get(key) not in allowed:
            yield f"{key} is {_shown(header.get(key))}, and the model's {name} token is {stated}"
    embeddings = header.tensors.get("token_embd.weight")
    rows = 0 if embeddings is None else int(embeddings.shape[1])
    if header.tokens != rows:
        yield f"the vocabulary has {header.tokens} tokens, and token_embd.weight {rows} rows"
    if header.tokens < len(tokenizer):
        yield f"the vocabulary has {header.tokens} tokens, and the model's tokenizer {len(tokenizer)}"
    template = tokenizer.chat_template
    template = template.get("default") if isinstance(template, dict) else template
    if (found := header.get("tokenizer.chat_template")) != template:
        yield f"the embedded chat template is not the model's: {_shown(found)} instead of {_shown(template)}"


def _same(found: Any, stated: Any) -> bool:
    if found is None or stated is None or isinstance(found, str) or isinstance(stated, str):
        return bool(found == stated)
    return math.isclose(found, stated, rel_tol=TOLERANCE)


def _shown(value: Any) -> str:
    return "missing" if value is None else repr(value[:SHOWN] if isinstance(value, str) else value)
