"""Which files a repo may come to hold, as far as names can be known before anything is built."""

import re
from collections.abc import Callable, Collection

from builders.names import CONFIGURATION, INDEX, is_legal
from config.words import Kind, Variant
from publishers import naming

_SHARD = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")


def may_publish(variants: Collection[Variant], name: str, upstream: Collection[str]) -> Callable[[str], bool]:
    """Whether a path may be published in the repo of these variants of the model of that name; `upstream` are the paths of the release.

    Nothing that is published is left out, but not all that this tells must be: a variant may not pass, and how many shards there will be is not known.
    """
    kinds = {variant.kind for variant in variants}
    certain = {naming.CARD, naming.MANIFEST, naming.REPORT, *filter(is_legal, upstream)}
    if Kind.GGUF in kinds:
        certain |= {naming.IMATRIX, naming.OLLAMA_PARAMS, naming.OLLAMA_TEMPLATE}
        certain |= {f"{name}-{variant.tag}.gguf" for variant in variants if variant.kind is Kind.GGUF}
    transformers = kinds != {Kind.GGUF}
    if transformers:
        certain |= {INDEX, *CONFIGURATION, *(path for path in upstream if path.endswith(".safetensors"))}
    return lambda path: path in certain or (transformers and _SHARD.fullmatch(path) is not None)
