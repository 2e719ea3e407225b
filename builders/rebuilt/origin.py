"""What the header of a GGUF file says of where its model comes from, and under which terms: where the repo's own card is silent, that is told."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from builders.snapshot import Upstream, facts
from config.facts import Facts
from config.settings import REPO_ID

_HUB = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/")
_MOST = 30  # base models and data sets that are looked at


def stated(fields: Mapping[str, Any]) -> Facts:
    """The header's words, as a card has them."""
    said = {
        "license": fields.get("general.license"),
        "license_name": fields.get("general.license.name"),
        "license_link": fields.get("general.license.link"),
        "language": fields.get("general.languages"),
        "tags": fields.get("general.tags"),
        "base_model": list(dict.fromkeys(_models(fields))),
        "datasets": list(fields.get("general.datasets") or _repos(fields, "dataset")),
    }
    return facts(said, known=False)


def completed(upstream: Upstream, fields: Mapping[str, Any]) -> Upstream:
    """The upstream with what its header says, where its card does not."""
    return Upstream(**(vars(upstream) | lacking(upstream, fields)))


def lacking(own: Facts, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What the header says of what the card does not; a licence with its name and link, or nothing of it."""
    said = vars(stated(fields))
    terms = {"license", "license_name", "license_link"}
    ours = vars(own)
    return {name: said[name] for name in said if said[name] and not ours[name] and (name not in terms or not own.license)}


def _models(fields: Mapping[str, Any]) -> Iterator[str]:
    """The repos that the model was made from: those that it was trained on, else the one that it was converted from."""
    yield from _repos(fields, "base_model")
    if not fields.get("general.base_model.count"):
        for key in ("general.source.repo_url", "general.source.huggingface.repository", "general.source.url"):
            if (repo := _repo(fields.get(key))) is not None:
                yield repo
                return


def _repos(fields: Mapping[str, Any], kind: str) -> Iterator[str]:
    count = fields.get(f"general.{kind}.count")
    for number in range(min(count, _MOST) if isinstance(count, int) else 0):
        if (repo := _repo(fields.get(f"general.{kind}.{number}.repo_url"))) is not None:
            yield repo


def _repo(address: Any) -> str | None:
    """owner/name of an address on the Hub, or of such a name itself."""
    name = _HUB.sub("", address).strip("/").removeprefix("datasets/") if isinstance(address, str) else ""
    return name if re.fullmatch(REPO_ID, name) else None
