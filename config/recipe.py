"""A recipe: what to build from a release, how to measure it, and which gates it must pass."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from config.cards import CardRules
from config.defaults import default
from config.digests import content_digest
from config.plans import Budget, GgufType, Nf4Budget, Profile, ProjectorType, Rules, StoredType
from config.rules import SystemPrompt
from config.strict import Strict
from config.texts import Evaluation, Text
from config.words import Kind, Variant

ASKED = ("mmlu", "flips", "efficiency")  # first words of the measurements that rest on answers to questions
GROWING = {"flips", "mmlu.wins", "mmlu.losses", "mmlu.mcnemar_p"}  # with the number of questions, so that no bound on them holds for samples of any size


class Dynamic(Budget):
    """A planned mix: every tensor has the type in which it does most good. Written as a mere tag when the tag says the size: `UD-Q4_K_XL`."""

    tag: str = Field(max_length=40, pattern=r"^[A-Za-z0-9]+([_-][A-Za-z0-9]+)*$")
    """Name of the variant, as in NAME-TAG.gguf."""
    profile: Profile = "any"
    """Where the file must run fast, see below."""
    rules: Rules = Rules()
    """What the mix must keep to."""
    rounding: bool = True
    """Round each matrix anew so that its errors cancel on calibration text: same types and bytes, lower divergence. Takes 4 · columns² bytes a matrix."""

    @model_validator(mode="before")
    @classmethod
    def _by_convention(cls, value: Any) -> Any:
        entry = {"tag": value} if isinstance(value, str) else value
        if isinstance(entry, dict) and isinstance(entry.get("tag"), str) and all(entry.get(name) is None for name in Budget.model_fields):
            return {**entry, "like": stock_of(entry["tag"])}
        return entry

    @model_validator(mode="after")
    def _something_is_allowed(self) -> Self:
        self.rules.within(self.profile)
        return self

    @property
    def variant(self) -> Variant:
        """What is to be published."""
        return Variant(tag=self.tag, kind=Kind.GGUF, planned=True, like=self.like)

    @property
    def budget(self) -> Budget:
        """How large the file may be."""
        return Budget(**{name: getattr(self, name) for name in Budget.model_fields})


def stock_of(tag: str) -> str:
    """The stock mix whose bytes a variant of this name is expected to have: UD-Q4_K_XL is as large as Q4_K_M, UD-IQ2_M as IQ2_M. Raises ValueError.

    llama.cpp has no mixes that end in _XL: such a name means a planned one also without UD- before it.
    """
    name = tag.removeprefix("UD-")
    bare = name.removesuffix("_XL")
    for stock in {"Q8_K_XL": "Q8_0"}.get(name, name), f"{bare}_M", bare:
        if bare != tag and stock in get_args(GgufType) and stock not in {"BF16", "F32"}:
            return stock
    raise ValueError(f"{tag!r} does not say how large the variant may be, as UD-Q4_K_XL or UD-IQ2_M do; add `like`, `bytes`, `bpw` or `fit` to it")


def _is_planned(tag: str) -> bool:
    """Whether a name by itself means a planned mix."""
    try:
        return bool(stock_of(tag))
    except ValueError:
        return False


SIXTEEN_BIT = "16bit"  # tag of the fixed 16-bit safetensors
PLAIN_NF4 = "bnb-4bit"  # tag of the plain NF4 variant
_PLAIN_NF4 = Variant(tag=PLAIN_NF4, kind=Kind.BNB_4BIT)


def _names_its_form(tag: str) -> str:
    if not tag.endswith(f"-{PLAIN_NF4}"):
        raise ValueError(f"{tag!r} must end in -{PLAIN_NF4}, as dynamic-{PLAIN_NF4} does: the tag is the end of the repo's name, which tells what it holds")
    return tag


class DynamicNf4(Nf4Budget):
    """Planned NF4 safetensors: the linear layers that 4 bits hurt most stay in 16 bits. A mere tag means a tenth more bytes than plain ones have."""

    tag: Annotated[str, AfterValidator(_names_its_form)] = Field(max_length=40, pattern=r"^[A-Za-z0-9]+([_-][A-Za-z0-9]+)*$")
    """Name of the variant, and of its repo, NAME-TAG: `dynamic-bnb-4bit`."""

    @model_validator(mode="before")
    @classmethod
    def _tag_alone(cls, value: Any) -> Any:
        return {"tag": value} if isinstance(value, str) else value

    @property
    def variant(self) -> Variant:
        """What is to be published."""
        return Variant(tag=self.tag, kind=Kind.BNB_4BIT, planned=True, like=PLAIN_NF4)

    @property
    def budget(self) -> Nf4Budget:
        """How large the files may be."""
        return Nf4Budget(**{name: getattr(self, name) for name in Nf4Budget.model_fields})


class Other(Strict):
    """A variant of a kind that the recipe has no key for. Written as a mere tag when its kind needs to know nothing else."""

    tag: str = Field(max_length=40, pattern=r"^[A-Za-z0-9]+([_-][A-Za-z0-9]+)*$")
    """Name of the variant."""
    options: Mapping[str, Any] = {}
    """What its kind wants to know of it."""

    @model_validator(mode="before")
    @classmethod
    def _tag_alone(cls, value: Any) -> Any:
        return {"tag": value} if isinstance(value, str) else value


def _in_capitals(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class Variants(Strict):
    """Which variants to build."""

    gguf: tuple[Literal[GgufType, StoredType], ...] = ()
    """llama.cpp's stock mixes, made with the imatrix. Of BF16, F16 and F32 the one that holds the upstream's weights bit for bit is the conversion itself, from
    which all others are made; F16 wants a gate on `float16.failures`. MXFP4 is for releases that store weights in it, as gpt-oss does: upstream's own bits, and
    all else as in the 16-bit file."""
    qat: Annotated[GgufType | None, BeforeValidator(_in_capitals)] = None
    """The type that the upstream was trained for (quantization-aware training): built like those of `gguf`, and compared with the planned mixes on the card. A
    model whose name says so, or its card's tags or base model, needs no word here, as long as the type is among the variants."""
    dynamic: tuple[Dynamic, ...] = ()
    """Planned mixes, each no larger than its budget."""
    bnb_4bit: bool = False
    """Plain bitsandbytes NF4 safetensors."""
    dynamic_bnb_4bit: tuple[DynamicNf4, ...] = ()
    """Planned NF4 safetensors, each in a repo of its own beside the plain ones'."""
    sixteen_bit: bool = True
    """The fixed 16-bit safetensors."""
    mmproj: tuple[ProjectorType, ...] = get_args(ProjectorType)
    """Of models that read images: the projectors that go with GGUF files, as `mmproj-TYPE.gguf`. llama.cpp's `-hf` takes the one whose bits are nearest to
    those of the model's file. F16 passes only where float16 can hold what enters its matrices. An empty list: none."""
    multi_token_prediction: bool = True
    """Keep layers for multi-token prediction (MTP, NextN) in GGUF files: llama.cpp runs them only to draft, and they are Q8_0. `false` leaves them out."""
    others: Mapping[str, tuple[Other, ...]] = {}
    """Variants of further kinds, by the word of their kind, which is a file in `service/release/kinds`."""

    @model_validator(mode="before")
    @classmethod
    def _planned_ones_have_a_list_of_their_own(cls, value: Any) -> Any:
        named = value.get("gguf") if isinstance(value, dict) else None
        planned = [tag for tag in named if isinstance(tag, str) and _is_planned(tag)] if isinstance(named, list | tuple) else []
        if planned:
            raise ValueError(f"llama.cpp has no stock mix of the name {', '.join(planned)}: name what is to be planned under `dynamic`, not under `gguf`")
        return value

    @model_validator(mode="before")
    @classmethod
    def _with_baseline(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("qat"), str):
            return value
        stock, baseline = value.get("gguf") or (), value["qat"].upper()
        return value if baseline in stock else {**value, "gguf": [*stock, baseline]}

    def listed(self) -> tuple[Variant, ...]:
        """Every variant of the recipe, in the order in which they are built and shown."""
        sixteen = (Variant(tag=SIXTEEN_BIT, kind=Kind.SIXTEEN_BIT),) if self.sixteen_bit else ()
        bnb = (_PLAIN_NF4,) if self.bnb_4bit else ()
        stock = tuple(Variant(tag=tag, kind=Kind.GGUF) for tag in self.gguf)
        planned = tuple(entry.variant for entry in self.dynamic)
        four_bit = tuple(entry.variant for entry in self.dynamic_bnb_4bit)
        others = tuple(Variant(tag=entry.tag, kind=kind) for kind, entries in self.others.items() for entry in entries)
        return sixteen + stock + planned + bnb + four_bit + others

    def projectors(self) -> tuple[Variant, ...]:
        """The projectors of a model that reads images: parts of its GGUF files' repo, none without these."""
        return tuple(Variant(tag=f"mmproj-{type}", kind=Kind.MMPROJ) for type in self.mmproj) if self.gguf or self.dynamic else ()

    def mix(self, tag: str) -> Dynamic | None:
        """What the recipe says of a planned mix; None of what is none."""
        return next((entry for entry in self.dynamic if entry.tag == tag), None)

    def nf4_mix(self, tag: str) -> DynamicNf4 | None:
        """Likewise of planned NF4."""
        return next((entry for entry in self.dynamic_bnb_4bit if entry.tag == tag), None)

    @property
    def planned(self) -> dict[str, Dynamic | DynamicNf4]:
        """What the recipe says of the planned variants, by tag."""
        return {entry.tag: entry for entry in self.dynamic} | {entry.tag: entry for entry in self.dynamic_bnb_4bit}

    @property
    def yardsticks(self) -> tuple[Variant, ...]:
        """What planned variants are compared with and what is not among the variants: stock mixes, plain NF4."""
        stock = dict.fromkeys(entry.like for entry in self.dynamic if entry.like is not None and entry.like not in self.gguf)
        plain = (_PLAIN_NF4,) if self.dynamic_bnb_4bit and not self.bnb_4bit else ()
        return (*(Variant(tag=tag, kind=Kind.GGUF) for tag in stock), *plain)

    @model_validator(mode="after")
    def _tags_are_unique(self) -> Self:
        # llama.cpp matches a tag in any case, and a planned mix under a stock mix's name would be taken for it
        others = [entry.tag for entries in self.others.values() for entry in entries]
        own = [*(variant.tag for variant in self.listed() if variant.planned), *others]
        taken = [tag.lower() for tag in (SIXTEEN_BIT, PLAIN_NF4, *get_args(GgufType), *get_args(StoredType), *own)]
        repeated = {tag for tag in self.gguf if self.gguf.count(tag) > 1} | {tag for tag in own if taken.count(tag.lower()) > 1}
        if repeated:
            raise ValueError(f"every variant needs a tag of its own, and none may have a stock mix's name; repeated: {', '.join(sorted(repeated))}")
        return self


