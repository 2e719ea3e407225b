"""What the Hub says of the repos of an owner: one conditional call a page, answered in a word when nothing changed, and as it was before then."""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from threading import Lock
from typing import Any
from urllib.parse import quote, urlencode

from huggingface_hub import HfApi
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import get_session, hf_raise_for_status

from builders.asking import in_words
from config.errors import HubError
from config.watch import REPO_ID
from service.release.watchlist import Listed

SECONDS = 30.0  # for one call
KEPT = 20_000  # answers that are remembered, of branches and repos that are asked for one by one most
PAGE = 1000  # repos of a page, at most: the Hub gives no more
EXPANDED = ("sha", "lastModified", "private", "gated", "tags", "downloads")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NOT_MODIFIED = 304


@dataclass(frozen=True, kw_only=True)
class _Page:
    """What an address of the Hub answered the last time."""

    etag: str | None
    found: tuple[Listed, ...]
    next: str | None  # address of the page after it


@dataclass
class Listings:
    """A client that remembers what it was told, so that asking again costs little. For any number of threads."""

    api: HfApi
    calls: int = 0  # that were made so far
    _known: OrderedDict[str, _Page] = field(default_factory=OrderedDict)  # by address, the one that was asked for last at its end
    _pages: dict[str, set[str]] = field(default_factory=dict)  # addresses of the pages of an owner's listing
    _lock: Lock = field(default_factory=Lock)

    def of_owner(self, owner: str) -> list[Listed]:
        """All repos of an owner that the token may see. Raises HubError."""
        query = urlencode([("author", owner), ("sort", "createdAt"), ("limit", PAGE), *(("expand", name) for name in EXPANDED)])
        address: str | None = f"{self.api.endpoint}/api/models?{query}"
        found: dict[str, Listed] = {}
        seen: set[str] = set()
        while address is not None and address not in seen:
            seen.add(address)
            page = self._asked(address, owner)
            found |= {item.repo: item for item in page.found}
            address = page.next
        self._forget(self._pages.get(owner.lower(), set()) - seen)  # a new repo moves the cursors of all pages after the first
        self._pages[owner.lower()] = seen
        return [item for item in found.values() if item.repo.lower().startswith(f"{owner.lower()}/")]

    def of_repo(self, repo: str, revision: str = "main") -> Listed:
        """One repo as it is at a branch. Raises UpstreamError, HubError."""
        query = urlencode([("expand", name) for name in EXPANDED])
        branch = "" if revision == "main" else f"/revision/{quote(revision, safe='')}"
        page = self._asked(f"{self.api.endpoint}/api/models/{repo}{branch}?{query}", repo, revision)
        if not page.found:
            raise HubError(f"{self.api.endpoint} did not say which commit {revision!r} of {repo} is. Try again later.")
        (found,) = page.found
        return found if found.repo.lower() == repo.lower() else replace(found, repo=repo)  # it has moved, and is followed under the name that was given

    def _asked(self, address: str, whom: str, revision: str = "main") -> _Page:
        with self._lock:
            self.calls += 1
            before = self._known.get(address)
        headers = build_hf_headers(token=self.api.token, library_name="sluice")
        if before is not None and before.etag is not None:
            headers["If-None-Match"] = before.etag
        with in_words(self.api, whom, revision):
            answer = get_session().get(address, headers=headers, timeout=SECONDS)
            if before is not None and answer.status_code == _NOT_MODIFIED:
                return before
            hf_raise_for_status(answer)
        try:
            said = answer.json()
        except ValueError as error:
            raise HubError(f"{self.api.endpoint} answered with what is not JSON when it was asked for {whom}. Try again later.") from error
        items = [listed(item) for item in (said if isinstance(said, list) else [said])]
        following = answer.links.get("next", {}).get("url")
        if following is not None and not following.startswith(f"{self.api.endpoint}/"):
            raise HubError(f"{self.api.endpoint} names {following[:100]} as the next page of {whom}, which is another place. Ask who runs that Hub.")
        page = _Page(etag=answer.headers.get("etag"), found=tuple(item for item in items if item is not None), next=following)
        with self._lock:
            self._known[address] = page
            self._known.move_to_end(address)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return page

    def _forget(self, addresses: Iterable[str]) -> None:
        with self._lock:
            for address in addresses:
                self._known.pop(address, None)


def listed(item: Any) -> Listed | None:
    """A repo as the Hub describes it; None of what has no name or commit, as empty repos have none."""
    if not isinstance(item, Mapping):
        return None
    repo, sha, tags, downloads = item.get("id"), item.get("sha"), item.get("tags"), item.get("downloads")
    if not (isinstance(repo, str) and re.fullmatch(REPO_ID, repo) and isinstance(sha, str) and _COMMIT.fullmatch(sha)):
        return None
    return Listed(
        repo=repo,
        sha=sha,
        modified=_moment(item.get("lastModified")),
        private=bool(item.get("private")),
        gated=bool(item.get("gated")),
        tags=frozenset(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else frozenset(),
        downloads=downloads if isinstance(downloads, int) else 0,
    )


def _moment(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
