"""Write a repo's model card: what it is, what was measured, what was blocked and repaired, how to run it, and where it came from.

Deterministic: equal cards give equal text. Every string of the upstream is a stranger's: it reaches the front matter through a
whitelist and YAML's own writer, and the body through `publishers.markdown`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from config.words import Kind, Measurement, Patch, Release, Verdict
from publishers import markdown, ollama, shown
from publishers.manifest import Waiver
from publishers.markdown import Markdown
from publishers.naming import NOBODY, checked_path

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_LICENSE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,95}")
_ADDRESS = re.compile(r"https?://[A-Za-z0-9.:/_-]{1,300}")
_LICENSE_LINK = re.compile(r"https://[A-Za-z0-9.-]+(?:/[A-Za-z0-9._~/%+-]*)?|[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,2}|multilingual|code")
_PIPELINE = re.compile(r"[a-z][a-z0-9-]{0,63}")

# llama.cpp's flag for each of Ollama's parameters
_FLAGS = {"temperature": "--temp", "top_k": "--top-k", "top_p": "--top-p", "min_p": "--min-p", "repeat_penalty": "--repeat-penalty"}
_PREFERRED = ("UD-Q4_K_XL", "Q4_K_M", "Q8_0")  # the best of its size, then what llama.cpp and Ollama take when asked for no tag


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the upstream's card says about itself; values that the Hub would not accept are left out of ours."""

    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    languages: tuple[str, ...] = ()
    pipeline_tag: str | None = None


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
    waivers: tuple[Waiver, ...] = ()
    mix: Mix | None = None  # of a planned variant


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """What was used of a data set on the Hub. The names of the licences are its owner's words."""

    use: str  # "calibration.chat", "evaluation.plain", "evaluation.mmlu", …
    repo: str
    commit: str
    path: str
    license: tuple[str, ...]


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
    data: tuple[DataSet, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Card:
    """Everything a card says."""

    kind: str
    repo: str  # "namespace/NAME-GGUF"
    name: str  # of the model
    namespace: str
    release: Release
    facts: Facts
    rows: tuple[Row, ...]  # what the repo holds
    blocked: tuple[Row, ...]  # what was built for it and not published
    patches: tuple[Patch, ...]
    sampling: Mapping[str, Any]  # generation_config.json after the fixes
    method: Method
    tools: Mapping[str, str]  # name -> version
    recipe_name: str
    recipe_digest: str
    ollama_template: bool = False  # the repo holds a `template` file
    offered: str | None = None  # address of the pull request by which the repairs were offered to the upstream
    quick: bool = False  # measured on small samples
    base: bool = False  # a base model, without a chat template
    remarks: tuple[str, ...] = ()  # what is no fault, but good to know of the model


def render(card: Card) -> str:
    """The README.md of `card.repo`: front matter and body. Raises ConfigurationError when a file's name cannot be published."""
    environment = _environment()
    for row in card.rows:
        checked_path(row.file)
    parameters = ollama.sampling(card.sampling)
    context = {
        "card": card,
        "front_matter": Markdown(yaml.safe_dump(front_matter(card), sort_keys=False, allow_unicode=True, width=10**6)),
        "parameters": parameters,
        "flags": Markdown("".join(f" {_FLAGS[name]} {value:g}" for name, value in parameters.items())),
        "repairs": _repairs(card.patches),
        "offered": Markdown(card.offered) if card.offered and _ADDRESS.fullmatch(card.offered) else None,
        "pick": next((row for tag in _PREFERRED for row in card.rows if row.tag == tag), card.rows[0] if card.rows else None),
        "planned": [row for row in card.rows if row.mix is not None],
        "waived": [(row, waiver) for row in card.rows for waiver in row.waivers],
        "sixteen_bit": card.kind == Kind.SIXTEEN_BIT,
        "four_bit": card.kind == Kind.BNB_4BIT,
    }
    return environment.get_template("card.md.j2").render(context)


def front_matter(card: Card) -> dict[str, Any]:
    """The metadata that the Hub reads, in the order in which it is written.

    `base_model_relation` knows adapter, merge, quantized and finetune. The repaired 16-bit repo is none of these, for its weights
    are the upstream's own: it names its base model and leaves the relation out.
    """
    facts, gguf, four_bit = card.facts, card.kind == Kind.GGUF, card.kind == Kind.BNB_4BIT
    data: dict[str, Any] = {} if card.release.local else {"base_model": card.release.repo}  # nobody could follow the name of a folder
    if card.kind != Kind.SIXTEEN_BIT:
        data |= {} if card.release.local else {"base_model_relation": "quantized"}
        data |= {} if card.namespace == NOBODY else {"quantized_by": card.namespace}
    if facts.license and _LICENSE.fullmatch(facts.license):
        data["license"] = facts.license
        if facts.license == "other":
            data["license_name"] = facts.license_name if facts.license_name and _LICENSE_NAME.fullmatch(facts.license_name) else "unknown"
            if facts.license_link and _LICENSE_LINK.fullmatch(facts.license_link):
                data["license_link"] = facts.license_link
    if languages := [language for language in facts.languages if _LANGUAGE.fullmatch(language)]:
        data["language"] = languages
    data["pipeline_tag"] = facts.pipeline_tag if facts.pipeline_tag and _PIPELINE.fullmatch(facts.pipeline_tag) else "text-generation"
    data["library_name"] = "gguf" if gguf else "transformers"
    data["tags"] = [
        "sluice",
        *([] if card.base else ["conversational"]),
        *(["gguf", "imatrix"] if gguf else []),
        *(["bitsandbytes", "4-bit", "nf4"] if four_bit else []),
    ]
    return data


def _repairs(patches: Sequence[Patch]) -> list[tuple[Patch, list[tuple[Patch, Markdown, Markdown]]]]:
    """The patches of one fix and reason together, each with what was there before and after; the first of them names the fix."""
    groups: dict[tuple[str, int, str], list[Patch]] = {}
    for patch in patches:
        groups.setdefault((patch.fix, patch.version, patch.reason), []).append(patch)
    return [(group[0], [(patch, *markdown.excerpts(patch.before, patch.after)) for patch in group]) for group in groups.values()]


def _number(value: float) -> str:
    return f"{value:,}"


def _changes(changes: Sequence[Change]) -> Markdown:
    return Markdown(", ".join(f"{markdown.code(change.tensors)} ({change.bits:.2f} instead of {change.stock_bits:.2f})" for change in changes))


def _kept(modules: Sequence[Kept]) -> Markdown:
    """Each kind of module with the layers in which it is: `mlp.down_proj` (layers 1, 7)."""
    told = {item.module: f" (layer{'s' if len(item.layers) > 1 else ''} {', '.join(map(str, item.layers))})" if item.layers else "" for item in modules}
    return Markdown("; ".join(markdown.code(module) + layers for module, layers in told.items()))


def _flips(found: Measurement | None) -> str:
    if found is None:
        return "—"
    return f"{found.value:.0f}" + (f" of {found.n:,}" if found.n is not None else "")


@cache
def _environment() -> Environment:
    """The templates, compiled once."""
    environment = Environment(  # noqa: S701 - this is Markdown, and `finalize` escapes all that is not marked as such
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        finalize=markdown.text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": markdown.code, "word": markdown.word, "size": shown.size, "share": shown.share, "nats": shown.nats}
    environment.filters |= {"flips": _flips, "number": _number, "changes": _changes, "kept": _kept}
    return environment
