"""What may be repeated of what an upstream's card says about its model, in published cards and in the headers of GGUF files: every string is a stranger's."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import quote

from config.settings import REPO_ID

MOST = 30  # tags, languages, data sets or models that are taken over

# ids that the Hub takes in a card's front matter, as its refusal of another one lists them
LICENSES = frozenset(
    {
        "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bigscience-bloom-rail-1.0", "bigcode-openrail-m", "afl-3.0",
        "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5",
        "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0",
        "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cdla-sharing-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0",
        "wtfpl", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2", "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1",
        "lgpl-3.0", "isc", "h-research", "intel-research", "lppl-1.3c", "ms-pl", "apple-ascl", "apple-amlr", "mpl-2.0", "odc-by", "odbl", "openmdw-1.0",
        "openmdw-1.1", "openrail++", "osl-3.0", "postgresql", "ofl-1.1", "ncsa", "unlicense", "zlib", "pddl", "lgpl-lr", "deepfloyd-if-license",
        "fair-noncommercial-research-license", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "grok2-community", "gemma", "unknown",
        "other",
    }
)  # fmt: skip

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_MARKUP = re.compile(r"[<>`{|}\\]")  # of which no name of a licence is made, and much else is
_ADDRESSED = re.compile(
    r"https?://[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?(?:[/?#][^\s<>`{|}\\^\"]*)?", re.IGNORECASE
)  # nobody's name and password before a host
_BESIDE = re.compile(r"(?:\./)*(\w[^<>`{|}\\/:?#*\"]*(?:/\w[^<>`{|}\\/:?#*\"]*){0,9})")  # a file of the same repo
LONGEST_NAME, LONGEST_LINK = 200, 500  # characters
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,2}|multilingual|code")
_PIPELINE = re.compile(r"[a-z][a-z0-9-]{0,63}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:+-]{0,63}")
_DATASET = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]{0,95}/)?[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_MODEL = re.compile(REPO_ID)
_ADDRESS = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?:datasets/)?")  # before a repo's name in some cards

# tags that say of the upstream's files what is not true of ours, or that the Hub gives by itself
_UNTRUE = re.compile(
    r"(?i)gguf|ggml|imatrix|mlx|awq|gptq|exl[23]|onnx|openvino|safetensors|pytorch|transformers|llama-?cpp|bitsandbytes|[0-9]+-bit|quantized|nf4|fp8"
    r"|.*(?:_compatible|-inference)|(?:base_model|region|license|dataset|arxiv|doi|diffusers|endpoints).*"
)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the upstream's card says about its model, in its words; see `vetted`."""

    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    languages: tuple[str, ...] = ()
    pipeline_tag: str | None = None
    tags: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()


AnyFacts = TypeVar("AnyFacts", bound=Facts)


def together(own: AnyFacts, base: Facts) -> AnyFacts:
    """What is to be said of an adapter that is merged into its base: its own words go before the base's, and terms are those of both."""
    licences = dict.fromkeys(name for found in (own, base) for name in [found.license_name if found.license == "other" else found.license] if name)
    several = len(licences) > 1 and own.license is not None
    return replace(
        own,
        license="other" if several else own.license,
        license_name=" and ".join(licences) if several else own.license_name,
        languages=own.languages or base.languages,
        pipeline_tag=own.pipeline_tag or base.pipeline_tag,
    )


def vetted(facts: Facts) -> Facts:
    """Only what may be repeated: of plain characters, of a bounded length and number, true of files made from the model; nothing is added.

    A licence that is no id becomes `other` under its own name, and a file's name with blanks an address. What came out of this goes through it unchanged.
    Names are of any script, and links lead anywhere on the web, without encryption too where the upstream's own does: terms that nobody finds are worse.
    """
    stated = (facts.license or "").strip()
    license, name = stated.lower(), _name(facts.license_name)
    if not _LICENSE.fullmatch(license):
        name = _name(stated)
        license = "other" if name else ""
    return replace(
        facts,
        license=license or None,
        license_name=name if license else None,
        license_link=_link(facts.license_link) if license else None,
        languages=_fitting(_LANGUAGE, facts.languages),
        pipeline_tag=facts.pipeline_tag if facts.pipeline_tag and _PIPELINE.fullmatch(facts.pipeline_tag) else None,
        tags=_fitting(_TAG, (tag for tag in facts.tags if not _UNTRUE.fullmatch(tag))),
        base_models=_fitting(_MODEL, (_ADDRESS.sub("", model, count=1) for model in facts.base_models)),
        datasets=_fitting(_DATASET, (_ADDRESS.sub("", name, count=1) for name in facts.datasets)),
    )


def is_address(link: str) -> bool:
    """Whether a link to terms leads out of the repo that states it, not to one of its files."""
    return _ADDRESSED.fullmatch(link) is not None


def _name(said: str | None) -> str | None:
    """A licence's name that may stand anywhere: a line without markup and signs that show nothing, in which there is something to read."""
    name = (said or "").strip()
    fit = len(name) <= LONGEST_NAME and name.isprintable() and any(map(str.isalnum, name)) and not _MARKUP.search(name)
    return name if fit else None


def _link(said: str | None) -> str | None:
    """A link to terms, escaped as addresses are."""
    link = (said or "").strip()
    if len(link) > LONGEST_LINK or not link.isprintable():
        return None
    beside = _BESIDE.fullmatch(link)
    escaped = quote(beside[1], safe="/%~+") if beside else quote(link, safe=":/?#[]@!$&'()*+,;=%~") if is_address(link) else ""
    return escaped if 0 < len(escaped) <= LONGEST_LINK else None


def _fitting(form: re.Pattern[str], words: Iterable[str]) -> tuple[str, ...]:
    """Those of that form, each once."""
    return tuple(word for word in dict.fromkeys(words) if form.fullmatch(word))[:MOST]
