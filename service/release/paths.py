"""Which files a repo may come to hold, as far as names can be known before anything is built."""

import re
from collections.abc import Callable, Collection

from builders.names import CONFIGURATION, INDEX, is_legal
from config.words import Variant
from publishers import naming
from service.release.kinds import LLAMA_CPP, kind_of

_SHARD = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")


def may_publish(variants: Collection[Variant], name: str, upstream: Collection[str]) -> Callable[[str], bool]:
    """Whether a path may be published in the repo of these variants of the model of that name; `upstream` are the paths of the release.

    Nothing that is published is left out, but not all that this tells must be: a variant may not pass, and how many shards there will be is not known.
    """
    files = [variant for variant in variants if kind_of(variant).engine is LLAMA_CPP]
    certain = {naming.CARD, naming.MANIFEST, naming.REPORT, naming.PLOT, naming.PLOT_SVG, *filter(is_legal, upstream)}
    if files:
        certain |= {naming.IMATRIX, naming.OLLAMA_PARAMS, naming.OLLAMA_TEMPLATE, *(f"{name}-{variant.tag}.gguf" for variant in files)}
    transformers = len(files) < len(variants)
    if transformers:
        certain |= {INDEX, *CONFIGURATION, *(path for path in upstream if path.endswith(".safetensors"))}
    return lambda path: path in certain or (transformers and _SHARD.fullmatch(path) is not None)
