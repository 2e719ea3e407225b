"""The fixed safetensors, as precise as the upstream's: nothing has to be built, for that is what all others are built from."""

import re
from collections.abc import Callable, Collection, Sequence

from builders.names import CONFIGURATION, INDEX, is_named_template
from config.words import Kind, Variant
from publishers.form import Form
from publishers.hub import PublishFile
from service.release.kinds import TRANSFORMERS, VariantKind
from service.release.products import Built, from_stage
from service.release.work import Work

_SHARD = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")


def content(work: Work, passed: Sequence[Built]) -> list[PublishFile]:
    """All files of the fixed model."""
    return [from_stage(item.output, file) for item in passed for file in item.output.files]


def holds(name: str, variants: Collection[Variant], upstream: Collection[str]) -> Callable[[str], bool]:
    """Configuration, tokenizer and weights; how many shards these come in is not known before."""
    certain = {INDEX, *CONFIGURATION, *(path for path in upstream if path.endswith(".safetensors"))}
    return lambda path: path in certain or is_named_template(path) or _SHARD.fullmatch(path) is not None


KIND = VariantKind(
    kind=Kind.SIXTEEN_BIT,
    place=1,
    engine=TRANSFORMERS,
    stages=lambda recipe: (),
    maker=lambda recipe, variant: "fix",
    content=content,
    holds=holds,
    form=Form(word=Kind.SIXTEEN_BIT, title="16-bit safetensors", library="transformers", quantized=False),
    repo=lambda variant: "",
    bits=lambda prospect, variant: 16.0,
    bytes=lambda prospect, variant: prospect.weights,
    original=lambda prospect, variant: True,
)