class Gate(Strict):
    """A condition on one measurement, with its error: the bound must hold at 95 % confidence (one-sided).

    A bound is a value, or with `relative_to` a factor or a difference. So `{measure: kld.mean, relative_to: published, compare: ratio, at_most: 1.05}` asks for
    at most 1.05 times the mean divergence of what is published.
    """

    name: str
    """What verdicts, waivers and cards call it; unique in the recipe."""
    measure: str
    """Name of the measurement, e.g. `kld.mean`."""
    at_most: float | None = None
    """The upper bound; of the two give one."""
    at_least: float | None = None
    """The lower bound."""
    relative_to: str | None = None
    """What the bound is relative to: the tag of a variant of the same recipe; `stock`, the stock mix of the same size, or plain NF4, which applies to planned
    variants only; or `published`, what was last published of the same variant of the same upstream repo. What was measured on other text or questions cannot
    be compared, which blocks like a measurement that is missing; before anything is published, the gate passes and says so."""
    compare: Literal["ratio", "difference"] | None = None
    """With `relative_to`: whether the bound is a factor of the other value or is added to it."""
    kinds: tuple[str, ...] = ()
    """The gate applies to variants of these kinds; to all when empty."""
    tags: tuple[str, ...] = ()
    """The gate applies to these variants only; to all when empty."""
    scope: Literal["release", "variant"] = "variant"
    """`release`: measured once on the 16-bit model; when it fails, every variant is blocked and nothing more is built."""

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("give exactly one of `at_most` and `at_least`")
        if (self.relative_to is None) != (self.compare is None):
            raise ValueError("`relative_to` and `compare` go together: say `compare: ratio` or `compare: difference`, or leave out both")
        if self.relative_to is not None and self.scope == "release":
            raise ValueError("what is measured on the release itself cannot be relative to a variant: leave out `relative_to` or `scope: release`")
        return self

    def applies_to(self, variant: Variant) -> bool:
        """Whether the gate is for this variant: of its kind and tags, not relative to itself or to a stock mix that it has not, and on a plan if it has one."""
        there = self.relative_to != variant.tag and (self.relative_to != "stock" or variant.like is not None)
        there &= variant.planned or not self.measure.startswith("plan.")
        return self.names(variant) and there

    def names(self, variant: Variant) -> bool:
        """Whether the variant is among its kinds and tags. What is said of all variants is said of models, and of no mere part of one."""
        if variant.kind == Kind.MMPROJ and not self.kinds and not self.tags:
            return False
        return (not self.kinds or variant.kind in self.kinds) and (not self.tags or variant.tag in self.tags)


