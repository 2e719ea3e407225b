"""What the header of a GGUF file says of where the model comes from: the front matter of a model card that llama.cpp's converter is given.

The converter reads licence, base models, data sets, tags and languages from a README.md beside the weights. That is never the upstream's own, but one of what
`config.facts.vetted` lets through, with names as the converter itself (`gguf.Metadata`) writes them, which readers know from other publishers' files.

Not told: who quantized the file (`general.quantized_by`). Files are the same whoever publishes them: what was made for one account serves another.
"""

from collections.abc import Mapping
from typing import Any

import yaml
from gguf import Metadata

from config.facts import Facts, is_address, vetted


def card(facts: Facts, *, repo: str | None, hub: str | None) -> str:
    """The text of that README.md; `repo` is the release's, None or without an owner where it is on no Hub, and `hub` the lasting address of the Hub.

    Addresses are given where `hub` is, so that none leads to what is not there.
    """
    facts, there = vetted(facts), repo if repo and "/" in repo else None
    said: dict[str, Any] = {
        "license": facts.license,
        "license_name": facts.license_name,
        "license_link": _link(facts.license_link, there, hub),
        "organization": None if there is None else _title(there.partition("/")[0]),
        "repo_url": None if there is None or hub is None else f"{hub}/{there}",  # general.source.repo_url
        "base_model": [_named(name, hub) for name in facts.base_models],
        "datasets": [_named(name, hub and f"{hub}/datasets") for name in facts.datasets],
        "tags": list(dict.fromkeys([*facts.tags, *([facts.pipeline_tag] if facts.pipeline_tag else [])])),
        "language": list(facts.languages),
    }
    return f"---\n{yaml.safe_dump({key: value for key, value in said.items() if value}, sort_keys=False, allow_unicode=True, width=10**6)}---\n"


def _link(link: str | None, repo: str | None, hub: str | None) -> str | None:
    """The address of the terms; of a file of the release where that lies, else its name, for it is published beside the GGUF file."""
    if link is None or is_address(link) or repo is None or hub is None:
        return link
    return f"{hub}/{repo}/blob/main/{link}"


def _named(repo: str, hub: str | None) -> Mapping[str, str]:
    """A model or data set as the converter itself would tell it from its id."""
    name, owner, _, _, version, _ = Metadata.get_model_id_components(repo)
    told = {
        "name": name and _title(name),
        "organization": owner and _title(owner),
        "version": version,
        "repo_url": f"{hub}/{repo}" if hub and owner else None,
    }
    return {key: value for key, value in told.items() if value}


def _title(word: str) -> str:
    return str(Metadata.id_to_title(word))  # type: ignore[no-untyped-call]
