"""How long the engines take and what memory they hold: the parts of which the costs of stages are put together, in seconds and bytes.

Seconds are of a quiet machine. What plain Python does is stated as it takes on one where gguf's reader needs PACE for an entry, and scaled to this one.
"""

import math
from dataclasses import dataclass

from service.machine.speed import Speed
from service.release.costs.outline import Outline

PACE = 2.3e-5  # seconds of an entry, see `Speed.entry`, where the constants of plain Python were measured
NARROW, WIDE, WIDEST = 256, 1024, 2048  # hidden units of the models that the machine was measured with, and up to which rates still grow
SLOWEST = 0.5  # of the narrow rate: smaller models do not get slower than that
BACKWARD = 2.3  # passes forward that one backward takes: gradients of weights and of activations, and what is kept for them
CACHE_COPY = 1.4  # times a layer's call that continuing from a copied cache takes

PYTHON_MEMORY, TORCH_MEMORY = 70 * 10**6, 420 * 10**6  # bytes of a process that has imported llama.cpp, or torch and transformers
ENTRY_MEMORY = 1000  # bytes of one entry in gguf's reader
FINEST = 7.0  # bits of the types that have kernels for matrices, at most
ROW_BY_ROW = 0.8  # times the rate of 16 bits: Q8_0 and Q5_0 reach it, Q5_1 half of it
NF4_SLOWER = 1.3  # times 16 bits: each product writes its matrix out in float32 first


