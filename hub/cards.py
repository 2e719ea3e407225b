"""The front matter of a README: read it, and say what the Hub would object to."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from hub import names
from hub.errors import BadRequest

MAX_FRONT_MATTER: Final = 64 * 1024  # characters

# The identifiers that the Hub accepts in `license`.
# fmt: off
LICENSES: Final = frozenset([
    "afl-3.0", "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "artistic-2.0", "bigcode-openrail-m", "bigscience-bloom-rail-1.0",
    "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5",
    "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0",
    "cdla-sharing-1.0", "creativeml-openrail-m", "deepfloyd-if-license", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2",
    "fair-noncommercial-research-license", "gemma", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "grok2-community", "h-research", "intel-research", "isc",
    "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "lppl-1.3c", "mit", "mpl-2.0",
    "ms-pl", "ncsa", "odbl", "odc-by", "ofl-1.1", "openmdw-1.0", "openmdw-1.1", "openrail", "openrail++", "osl-3.0", "other", "pddl", "postgresql", "unknown",
    "unlicense", "wtfpl", "zlib",
])
# fmt: on
RELATIONS: Final = ("adapter", "finetune", "merge", "quantized")

_FRONT_MATTER = re.compile(r"\A(?:\ufeff)?\s*---[ \t]*\r?\n(?:(.*?)\r?\n)?---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a README's front matter says, and what is wrong with it."""

    data: Mapping[str, Any]
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases, which let a small file stand for a huge one."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not accepted in a card", None)
        return super().compose_node(parent, index)


def _keep_text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    return loader.construct_scalar(node)


# A date in a card is text to whoever reads the card as JSON.
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _keep_text)


def read(text: str, repo_type: str = "model") -> Card:
    """Parse and check the front matter of a README of a model, dataset or space."""
    match = _FRONT_MATTER.match(text[: MAX_FRONT_MATTER + 8])
    if match is None and len(text) > MAX_FRONT_MATTER and text.lstrip().startswith("---\n"):
        return Card(data={}, errors=(f"The front matter does not end within {MAX_FRONT_MATTER} characters.",))
    if match is None or not (match[1] or "").strip():
        return Card(data={}, warnings=("empty or missing yaml metadata in repo card",))
    try:
        data = yaml.load(match[1], Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return Card(data={}, errors=(f"The front matter is not valid YAML: {error}",))
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        return Card(data={}, errors=("The front matter has to be a YAML mapping of names to values.",))
    return Card(data=data, errors=tuple(_errors(data, repo_type)), warnings=tuple(_warnings(data)))


def _errors(data: Mapping[str, Any], repo_type: str) -> Iterator[str]:
    for key, (check, wanted) in CHECKS.items():
        if data.get(key) is not None and not check(data[key]):
            yield f'"{key}" must be {wanted}'
    if repo_type == "space" and data.get("sdk") is None:
        yield '"sdk" is required for a space'


def _warnings(data: Mapping[str, Any]) -> Iterator[str]:
    if data.get("license") == "other" and not (data.get("license_name") and data.get("license_link")):
        yield '"license: other" should come with "license_name" and "license_link"'
    if data.get("base_model_relation") and not data.get("base_model"):
        yield '"base_model_relation" says nothing without "base_model"'


def _text(value: object) -> bool:
    return isinstance(value, str)


def _listed(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: all(map(check, value)) if isinstance(value, list) else check(value)


def _license(value: object) -> bool:
    return isinstance(value, str) and value in LICENSES


def _repo_id(value: object) -> bool:
    if not isinstance(value, str) or value.count("/") > 1:
        return False
    try:
        return all(names.name(part) for part in value.split("/"))
    except BadRequest:
        return False


CHECKS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "license": (_listed(_license), "one of the Hub's license identifiers, such as apache-2.0, or other"),
    "license_name": (_text, "a string"),
    "license_link": (_text, "a string"),
    "base_model": (_listed(_repo_id), "a repo id (namespace/name), or a list of them"),
    "base_model_relation": (lambda value: value in RELATIONS, f"one of {', '.join(RELATIONS)}"),
    "language": (_listed(_text), "a language code, or a list of them (write no, the language, in quotes)"),
    "library_name": (_text, "a string"),
    "pipeline_tag": (_text, "a string"),
    "tags": (lambda value: isinstance(value, list) and all(map(_text, value)), "a list of strings"),
    "datasets": (_listed(_text), "a dataset id, or a list of them"),
    "metrics": (_listed(_text), "a string, or a list of them"),
    "model-index": (lambda value: isinstance(value, list), "a list"),
}


def tags(data: Mapping[str, Any]) -> list[str]:
    """The tags that the Hub derives from a card, those of the card included; each once, in order."""

    def values(key: str) -> list[str]:
        value = data.get(key)
        return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]

    found = [*values("library_name"), *values("tags"), *values("language"), *values("pipeline_tag")]
    relation = data.get("base_model_relation")
    for base in values("base_model"):
        found += [f"base_model:{base}", *([f"base_model:{relation}:{base}"] if isinstance(relation, str) else [])]
    found += [f"dataset:{dataset}" for dataset in values("datasets")] + [f"license:{license}" for license in values("license")]
    return list(dict.fromkeys(found))
