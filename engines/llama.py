"""GGUF models in llama.cpp, through its C interface: vocabulary, metadata, logits, shared prefixes and greedy generation."""

import ctypes
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as c
import numpy as np
import numpy.typing as npt

from config.errors import MeasurementError, ToolError
from config.progress import report
from engines.model import Floats, useful_threads
from engines.repetition import lost

BATCH = 512  # tokens in one call of llama_decode, at most
NO_TOKEN = -1  # LLAMA_TOKEN_NULL
ERROR, CONTINUED = 4, 5  # levels of ggml_log_level

_errors: deque[str] = deque(maxlen=20)  # the last error lines of llama.cpp, which reports reasons only by its log
_last_level = [0]


def _keep_errors(level: int, text: bytes, _user_data: object) -> None:
    if level != CONTINUED:
        _last_level[0] = level
    if _last_level[0] == ERROR:
        _errors.append(text.decode("utf-8", errors="replace").strip())


heard = c.llama_log_callback(_keep_errors)  # llama.cpp keeps the pointer, so the object must live as long as the module
c.llama_log_set(heard, ctypes.c_void_p(0))
c.llama_backend_init()


@contextmanager
def open_vocabulary(path: Path) -> Iterator["Vocabulary"]:
    """Tokenizer and metadata of a GGUF file, without its weights. Raises ToolError when llama.cpp cannot read the file."""
    with loaded(path, vocab_only=True) as model:
        yield Vocabulary(path=path, model=model)


@contextmanager
def open_model(
    path: Path,
    *,
    context: int,
    threads: int,
    sequences: int = 1,
    batch: int = BATCH,
    check_tensors: bool = False,
    hidden: bool = False,
    apart: bool = False,
    watcher: Any = None,
) -> Iterator["LlamaModel"]:
    """A GGUF model ready to evaluate while the block runs.

    `context` is how many tokens its memory holds, all sequences together; `threads` the most to use; `sequences` how many continuations of one prefix are
    evaluated at a time; `batch` how many tokens: fewer need less memory; `check_tensors` reads every tensor and refuses values that are not finite; `hidden` is
    what the method of that name needs; `apart` gives each sequence its own equal share of the memory, as `engines.parallel` needs; `watcher` is shown each
    step of a computation, see `engines.graph`.
    Raises ToolError when llama.cpp cannot load the file.
    """
    with loaded(path, vocab_only=False, check_tensors=check_tensors) as model:
        settings = c.llama_context_default_params()
        settings.n_ctx = context
        settings.n_batch = settings.n_ubatch = batch
        settings.n_threads = settings.n_threads_batch = useful_threads(int(c.llama_model_n_params(model)), threads)
        settings.n_seq_max = sequences if apart else sequences + 1  # sequence 0 holds the prefix
        settings.embeddings = hidden
        if watcher is not None:
            settings.cb_eval = watcher
        settings.kv_unified = not apart  # so that sequences share the cells of a common prefix
        pointer = c.llama_init_from_model(model, settings)
        if pointer is None:
            raise ToolError(f"llama.cpp cannot evaluate {path} with a context of {context} tokens: {reason()}. Is there enough memory?")
        try:
            yield LlamaModel(vocabulary=Vocabulary(path=path, model=model), context=context, sequences=sequences, pointer=pointer, batch=_Batch(batch))
        finally:
            c.llama_free(pointer)


@contextmanager
def loaded(path: Path, *, vocab_only: bool, check_tensors: bool = False) -> Iterator[int]:
    """The `llama_model` of a file while the block runs. Raises ToolError when llama.cpp cannot read it."""
    settings = c.llama_model_default_params()
    settings.vocab_only = vocab_only
    settings.check_tensors = check_tensors
    size = path.stat().st_size if path.exists() else 0
    read = c.llama_progress_callback(lambda share, _: _read(share, size))
    if not vocab_only:
        settings.progress_callback = read
    _errors.clear()
    model = c.llama_model_load_from_file(str(path).encode(), settings)
    if model is None:
        raise ToolError(f"llama.cpp cannot load {path}: {reason()}. The file is damaged, or of an architecture that this version does not know.")
    try:
        yield model
    finally:
        c.llama_model_free(model)


