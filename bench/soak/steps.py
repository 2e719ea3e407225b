"""The steps of a publication: requests that change something on the Hub, by the names that people have for them."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from bench.faulty import Request

_STEPS = tuple(
    (method, re.compile(path), name)
    for method, path, name in (
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/models/.+/preupload/.+", "preupload"),
        ("POST", r"/.+\.git/info/lfs/objects/batch", "LFS batch"),
        ("PUT", r"/lfs/.+", "LFS PUT"),
        ("POST", r"/lfs/.+/verify", "LFS verify"),
        ("POST", r"/api/models/.+/branch/.+", "branch"),
        ("POST", r"/api/models/.+/commit/main", "main commit"),
        ("POST", r"/api/models/.+/commit/.+", "staging commit"),
        ("DELETE", r"/api/models/.+/branch/.+", "branch delete"),
        ("PUT", r"/api/models/.+/settings", "opening"),
        ("POST", r"/api/collections(/.+)?", "collection"),
    )
)
READS = ("GET", "HEAD")
READING = re.compile(r"/api/models/.+/paths-info/.+|/api/validate-yaml")  # asked by POST, and changes nothing


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of a publication."""

    name: str
    number: int  # of those of that name, from 1 on

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


def step_of(request: Request) -> str | None:
    """The name of the step that the request is; None when it only reads."""
    path = request.path.partition("?")[0]
    if request.method in READS or READING.fullmatch(path):
        return None
    return next((name for method, pattern, name in _STEPS if method == request.method and pattern.fullmatch(path)), f"{request.method} {path}")


def steps(requests: Iterable[Request]) -> list[Step]:
    """The steps among these requests, in their order."""
    seen: Counter[str] = Counter()
    found = []
    for request in requests:
        if (name := step_of(request)) is not None:
            seen[name] += 1
            found.append(Step(name=name, number=seen[name]))
    return found
