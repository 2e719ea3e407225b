"""The manifest in every published repo: which bytes it holds and where they came from. The same manifest again is a no-op.

It covers every file of the publication except itself; of README.md the card as it was made, to which people may have added text of their own. It carries
no time and no host, so that equal releases give equal bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from config import words
from config.errors import PublishConflict
from config.files import explain
from config.words import Measurement, Outcome, Patch, Release, Verdict
from publishers.naming import MANIFEST

MAX_BYTES = 16 * 2**20  # a larger file under the manifest's name was not written by us

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
CommitSha = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]


class Part(BaseModel):
    """A part of the manifest: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Place(Part):
    """Where the upstream's commit stands in the history of its repo: by this and by that history itself the newer of two publications is told."""

    position: int = Field(ge=1)
    """How many commits lead up to it, itself included."""
    date: str
    """When it was made, ISO 8601 in UTC."""


class Upstream(Part):
    """The release that everything in the repo was built from."""

    repo: str
    """`owner/name` on the Hub, or `local folder NAME`."""
    sha: CommitSha
    """The commit; of a folder the first 40 digits of the sha256 over its files."""
    place: Place | None = None
    """None of a folder, which has no history, and in what older versions published."""
    base: "Base | None" = None
    """Of an adapter."""
    gguf: "tuple[Origin, ...] | None" = None
    """The GGUF file, or its parts, that the model was rebuilt from; None where it was there in safetensors."""


class Base(Part):
    """The model that an adapter was merged into."""

    repo: str
    sha: CommitSha


class Origin(Part):
    """A file of the upstream's."""

    path: str
    sha256: Sha256


class Rollback(Part):
    """That this publication took the place of newer ones on purpose. Until a newer commit than `newest` is published, only another roll-back replaces it."""

    newest: CommitSha
    """The newest commit that gave way."""
    place: Place | None = None
    by: str | None = None
    """Who decided it; None: the watched revision itself moved back."""
    comment: str


class RecipeId(Part):
    """The recipe that built it."""

    name: str
    digest: Sha256


class FileEntry(Part):
    """One published file."""

    sha256: Sha256
    bytes: int = Field(ge=0)


class Figure(Part):
    """A measurement as it stood when the variant passed."""

    value: float
    unit: str
    stderr: float | None = None
    n: int | None = None


class Waiver(Part):
    """A gate that a named person set aside for one variant, and why."""

    gate: str
    by: str
    comment: str


class Approval(Part):
    """Something about the release that a named person decided, and why."""

    subject: str
    """The rule whose patches were proposed, `family` or `licence`."""
    by: str
    comment: str


class VariantEntry(Part):
    """One published variant."""

    tag: str
    files: tuple[str, ...] = Field(min_length=1)
    """Its weights, each also listed under the manifest's `files`."""
    bytes: int = Field(ge=0)
    verdict: Outcome
    figures: dict[str, Figure]
    waivers: tuple[Waiver, ...] = ()


class PatchEntry(Part):
    """One change made to the upstream's files."""

    fix: str
    version: int
    file: str
    key: str
    reason: str
    before: Any
    after: Any


class DataEntry(Part):
    """A text, or the questions, that variants were calibrated or measured on."""

    use: str
    name: str
    sha256: Sha256
    """Of the file that was read; of a folder of its files' names and digests."""
    repo: str | None = None
    """Of a data set on the Hub."""
    commit: CommitSha | None = None
    path: str | None = None
    license: tuple[str, ...] = ()


class Adoption(Part):
    """Who gave a repo that others had filled to Sluice, and which of its files stay theirs. Digests are sha256 of LFS files, git's blob ids of others."""

    by: str
    commit: CommitSha
    """What the repo held when a person agreed to this."""
    kept: tuple[str, ...]
    """Files beside the publication, which Sluice neither made nor changes nor removes."""
    replaceable: dict[str, str] = {}
    """By path the digest of each file that a publication may take the place of, and has not yet."""
    removable: dict[str, str] = {}
    """By path the digest of each file that the next publication removes."""


class Adopted(Part):
    """The manifest of a repo that was adopted and holds no publication yet."""

    schema_version: Literal[1] = 1
    awaits: str
    """The upstream whose publication may come here, as `Upstream.repo` says it."""
    adoption: Adoption

    def to_bytes(self) -> bytes:
        """As a manifest of a publication is written."""
        return _written(self.model_dump(mode="json"))