def _read(share: float, size: int) -> bool:
    """Report how much of a file of so many bytes was read; whether to go on."""
    report(round(share * size), size, "bytes")
    return True


def reason() -> str:
    """What llama.cpp said last of what it could not do."""
    return "; ".join(line for line in _errors if line) or "it gave no reason"


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Tokenizer and metadata of a loaded GGUF file."""

    path: Path
    model: Any  # llama_model pointer

    @cached_property
    def _vocab(self) -> Any:
        return c.llama_model_get_vocab(self.model)

    @property
    def size(self) -> int:
        """Number of token ids."""
        return int(c.llama_vocab_n_tokens(self._vocab))

    @property
    def bos(self) -> int | None:
        """Id of the beginning-of-sequence token."""
        return _token(c.llama_vocab_bos(self._vocab))

    @property
    def eos(self) -> int | None:
        """Id of the end-of-sequence token."""
        return _token(c.llama_vocab_eos(self._vocab))

    @property
    def pad(self) -> int | None:
        """Id of the padding token."""
        return _token(c.llama_vocab_pad(self._vocab))

    @property
    def trained_context(self) -> int:
        """Longest sequence the model was made for, in tokens."""
        return int(self.metadata[f"{self.metadata['general.architecture']}.context_length"])

    @property
    def adds_bos(self) -> bool:
        """Whether tokenizing with `add_special` puts BOS in front."""
        return bool(c.llama_vocab_get_add_bos(self._vocab))

    @cached_property
    def tokens(self) -> tuple[bytes, ...]:
        """Every token as the file holds it, by id."""
        return tuple(c.llama_vocab_get_text(self._vocab, token) for token in range(self.size))

    @cached_property
    def end_of_generation(self) -> frozenset[int]:
        """Ids at which llama.cpp stops generating: eos, and what it recognizes as end of turn by name."""
        return frozenset(token for token in range(self.size) if c.llama_vocab_is_eog(self._vocab, token))

    @cached_property
    def control(self) -> frozenset[int]:
        """Ids of the control tokens: BOS, ends of turns and the like."""
        return frozenset(token for token in range(self.size) if c.llama_vocab_is_control(self._vocab, token))

    @cached_property
    def unused(self) -> frozenset[int]:
        """Ids of no token: rows that only pad the embeddings, for the most part. They are written as nothing at all."""
        return frozenset(token for token in range(self.size) if c.llama_vocab_get_attr(self._vocab, token) & c.LLAMA_TOKEN_ATTR_UNUSED)

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The file's metadata, each value written out as text; llama.cpp leaves out arrays, such as the vocabulary."""
        pairs = (
            (_text(lambda buffer, size, i=i: c.llama_model_meta_key_by_index(self.model, i, buffer, size)), i)
            for i in range(c.llama_model_meta_count(self.model))
        )
        return {key: _text(lambda buffer, size, i=i: c.llama_model_meta_val_str_by_index(self.model, i, buffer, size)) for key, i in pairs}

    @property
    def chat_template(self) -> str | None:
        """The embedded chat template."""
        template = c.llama_model_chat_template(self.model, None)
        return None if template is None else template.decode("utf-8", errors="replace")

    def piece(self, token: int | None) -> str:
        """How a token is written, `<s>` for instance; the empty text for None."""
        return "" if token is None else self.detokenize([token])

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """See `engines.model.Model`."""
        encoded = text.encode("utf-8")
        room = len(encoded) + 8  # never more tokens than bytes, plus the special ones
        tokens = (c.llama_token * room)()
        count = c.llama_tokenize(self._vocab, encoded, len(encoded), tokens, room, add_special, parse_special)
        if count < 0:
            raise MeasurementError(f"llama.cpp cannot tokenize a text of {len(encoded)} bytes with {self.path}: it asks for room for {-count} tokens.")
        return list(tokens[:count])

    def detokenize(self, tokens: Sequence[int]) -> str:
        """See `engines.model.Model`. Bytes that are no UTF-8 become U+FFFD."""
        array = (c.llama_token * len(tokens))(*tokens)
        size = c.llama_detokenize(self._vocab, array, len(tokens), None, 0, False, True)
        buffer = ctypes.create_string_buffer(max(1, -size))
        written = c.llama_detokenize(self._vocab, array, len(tokens), buffer, -size, False, True)
        return buffer.raw[: max(0, written)].decode("utf-8", errors="replace")


