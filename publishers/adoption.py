"""Take over a repo that others filled: what becomes of each of its files, and the one commit that writes down what a person agreed to."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from config.errors import ConfigurationError
from publishers.manifest import Adopted, Adoption
from publishers.naming import MANIFEST
from publishers.target import Head, digest
from publishers.wire import hub_errors

log = logging.getLogger(__name__)

Fate = Literal["removed", "replaced", "kept"]
"""`replaced` when a file of that name is published, and kept until then."""


@dataclass(frozen=True, kw_only=True)
class Fated:
    """A file that is not ours, and what an adoption lets happen to it."""

    path: str
    bytes: int
    fate: Fate


def fates(head: Head, planned: Callable[[str], bool], remove: Sequence[str]) -> tuple[Fated, ...]:
    """What becomes of each file that is not ours: `planned` says of a path whether we may publish it, `remove` are patterns as of a shell.

    Raises ConfigurationError for a pattern that no such file matches.
    """
    foreign = head.foreign
    if idle := [pattern for pattern in remove if not any(fnmatchcase(path, pattern) for path in foreign)]:
        raise ConfigurationError(f"--remove {idle[0]} matches no file that the repo holds and that is not Sluice's. Nothing was changed. Correct the pattern.")

    def fate(path: str) -> Fate:
        return "removed" if any(fnmatchcase(path, pattern) for pattern in remove) else "replaced" if planned(path) else "kept"

    return tuple(Fated(path=path, bytes=entry.size, fate=fate(path)) for path, entry in sorted(foreign.items()))


def agreement(head: Head, agreed: Sequence[Fated], planned: Callable[[str], bool], *, by: str) -> Adoption:
    """What is written down of these fates. Raises ValueError for a repo without a commit, which holds nothing to adopt."""
    if head.commit is None:
        raise ValueError("a repo without a commit cannot be adopted")
    known = {path: digest(entry) for path, entry in head.foreign.items()}
    return Adoption(
        by=by,
        commit=head.commit,
        kept=tuple(item.path for item in agreed if item.fate != "removed"),
        replaceable={item.path: known[item.path] for item in agreed if planned(item.path)},
        removable={item.path: known[item.path] for item in agreed if item.fate == "removed"},
    )


def adopt(api: HfApi, repo: str, head: Head, adoption: Adoption, *, upstream: str) -> str | None:
    """Write the adoption into the repo's manifest; the commit, None when the repo is no longer as it was shown. No other file is touched.

    The repo's next publication of `upstream` does the rest. Raises HubError.
    """
    manifest = Adopted(awaits=upstream, adoption=adoption) if head.manifest is None else head.manifest.model_copy(update={"adoption": adoption})
    replaced, removed = (len(adoption.replaceable), len(adoption.removable))
    title = f"Adopt for Sluice: {len(adoption.kept)} files stay until replaced, {removed} will be removed"
    said = f"{adoption.by} agreed that the next publication of {upstream} may replace {replaced} files and removes {removed}; {MANIFEST} lists them."
    with hub_errors(api, f"adopt {repo}"):
        try:
            made = api.create_commit(
                repo,
                [CommitOperationAdd(MANIFEST, manifest.to_bytes())],
                commit_message=title,
                commit_description=said,
                parent_commit=head.commit,
            )
        except HfHubHTTPError as error:
            if error.response.status_code != 412:
                raise
            return None
    log.info("adopted %s at %s", repo, made.oid, extra={"action": "adopt"})
    return made.oid
