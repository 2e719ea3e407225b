"""The records that rooms hand to one another, named by the words of the architecture: release, patch, variant, measurement, verdict."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

MANIFEST = "sluice-manifest.json"
"""By this file a repo, or a folder, is known that Sluice published."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """An upstream repo at one commit, or a folder of somebody's machine as its content was."""

    repo: str  # "owner/name" on the Hub; of a folder a name without owner, which no repo there has
    sha: str  # 40 hex digits; of a folder the first ones of the sha256 over names and sha256 of its files

    @property
    def name(self) -> str:
        """The repo's name without its owner, and without the ending by which repos of GGUF files are known."""
        return re.sub(r"[-._]gguf$", "", self.repo.rpartition("/")[2], flags=re.IGNORECASE)

    @property
    def local(self) -> bool:
        """Whether it is a folder and on no Hub."""
        return "/" not in self.repo

    @property
    def origin(self) -> str:
        """What it came from, as manifests say it."""
        return f"local folder {self.repo}" if self.local else self.repo


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a commit stands in the history of its repo, as the Hub tells it."""

    position: int  # how many commits lead up to it, itself included
    date: str  # when it was made, ISO 8601 in UTC


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """That a release may take the place of newer ones up to this commit of its upstream, and who says so."""

    sha: str  # the newest commit that gives way: 40 hex digits
    place: Place | None
    by: str | None  # a person; None: the watched revision itself moved back
    comment: str  # why, or how it moved
    revision: str | None = None  # the watched one that moved: it counts as long as that names the release; None: a person says so


@dataclass(frozen=True, kw_only=True)
class Patch:
    """One recorded change that a fix made to one file of the release."""

    fix: str  # id of the rule
    version: int  # the rule's version
    file: str  # path inside the release
    key: str  # what was changed inside the file, e.g. "eos_token_id"
    reason: str  # why, in one sentence for the model card
    before: Any  # JSON value, None when the key was absent
    after: Any  # JSON value, None when the key was removed


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Something about a release that a person has to decide before it goes on."""

    subject: str  # what it is about, unique in a run: the id of a rule, "family", "licence", "terms", "ranking"
    reason: str  # what was found, and what approving it means, in sentences
    patches: tuple[Patch, ...] = ()  # what is then done to the release's files

    @property
    def digest(self) -> str:
        """What a person approves: this and nothing else, so that another proposal is asked about anew."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


class Kind(StrEnum):
    """What sort of thing a variant is; decides its repo and its measuring engine. Kinds beside these are known by their word alone."""

    GGUF = "gguf"  # one GGUF file, measured through llama.cpp
    SIXTEEN_BIT = "16bit"  # the fixed 16-bit safetensors
    BNB_4BIT = "bnb-4bit"  # bitsandbytes NF4 safetensors, measured through transformers
    MMPROJ = "mmproj"  # a projector, the part of a model that reads images: beside its GGUF files, and measured by what it makes of images


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One thing to publish."""

    tag: str  # "Q4_K_M", "bnb-4bit", "16bit"
    kind: str  # a `Kind`, or the word of another
    planned: bool = False  # which of its tensors have which type was planned for this model
    like: str | None = None  # of a planned one: the tag of the stock mix of the same size, or of plain NF4; relative gates call it `stock`


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A number about a variant, with its unit and error.

    A check that can fail in several places is a count of failures: `value` is how many, `details` says each in words.
    """

    name: str  # "kld.mean", "same_top", "mmlu.accuracy", "template.failures", …
    value: float
    unit: str  # "nats", "share", "count", "points/GB", …
    stderr: float | None = None  # standard error of `value`, same unit
    n: int | None = None  # observations behind `value`: tokens, questions, checks
    details: tuple[str, ...] = ()  # one sentence for each thing counted

    @property
    def inapplicable(self) -> str | None:
        """Why there is nothing to count for this model; None for what was counted. See `inapplicable`."""
        return self.details[0] if self.n == 0 and not self.value and self.details else None


def inapplicable(name: str, why: str, unit: str = "count") -> Measurement:
    """What a model cannot have, faults of a chat template in a model without one for instance: nothing was looked at, and gates on it pass and say why."""
    return Measurement(name=name, value=0.0, unit=unit, n=0, details=(why,))


BASE_MODEL = "The release is a base model: it has no chat template, so there is no conversation to look at"


class Outcome(StrEnum):
    """How a gate, and with it a variant, came out."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"  # the measurement raised or is missing: blocks like a failure


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What some of a variant's figures were measured on, windows of text or questions, and how each of these bears on their error."""

    basis: Mapping[str, str]  # by the first word of a measurement's name a digest; only where it is the same can figures be compared
    windows: str = ""  # digest of the windows' tokens: where it is the same, two variants were measured on the same windows in the same order
    influences: Mapping[str, Sequence[float | None]] = field(default_factory=dict)  # by measurement and window; see `qa.divergence.influence`
    answers: Mapping[str, str] = field(default_factory=dict)  # by subject, a character for each question; see `qa.mmlu.pairs`
    look: int = 1  # how often the sample was looked at
    looks: int = 1  # how often it may be


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """A gate that a named person set aside for one variant of one run, and why."""

    tag: str  # the variant's
    gate: str  # the gate's name in the recipe
    by: str
    comment: str
    outcome: Outcome  # failed or error: what the person saw; it covers this and nothing else


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """One gate applied to one variant."""

    gate: str  # the gate's name in the recipe
    measure: str  # the measurement's name
    value: float | None
    stderr: float | None
    condition: str  # "at most 0.15"
    outcome: Outcome
    reason: str  # in words, with the figures; also when it passed
    limit: float | None = None  # the threshold, in the measurement's unit; of a relative condition: what it comes to
    against: str | None = None  # what a relative condition compares with, in words
    reference: float | None = None  # the value there
    margin: float | None = None  # how far from the limit the value must be to decide, in its unit
    undecided: bool = False  # the value is nearer to the limit than that: failed for lack of data
    look: int = 1  # how often the sample was looked at; from the second time on it was extended before
    looks: int = 1  # how often it could have been; the confidence of each look is corrected for that
    waiver: Waiver | None = None  # who set this result aside; `outcome` still says how it came out


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """All gates of a variant. Passed only when each gate passed or was waived by a person."""

    tag: str
    outcome: Outcome
    reasons: tuple[str, ...]  # of the gates that did not pass and were not waived; of a passed verdict: empty
    results: tuple[GateResult, ...]

    @property
    def waivers(self) -> tuple[Waiver, ...]:
        """The waivers that this verdict rests on."""
        return tuple(result.waiver for result in self.results if result.waiver is not None)