Entries = npt.NDArray[np.int32]
"""Tokens to evaluate (n, 4): token, position, sequence, and whether its logits are wanted."""


class _Batch:
    """A llama_batch of at most `size` tokens in numpy's memory: written by columns, which is many times faster than by ctypes' elements."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.tokens, self.positions, self.sequences = (np.zeros(size, dtype=np.int32) for _ in range(3))
        self.wanted = np.zeros(size, dtype=np.int8)
        self._counts = np.ones(size, dtype=np.int32)  # each token belongs to one sequence
        integer = ctypes.POINTER(ctypes.c_int32)
        start = self.sequences.ctypes.data
        self._lists = (integer * size)(*(ctypes.cast(start + 4 * i, integer) for i in range(size)))
        self.struct = c.llama_batch(
            n_tokens=0,
            token=self.tokens.ctypes.data_as(integer),
            embd=None,
            pos=self.positions.ctypes.data_as(integer),
            n_seq_id=self._counts.ctypes.data_as(integer),
            seq_id=self._lists,
            logits=self.wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def fill(self, entries: Entries) -> int:
        """Write entries; how many are wanted."""
        count = self.struct.n_tokens = len(entries)
        self.tokens[:count], self.positions[:count], self.sequences[:count], self.wanted[:count] = entries.T
        return int(entries[:, 3].sum())


@dataclass(frozen=True, kw_only=True)
class LlamaModel:
    """An `engines.model.Model` that runs in llama.cpp."""

    vocabulary: Vocabulary
    context: int
    sequences: int
    pointer: Any  # llama_context pointer
    batch: _Batch  # filled again for each call

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """See `engines.model.Model`."""
        return self.vocabulary.tokenize(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """See `engines.model.Model`."""
        return self.vocabulary.detokenize(tokens)

    def logits(self, tokens: Sequence[int], first: int) -> Floats:
        """See `engines.model.Model`."""
        return self._whole(self.logits_in_parts(tokens, first))

    def logits_in_parts(self, tokens: Sequence[int], first: int, *, start: int = 0) -> Iterator[Floats]:
        """The same in consecutive parts of at most a batch, none of them copied: each is llama.cpp's memory, and valid until the next is asked for. The first
        token stands at position `start`.
        """
        self._clear()
        yield from self._decoded(_sequence(tokens, first) + np.array([0, start, 0, 0], dtype=np.int32))

    def hidden(self, tokens: Sequence[int]) -> Floats:
        """What enters the output matrix (len(tokens), width) at each position of one sequence; the model must be open with `hidden`."""
        self._clear()
        width = int(c.llama_model_n_embd(self.vocabulary.model))
        rows = [
            np.ctypeslib.as_array(c.llama_get_embeddings(self.pointer), (len(logits), width)).copy() for logits in self._decoded(_sequence(tokens, first=0))
        ]
        return np.concatenate(rows)

    def continuations(self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]]) -> Floats:
        """See `engines.model.Model`. As many suffixes as memory, sequences and one batch allow are evaluated together."""
        self._clear()
        self._decode(_sequence(prefix, first=len(prefix)))
        rows: list[Floats] = []
        for group in self._groups(suffixes, room=min(self.batch.size, self.context - len(prefix))):
            rows.append(self._branches(prefix, group))
            report(sum(map(len, rows)), len(suffixes), "continuations")
        return np.concatenate(rows) if rows else np.zeros((0, self.vocabulary.size), dtype=np.float32)

    def generate(self, prompt: Sequence[int], *, max_tokens: int, stop: Collection[int]) -> list[int]:
        """See `engines.model.Model`."""
        self._clear()
        row = self._decode(_sequence(prompt, first=len(prompt) - 1))
        answer = [int(row[-1].argmax())]
        while answer[-1] not in stop and len(answer) < max_tokens and len(prompt) + len(answer) < self.context and not lost(answer):
            row = self._decode(np.array([(answer[-1], len(prompt) + len(answer) - 1, 0, True)], dtype=np.int32))
            answer.append(int(row[-1].argmax()))
            report(len(answer), max_tokens, "tokens")
        return answer

    def evaluate(self, entries: Entries) -> None:
        """Evaluate at most a batch of entries of any sequences, after what is in memory of each; the logits stay with llama.cpp. Raises MeasurementError."""
        for _ in self._decoded(entries):
            pass

    def forget(self, sequence: int) -> None:
        """Free the memory of a sequence."""
        c.llama_memory_seq_rm(c.llama_get_memory(self.pointer), sequence, -1, -1)

    def _groups(self, suffixes: Sequence[Sequence[int]], room: int) -> Iterator[list[Sequence[int]]]:
        """Neighbouring suffixes, at most `sequences` of them and `room` tokens together."""
        group: list[Sequence[int]] = []
        for suffix in suffixes:
            if group and (len(group) == self.sequences or sum(map(len, group)) + len(suffix) > room):
                yield group
                group = []
            group.append(suffix)
        if group:
            yield group

    def _branches(self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]]) -> Floats:
        """Logits (len(suffixes), vocabulary) at each suffix's end; the prefix is in memory as sequence 0 and stays there."""
        memory = c.llama_get_memory(self.pointer)
        entries = []
        for branch, suffix in enumerate(suffixes, start=1):
            c.llama_memory_seq_cp(memory, 0, branch, -1, -1)
            entries += [(token, len(prefix) + i, branch, i == len(suffix) - 1) for i, token in enumerate(suffix)]
        rows = self._decode(np.array(entries, dtype=np.int32))
        for branch in range(1, len(suffixes) + 1):
            c.llama_memory_seq_rm(memory, branch, -1, -1)
        return rows

    def _clear(self) -> None:
        c.llama_memory_clear(c.llama_get_memory(self.pointer), True)

    def _decode(self, entries: Entries) -> Floats:
        """Evaluate entries; logits (number of wanted, vocabulary) in their order. Raises MeasurementError."""
        return self._whole(self._decoded(entries))

    def _whole(self, parts: Iterable[Floats]) -> Floats:
        copies = [part.copy() for part in parts]
        if len(copies) == 1:
            return copies[0]  # concatenating would copy what may be the largest array of all once more
        return np.concatenate(copies) if copies else np.zeros((0, self.vocabulary.size), dtype=np.float32)

    def _decoded(self, entries: Entries) -> Iterator[Floats]:
        """Evaluate entries, a batch at a time; the logits of each that has any, in llama.cpp's memory. Raises MeasurementError."""
        for start in range(0, len(entries), self.batch.size):
            wanted, count = self.batch.fill(entries[start : start + self.batch.size]), self.batch.struct.n_tokens
            _errors.clear()
            status = c.llama_decode(self.pointer, self.batch.struct)
            if status != 0:
                why = "its memory is full" if status == 1 else reason()
                raise MeasurementError(f"llama.cpp cannot evaluate {self.vocabulary.path} on {count} tokens: {why} (code {status}, room for {self.context}).")
            if wanted:
                yield np.ctypeslib.as_array(c.llama_get_logits(self.pointer), (wanted, self.vocabulary.size))


def _sequence(tokens: Sequence[int], first: int) -> Entries:
    """One sequence from its beginning, with logits from position `first` on."""
    positions = np.arange(len(tokens), dtype=np.int32)
    return np.column_stack([np.asarray(tokens, dtype=np.int32), positions, np.zeros_like(positions), (positions >= first).astype(np.int32)])


def _token(value: int) -> int | None:
    return None if value == NO_TOKEN else int(value)


def _text(fill: Any) -> str:
    """What a C function writes into a buffer: it is called once for the length and once for the bytes."""
    length = fill(None, 0)
    if length < 0:
        return ""
    buffer = ctypes.create_string_buffer(length + 1)
    fill(buffer, length + 1)
    return buffer.value.decode("utf-8", errors="replace")
