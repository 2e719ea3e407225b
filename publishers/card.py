"""What a repo's model card says: what the repo holds, what was measured, blocked and repaired, where it came from. `publishers.readme` writes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from config.cards import Recommendation
from config.facts import Facts
from config.words import Measurement, Patch, Release, Verdict
from publishers.form import Form
from publishers.manifest import Approval, DataEntry, Waiver
from publishers.quoting import Quotation

PUBLIC = "https://huggingface.co"


@dataclass(frozen=True, kw_only=True)
class TypeUse:
    """One type in a planned mix."""

    type: str
    tensors: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Change:
    """Tensors of one kind that a planned mix stores otherwise than the stock mix does, in bits per weight, all layers together."""

    tensors: str  # "ffn_down"
    bits: float
    stock_bits: float


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Linear modules of one kind that stay in 16 bits."""

    module: str  # "mlp.down_proj"
    layers: tuple[int, ...]  # in which it does, counted from 0; none when it is outside of layers


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What a planned variant consists of."""

    stock: str | None  # the stock mix of the same size, or plain NF4
    replaced: bool  # the stock one was better, so its file is published
    rounded: bool  # anew, so that the errors of columns cancel
    types: tuple[TypeUse, ...]  # most bytes first
    more: tuple[Change, ...] = ()  # most changed first
    fewer: tuple[Change, ...] = ()
    kept: tuple[Kept, ...] = ()  # of NF4

    @property
    def bytes(self) -> int:
        """Of all matrices."""
        return sum(use.bytes for use in self.types)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured variant."""

    tag: str
    file: str  # its file in the repo; of several: the first
    bytes: int  # of all its weights
    bpw: float | None  # bits per weight
    measurements: Mapping[str, Measurement]
    verdict: Verdict
    files: int = 1  # how many hold its weights
    waivers: tuple[Waiver, ...] = ()
    mix: Mix | None = None  # of a planned variant
    fallbacks: Mapping[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)  # see `builders.quantize`


@dataclass(frozen=True, kw_only=True)
class Method:
    """What was measured on."""

    texts: tuple[str, ...]  # names of the evaluation texts
    tokens: int  # scored for divergence, of each variant at least
    windows: int
    context: int  # tokens of a window
    questions: int  # of the multiple-choice test, of each variant at least; none where nothing was asked
    shots: int
    prompts: int  # greedy answers that had to stop by themselves
    calibration: tuple[str, ...] = ()  # names of the calibration texts of the imatrix
    calibration_tokens: int = 0
    form: str = "hendrycks"  # of the prompts, as the recipe names it
    most_tokens: int = 0  # of the variants whose gates the first sample left undecided
    most_questions: int = 0
    reference: str = "BF16"  # the type of the GGUF file that others are made from and measured against, which holds the model's weights bit for bit
    data: tuple[DataEntry, ...] = ()  # of the Hub; the names of the licences are their owners' words


@dataclass(frozen=True, kw_only=True)
class Merged:
    """How a release that is an adapter became a model."""

    base: Release  # what it was merged into
    changed: int  # tensors
    unchanged: int  # tensors that the adapter is about and leaves as they are
    tensors: int  # of the model
    rounded: float  # norm of what storing in the base's types took away, as a share of the norm of the change


@dataclass(frozen=True, kw_only=True)
class Trained:
    """That the upstream was trained to be quantized."""

    type: str | None  # tag of the stock mix that it was trained for; None where nobody says which
    because: str  # what says so


@dataclass(frozen=True, kw_only=True)
class Card:
    """Everything a card says."""

    form: Form
    repo: str  # "namespace/NAME-GGUF"
    namespace: str
    release: Release
    facts: Facts
    rows: tuple[Row, ...]  # what the repo holds
    blocked: tuple[Row, ...]  # what was built for it and not published, projectors among them
    patches: tuple[Patch, ...]
    sampling: Mapping[str, Any]  # generation_config.json after the fixes
    method: Method
    tools: Mapping[str, str]  # name -> version
    recipe_name: str
    recipe_digest: str
    projectors: tuple[Row, ...] = ()  # of a model that reads images
    approvals: tuple[Approval, ...] = ()  # what the release was held for
    samplers: tuple[str, ...] = ()  # the order in which llama.cpp's samplers have to work, where the family asks for one
    ollama_template: bool = False  # the repo holds a `template` file
    ollama_proof: str = ""  # how far that is proved, or why there is none, in words
    unforced: bool = False  # the repo holds a second chat template without the `<think>` that the model's own writes
    offered: str | None = None  # address of the pull request by which the repairs were offered to the upstream
    quick: bool = False  # measured on small samples
    base: bool = False  # a base model, without a chat template
    parts: bool = False  # the chat template reads what a message holds in parts alone
    sees: bool = False  # the model reads images
    readers: tuple[str, ...] = ()  # sentences about programs that read the repo otherwise, see `config.readers`
    remarks: tuple[str, ...] = ()  # what is no fault, but good to know of the model
    hub: str | None = PUBLIC  # address of the Hub that it lies on; None where it has no lasting one
    context: int | None = None  # tokens that the model was made for
    cached: int | None = None  # tokens that `cache` is reckoned for
    cache: int | None = None  # bytes that llama.cpp keeps of a conversation of so many tokens; None where that is not known
    prompt: str | None = None  # how the model's template renders `{system}` and `{prompt}`
    plot: bool = False  # the repo holds the plot of divergence against size
    recommend: Recommendation | str | None = None  # the recipe's rule
    quotation: Quotation | None = None  # of the upstream's own card
    trained: Trained | None = None  # to be quantized
    merged: Merged | None = None  # of a release that is an adapter
    gguf: Mapping[str, str] = field(default_factory=dict)  # sha256 of the files that a model in GGUF alone was rebuilt from, by path
    header: str = ""  # Markdown of the operator's
    footer: str = ""