def _default_gates(given: dict[str, Any]) -> tuple[Gate, ...]:
    """The usual gates on what a recipe with these sections measures, for the variants that it builds."""
    variants: tuple[Variant, ...] = (*given["variants"].listed(), *given["variants"].projectors())
    measured = {"generated": given["calibration"].generated or given["evaluation"].divergence.generated}
    measured |= dict.fromkeys(ASKED, given["evaluation"].mmlu is not None)
    gates = (Gate.model_validate(gate) for gate in default("gates"))
    return tuple(
        gate
        for gate in gates
        if measured.get(gate.measure.partition(".")[0], True)
        and {*gate.tags} <= {variant.tag for variant in variants}
        and any(gate.applies_to(variant) for variant in variants)
    )


class Publishing(Strict):
    """How what passed is published."""

    hold: Literal["always", "on_warnings", "never"] = "never"
    """Hold a run before it publishes, with everything built, measured and judged, until a person approves it by `sluice approve`: `always`; `on_warnings`,
    which are variants that a gate kept back, waivers, and remarks of measurements; or `never`. What is left in folders is not held."""


class Recipe(Strict):
    """What to build from a release, how to measure it, which gates it must pass. What it leaves out is as in `config/defaults.yaml`."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """What cards, reports and tables call it."""
    variants: Variants = Field(default_factory=lambda: Variants.model_validate(default("variants")))
    """What is built."""
    quick: bool = False
    """A mark on card, verdicts and tables: the samples are small, and the figures no full measurements. `--quick` sets it, and small sizes."""
    fixes: bool | Literal["auto"] = True
    """Apply the fix rules. What a rule derives of a model that no family vouches for is proposed, and the release held until a person approves it by
    `sluice approve`; with `auto` it is done at once. Removing code from configs is not a fix and always happens."""
    system_prompt: SystemPrompt = "keep"
    """What becomes of a system prompt that the upstream's chat template writes where a conversation brings none, as Qwen2.5's and SmolLM2's do: `keep` leaves
    it, as its makers want it; `remove` takes it out of the template, so that such conversations have none, also with `fixes: false`, and the run ends where no
    change can be proved to do that and nothing else. What a template writes before a system message as well, as Llama 3's does with the day, is part of its
    format and stays."""
    calibration: Text = Field(default_factory=lambda: Text.model_validate(default("calibration")))
    """What importance matrices and planned mixes are made from."""
    evaluation: Evaluation = Field(default_factory=Evaluation)
    """What every variant is measured on."""
    gates: tuple[Gate, ...] = Field(default_factory=_default_gates, min_length=1)
    """What must hold. Left out: the usual ones of `config/defaults.yaml`, on what the recipe measures."""
    card: CardRules = CardRules()
    """Which file cards recommend."""
    on_rollback: Literal["follow", "hold"] = "hold"
    """What happens when the watched revision moves back to an older commit than it named before: `hold` leaves the newer release published until a person
    approves the older one by `sluice approve`; `follow` publishes the older one over it at once. It decides nothing of what is built, so that a change of it
    makes no new run."""
    read_back: Literal["smallest", "all", "none"] = "smallest"
    """Which variants with new bytes are downloaded from the Hub, of each repo, before it shows them to anybody, and asked a question: the copy has to answer as
    the measured file did. Like `on_rollback` it makes no new run."""
    publish: Publishing = Publishing()
    """How what passed is published; a change of it makes no new run either."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        names = [gate.name for gate in self.gates]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"gate names must be unique; repeated: {', '.join(repeated)}")
        if not self.variants.listed():
            raise ValueError("variants: name at least one variant to build")
        if (self.calibration.generated or self.evaluation.divergence.generated) and not any(gate.measure == "generated.failures" for gate in self.gates):
            raise ValueError(
                "`generated` lets the model write text, and no gate asks whether it is fit for use: add "
                "{name: generated text, measure: generated.failures, at_most: 0, scope: release}"
            )
        tags = {variant.tag for variant in self.variants.listed()}
        if isinstance(self.card.recommend, str) and self.card.recommend not in tags:
            raise ValueError(f"card: recommends {self.card.recommend}, which this recipe does not build; it builds {', '.join(sorted(tags))}")
        for gate in self.gates:
            if gate.relative_to not in {None, "published", "stock", *tags}:
                raise ValueError(f"gate {gate.name} is relative to {gate.relative_to}, which is neither `published` nor `stock` nor a variant of this recipe")
            self._measured(gate)
            if foreign := sorted(set(gate.kinds) - {*Kind, *self.variants.others}):
                known = ", ".join([*Kind, *self.variants.others])
                raise ValueError(f"gate {gate.name} is for variants of the kinds {', '.join(foreign)}, which do not exist; there are {known}")
            if unknown := sorted(set(gate.tags) - tags - {part.tag for part in self.variants.projectors()}):
                raise ValueError(f"gate {gate.name} names variants that this recipe does not build: {', '.join(unknown)}")
        return self

    def _measured(self, gate: Gate) -> None:
        """Refuse a gate on what the sections of this recipe do not measure."""
        asked = self.evaluation.mmlu
        if gate.measure.partition(".")[0] in ASKED:
            if asked is None:
                raise ValueError(
                    f"gate {gate.name} is on {gate.measure}, and the recipe asks no questions: name some under `evaluation.mmlu`, or leave out the gate"
                )
            if gate.measure in GROWING and asked.most != asked.questions_per_subject:
                raise ValueError(
                    f"gate {gate.name} is on {gate.measure}, which depends on how many questions are asked, and these may be extended: use flips.share or "
                    "mmlu.difference, or set `most_questions_per_subject` to `questions_per_subject`"
                )

    @property
    def projector_gates(self) -> tuple[Gate, ...]:
        """The gates on projectors: those that name them, or, since older recipes name none, the usual ones."""
        parts = self.variants.projectors()
        own = tuple(gate for gate in self.gates if any(gate.applies_to(part) for part in parts))
        usual = (Gate.model_validate(gate) for gate in default("gates"))
        return own or tuple(gate for gate in usual if Kind.MMPROJ in gate.kinds)

    @property
    def label(self) -> str:
        """The name as people read it, with the mark of small samples."""
        return f"{self.name} (quick: small samples)" if self.quick else self.name

    def digest(self, of: Callable[[Path], str] = content_digest) -> str:
        """sha256 over everything the recipe says of what is built; data files count by their content, `of` them, so that it is the same on every machine."""
        silent = {"quick"} if not self.quick else set()
        silent |= {"system_prompt"} if self.system_prompt == "keep" else set()  # older versions knew neither
        said = self.model_dump(exclude={"on_rollback", "publish", "read_back"} | silent)
        return hashlib.sha256(json.dumps(_by_content(said, of), sort_keys=True).encode()).hexdigest()


def _by_content(value: object, of: Callable[[Path], str]) -> object:
    """The same value as JSON, with every path replaced by the digest of what it holds."""
    if isinstance(value, Path):
        return of(value)
    if isinstance(value, Mapping):
        return {key: _by_content(item, of) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_by_content(item, of) for item in value]
    return value