@dataclass(frozen=True, kw_only=True)
class Engines:
    """One model on one machine."""

    model: Outline
    speed: Speed

    @property
    def threads(self) -> int:
        """That one model is run on."""
        return self.model.threads(self.speed.threads)

    def python(self, seconds: float) -> float:
        """What plain Python does in so many seconds where its pace was measured."""
        return seconds * self.speed.entry / PACE

    # ---- starting -------------------------------------------------------------------------------------------------------------------------

    @property
    def imports(self) -> float:
        """A Python of its own that imports torch and transformers: the program that starts the stages, and the converter."""
        return self.speed.python + self.speed.torch

    @property
    def start(self) -> float:
        """A stage, from being asked for to being gone."""
        return self.python(0.06)

    @property
    def torch(self) -> float:
        """A stage that runs transformers, with the release's tokenizer."""
        return self.start + self.python(4e-6 * self.model.entries)

    @property
    def load(self) -> float:
        """The weights into transformers, in float32."""
        return self.python(0.05) + 3.5e-9 * self.model.parameters + 2e-3 * self.model.depth + self._cold

    @property
    def _cold(self) -> float:
        """Weights that do not stay in memory from one stage to the next come from the disk."""
        return self.model.weights / self.speed.disk if self.model.weights > 2**34 else 0.0

    @property
    def header(self) -> float:
        """The tensors of one GGUF file, for which the vocabulary is passed over."""
        return self.python(2e-7 * self.model.entries + 1e-4 * 12 * self.model.depth)

    @property
    def whole_header(self) -> float:
        """The reader of gguf on one GGUF file: it makes an object of every entry of the vocabulary."""
        return self.speed.entry * self.model.entries * 0.8 + self.header

    @property
    def vocabulary(self) -> float:
        """The vocabulary of a GGUF file into llama.cpp."""
        return 0.01 + 1.4e-6 * self.model.entries

    @property
    def server(self) -> float:
        """llama-server up and down again."""
        return 0.08 + 5e-6 * self.model.entries + self.model.weights / 2e10

    # ---- evaluating -----------------------------------------------------------------------------------------------------------------------

    def rate(self, narrow: float, wide: float) -> float:
        """Operations a second and thread at this model's width."""
        slope = (wide - narrow) / math.log(WIDE / NARROW)
        return max(SLOWEST * narrow, narrow + slope * math.log(min(max(self.model.hidden, 1), WIDEST) / NARROW))

    def operations(self, tokens: float, rows: float) -> float:
        """Of a pass over so many tokens, of which `rows` have logits."""
        return 2 * (self.model.body * tokens + self.model.table * rows)

    def forward(self, tokens: float, rows: float, *, passes: float = 1.0, call: float = 1.0) -> float:
        """A pass of transformers over so many tokens, cut into that many passes; in a short pass reading the weights takes longer than computing."""
        if not tokens:
            return 0.0
        computing = self.operations(tokens, rows) / (self.rate(self.speed.narrow, self.speed.wide) * self.threads)
        reading = passes * 4 * self.model.active / self.bandwidth(self.threads)
        return passes * call * self.model.depth * self.speed.call + max(computing, reading) + 0.3 * min(computing, reading)

    def backward(self, windows: float, tokens: int) -> float:
        """Passes forward and backward over windows, with logits everywhere, each weight's gradient taken."""
        return windows * (1 + BACKWARD) * self.forward(tokens, tokens)

    def decode(self, tokens: float, rows: float, *, batch: int, bits: float, threads: int | None = None, together: int = 1) -> float:
        """Evaluating so many tokens in llama.cpp, so many at a time, with weights of so many bits; so many such evaluations run at once."""
        if not tokens:
            return 0.0
        used = self.threads if threads is None else threads
        rate = self.rate(self.speed.llama_narrow, self.speed.llama_wide) * self.pace(bits) * used
        calls = math.ceil(tokens / batch)
        reading = calls * bits / 8 * self.model.active / self.bandwidth(used, together)
        computing = self.operations(tokens, rows) / rate
        return calls * self.model.depth * self.speed.decode + max(computing, reading) + 0.3 * min(computing, reading)

    def bandwidth(self, threads: int, together: int = 1) -> float:
        """Bytes of weights a second that so many threads read, where so many groups of them do."""
        return min(self.speed.memory * threads, self.speed.shared / together)

    def pace(self, bits: float) -> float:
        """Times the rate of 16 bits. Types in blocks of 256 have kernels for matrices; those in blocks of 32 are multiplied row by row."""
        if bits > FINEST:
            return 1.0
        fitting = sum(tensor.parameters for tensor in self.model.matrices if tensor.columns % 256 == 0)
        share = fitting / max(1, sum(tensor.parameters for tensor in self.model.matrices))
        return 1 / (share / self.speed.quantized + (1 - share) / ROW_BY_ROW)

    def talk(self, prompts: int, most: int, bits: float | None = None) -> float:
        """Greedy answers to short prompts, a token at a time: in llama.cpp with weights of so many bits, else in transformers."""
        tokens = prompts * (answer(most) + PROMPT / 16)  # a prompt's tokens go in at once
        return self.forward(tokens, tokens, passes=tokens) if bits is None else self.decode(tokens, tokens, batch=1, bits=bits)

    def compared(self, rows: float, variants: int, *, difference: bool = False) -> float:
        """Divergence at so many positions: the 16-bit model's side, and each variant's."""
        return rows * self.model.vocabulary * (4.5e-9 + variants * (11e-9 if difference else 3.1e-9))

    # ---- memory ---------------------------------------------------------------------------------------------------------------------------

    @property
    def whole(self) -> int:
        """A process with the model in transformers, weights in float32; pages of the file, which is mapped, can go whenever others need the room."""
        return TORCH_MEMORY + 4 * self.model.parameters

    @property
    def reader(self) -> int:
        """The reader of gguf."""
        return ENTRY_MEMORY * self.model.entries

    def logits(self, rows: int) -> int:
        """So many rows of them."""
        return 4 * rows * self.model.vocabulary

    def opened(self, weights: float, *, context: int, batch: int) -> int:
        """A model in llama.cpp: the mapped file, the cache of keys and values in 16 bits, and the logits of a batch."""
        return round(weights) + 2 * self.model.keys * self.model.depth * context + self.logits(batch) + 4 * batch * (self.model.hidden + self.model.wide) * 4


PROMPT = 48  # tokens of a short question in a chat template


def answer(most: int) -> float:
    """Tokens of a greedy answer that may have so many: some end after a few, others only there."""
    return min(float(most), 5 * math.sqrt(most))
