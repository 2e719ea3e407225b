"""The fixed 16-bit safetensors: nothing has to be built, for that is what all others are built from."""

from collections.abc import Sequence

from config.words import Kind
from publishers.form import Form
from publishers.hub import PublishFile
from service.release.kinds import TRANSFORMERS, VariantKind
from service.release.products import Built, from_stage
from service.release.work import Work


def content(work: Work, passed: Sequence[Built]) -> list[PublishFile]:
    """All files of the fixed model."""
    return [from_stage(item.output, file) for item in passed for file in item.output.files]


KIND = VariantKind(
    kind=Kind.SIXTEEN_BIT,
    place=1,
    engine=TRANSFORMERS,
    stages=lambda recipe: (),
    maker=lambda recipe, variant: "fix",
    content=content,
    form=Form(word=Kind.SIXTEEN_BIT, title="16-bit safetensors", library="transformers", quantized=False),
    repo=lambda variant: "",
    bits=lambda prospect, variant: 16.0,
    bytes=lambda prospect, variant: prospect.weights,
    original=lambda variant: True,
)