class Manifest(Part):
    """Everything a repo's content can be traced by. The repo holds exactly `files`, the manifest itself and, once adopted, what is `kept`."""

    schema_version: Literal[1] = 1
    upstream: Upstream
    recipe: RecipeId
    tools: dict[str, str]
    patches: tuple[PatchEntry, ...]
    variants: tuple[VariantEntry, ...]
    files: dict[str, FileEntry]
    data: tuple[DataEntry, ...] = ()
    approvals: tuple[Approval, ...] = ()
    """What the release was held for, until a person let it go on."""
    adoption: Adoption | None = None
    """Of a repo that others had filled."""
    rollback: Rollback | None = None
    """Of a publication that a newer one gave way to."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if MANIFEST in self.files:
            raise ValueError("a manifest cannot list itself")
        if missing := sorted({path for variant in self.variants for path in variant.files} - set(self.files)):
            raise ValueError(f"variants name files that `files` does not list: {', '.join(missing)}")
        return self

    def to_bytes(self) -> bytes:
        """The manifest as UTF-8 JSON: sorted keys, two spaces, one newline at the end; equal manifests give equal bytes."""
        # left out where there is none, so that repos which were never held or adopted, or hold no adapter's or rebuilt model, keep the bytes that they have
        document = self.model_dump(mode="json", exclude={name for name in ("adoption", "approvals", "rollback") if not getattr(self, name)})
        document["upstream"] = {name: value for name, value in document["upstream"].items() if name not in {"base", "gguf", "place"} or value is not None}
        return _written(document)

    def digest(self) -> str:
        """Hex sha256 of `to_bytes()`."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def _written(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def build(
    *,
    release: Release,
    recipe_name: str,
    recipe_digest: str,
    tools: dict[str, str],
    patches: tuple[Patch, ...],
    variants: tuple[VariantEntry, ...],
    files: dict[str, FileEntry],
    data: tuple[DataEntry, ...] = (),
    approvals: tuple[Approval, ...] = (),
    base: Release | None = None,
    place: words.Place | None = None,
    gguf: Mapping[str, str] = MappingProxyType({}),
) -> Manifest:
    """The manifest of a publication, from the records the other rooms hand over.

    `base` is what the release, an adapter, was merged into; `gguf` the sha256 of the files that a model in GGUF alone was rebuilt from, by path.
    """
    return Manifest(
        upstream=Upstream(
            repo=release.origin,
            sha=release.sha,
            place=None if place is None else Place(**vars(place)),
            base=None if base is None else Base(repo=base.origin, sha=base.sha),
            gguf=tuple(Origin(path=path, sha256=digest) for path, digest in gguf.items()) or None,
        ),
        recipe=RecipeId(name=recipe_name, digest=recipe_digest),
        tools=tools,
        patches=tuple(PatchEntry(**vars(patch)) for patch in patches),
        variants=variants,
        files=files,
        data=data,
        approvals=approvals,
    )


def data_entry(source: Mapping[str, Any]) -> DataEntry:
    """What a run recorded of a text or of its questions."""
    return DataEntry.model_validate({name: source[name] for name in DataEntry.model_fields if name in source})


def variant_entry(verdict: Verdict, measurements: dict[str, Measurement], *, files: dict[str, FileEntry], waivers: tuple[Waiver, ...] = ()) -> VariantEntry:
    """A variant with its verdict and figures; `files` are its weights."""
    figures = {name: Figure(value=found.value, unit=found.unit, stderr=found.stderr, n=found.n) for name, found in measurements.items()}
    size = sum(entry.bytes for entry in files.values())
    return VariantEntry(tag=verdict.tag, files=tuple(sorted(files)), bytes=size, verdict=verdict.outcome, figures=figures, waivers=waivers)


def read(data: bytes, *, where: str) -> Manifest | Adopted:
    """The manifest in `data`. Raises PublishConflict when it is not one that this version of Sluice wrote; `where` names it in the message."""
    try:
        return Adopted.model_validate_json(data) if _awaits(data) else Manifest.model_validate_json(data)
    except ValidationError as error:
        problem = explain(error)
        raise PublishConflict(
            f"{where} is not a manifest that this version of Sluice can read ({problem[:300]}). Nothing was overwritten. "
            "Publish to another repo, or restore the manifest, or delete the repo if it is yours to delete."
        ) from error


def _awaits(data: bytes) -> bool:
    """Whether this is what an adoption writes, as far as can be seen before it is checked."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "awaits" in document
