"""A model as far as costs depend on it, from the shapes in its safetensors' headers and from config.json."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from builders import modalities, predicting
from builders.sensitivity import room
from builders.sensitivity.table import Tensor
from engines import text_part
from engines.model import useful_threads
from service.release.prospect import Prospect

BITS = {"BF16": 16.0, "F16": 16.0, "F32": 32.0}  # of a value in the file that everything is made from
MANY_EXPERTS = 8  # of which a token reaches so many, where config.json does not say

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_EXPERT = re.compile(r"\.experts\.(\d+)\.")
_TABLE = re.compile(r"(?:^|\.)(?:embed_tokens|wte|word_embeddings|tok_embeddings)\.weight$")
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|output|embed_out)\.weight$")


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A model of so many parameters."""

    matrices: tuple[Tensor, ...]  # in layers; experts of one kind and layer together
    layers: tuple[int, ...]  # parameters of each
    parameters: int
    vocabulary: int
    hidden: int
    wide: int  # feed-forward units of the experts that one token reaches
    keys: int  # values of keys and values of one token, in one layer
    reached: float  # share of the experts that one token reaches
    tied: bool  # one table is read at both ends
    entries: int  # of the vocabulary in a GGUF: tokens, and merges where there are any
    bits: float = 16.0  # of a value in the GGUF file that everything is made from
    seeing: int = 0  # parameters, among all, of what reads images: in no GGUF file of the text part, and not among `matrices` and `layers`
    halves: bool = False  # weights are bfloat16, in which a GPU computes passes over text
    predicting: int = 0  # parameters, among all, of layers for multi-token prediction, which nothing runs: not among `matrices` and `layers`

    @property
    def depth(self) -> int:
        """Layers."""
        return max(1, len(self.layers))

    @property
    def table(self) -> int:
        """Parameters of the table of the vocabulary, at one end."""
        return self.vocabulary * self.hidden

    @cached_property
    def body(self) -> float:
        """Parameters of the layers that one token meets."""
        experts = sum(tensor.parameters for tensor in self.matrices if tensor.experts > 1)
        return max(0.0, sum(self.layers) - experts * (1 - self.reached))

    @property
    def active(self) -> float:
        """Parameters that one token meets, output matrix included."""
        return self.body + self.table

    @property
    def weights(self) -> int:
        """Bytes of all in that file."""
        return round(self.bits / 8 * (self.parameters - self.seeing))

    @cached_property
    def inputs(self) -> int:
        """Columns of all matrices: what one token's activations are, one after another."""
        return sum(tensor.columns for tensor in self.matrices)

    @cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        """What can be quantized: the matrices, and the tables of the vocabulary."""
        tables = (Tensor(name="table", rows=self.vocabulary, columns=self.hidden),) * (1 if self.tied else 2)
        return (*self.matrices, *tables)

    @cached_property
    def shape(self) -> room.Shape:
        """As the memory of gradient passes depends on it."""
        largest = max((tensor.parameters for tensor in self.tensors), default=0)
        outside = max(0, self.parameters - self.predicting - sum(self.layers))
        return room.Shape(outside=outside, layers=self.layers, largest=largest, vocabulary=self.vocabulary, hidden=self.hidden, wide=self.wide)

    def threads(self, most: int) -> int:
        """How many threads the engines use."""
        return useful_threads(self.parameters, most)


_last: list[tuple[Prospect, Outline]] = []  # a forecast asks for the same one a hundred times, and a model may have twenty thousand tensors


def outline(prospect: Prospect) -> Outline:
    """The outline of a release; where neither headers nor config.json tell a size, it is taken to be small."""
    if not _last or _last[0][0] is not prospect:
        _last[:] = [(prospect, _outlined(prospect))]
    return _last[0][1]


def _outlined(prospect: Prospect) -> Outline:
    config = text_part.of(prospect.config)
    seeing = {name: shape for name, shape in prospect.shapes.items() if modalities.sees(prospect.config, name)}
    rest = {name: shape for name, shape in prospect.shapes.items() if name not in seeing}
    beyond = predicting.found(rest, config)
    shapes = {name: shape for name, shape in rest.items() if name not in beyond}
    table = next((shape for name, shape in shapes.items() if _TABLE.search(name) and len(shape) == 2), (int(_of(config, "vocab_size", 1)), 1))
    hidden = int(table[1]) if table[1] > 1 else int(_of(config, "hidden_size", 1))
    experts = int(_of(config, "num_local_experts", 0) or _of(config, "num_experts", 0) or _of(config, "n_routed_experts", 0))
    reached = int(_of(config, "num_experts_per_tok", 0) or min(experts, MANY_EXPERTS))
    each = int(_of(config, "moe_intermediate_size", 0) or _of(config, "intermediate_size", 0) or 4 * hidden)
    heads = int(_of(config, "num_key_value_heads", 0) or _of(config, "num_attention_heads", 0) or 1)
    width = int(_of(config, "head_dim", 0) or hidden // max(1, int(_of(config, "num_attention_heads", 1))))
    vocabulary = int(table[0])
    return Outline(
        matrices=_matrices(shapes),
        layers=_layers(shapes),
        parameters=prospect.parameters,
        vocabulary=vocabulary,
        hidden=hidden,
        wide=max(1, reached) * each,
        keys=2 * heads * width,
        reached=min(1.0, reached / experts) if experts else 1.0,
        tied=not any(_HEAD.search(name) for name in shapes),
        bits=BITS[prospect.reference],
        halves=prospect.reference == "BF16",
        entries=vocabulary * (1 if any(path.endswith("tokenizer.model") for path in prospect.sizes) else 2),
        seeing=sum(map(math.prod, seeing.values())),
        predicting=sum(math.prod(rest[name]) for name in beyond),
    )


def _of(config: Mapping[str, Any], name: str, otherwise: float) -> float:
    """A number of config.json; the files are a stranger's."""
    value = config.get(name)
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return float(value) if known and value is not None else otherwise


def _matrices(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Tensor, ...]:
    """The matrices in layers, (rows, columns) or (experts, rows, columns); experts that are stored one by one are put together."""
    found: defaultdict[tuple[str, int, int], int] = defaultdict(int)
    for name, shape in shapes.items():
        if len(shape) in (2, 3) and min(shape[-2:]) > 1 and _LAYER.search(name):
            found[_EXPERT.sub(".experts.", name), shape[-2], shape[-1]] += shape[0] if len(shape) == 3 else 1
    return tuple(Tensor(name=name, rows=rows * experts, columns=columns, experts=experts) for (name, rows, columns), experts in found.items())


def _layers(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Parameters of each layer."""
    found: defaultdict[int, int] = defaultdict(int)
    for name, shape in shapes.items():
        if match := _LAYER.search(name):
            found[int(match[1])] += math.prod(shape)
    return tuple(found[number] for number in sorted(found))
