"""The watch list: which upstream repos are followed, by name or by owner, what is asked of them, and what is done with them."""

from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

REPO_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"
OWNER = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"

Policy = Literal["follow", "skip"]
RepoId = Annotated[str, Field(pattern=REPO_ID)]
Owner = Annotated[str, Field(pattern=OWNER)]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Watched(BaseModel):
    """An entry of the watch list: repos by name, or all of some owners', those to come too, as far as they are what the entry asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repo: str | None = Field(default=None, pattern=REPO_ID)
    """`owner/name` on the Hub; URLs are refused. Of `repo`, `repos` and `owners` give at least one."""
    repos: tuple[RepoId, ...] = ()
    """Several of them. All repos of one owner are looked at by one call, however many they are."""
    owners: Annotated[tuple[Owner, ...], BeforeValidator(_listed)] = ()
    """Accounts and organizations of which every repo is followed that `names` and `exclude` let pass."""
    names: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """Of owners only repos whose name is like one of these patterns: `Qwen3-*`. In any case, as on the Hub; all of them when left out."""
    exclude: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """Never repos whose name, or `owner/name`, is like one of these patterns: `*-GGUF`."""
    tags: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """Only repos that have all of these tags on the Hub: `text-generation`."""
    minimum_downloads: int = Field(default=0, ge=0, le=2**63 - 1)
    """Only repos that were downloaded so often in the last 30 days, as the Hub counts."""
    licenses: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """Only repos under one of these licences, as the Hub writes them: `apache-2.0`. Under any when left out."""
    private: Policy | None = None
    """What is done with private repos; left out: those that are named are followed, those of an owner are skipped."""
    gated: Policy | None = None
    """What is done with gated repos, likewise. They are not published again, so one that is followed shows as an error."""
    cool_down_minutes: float = Field(default=0.0, ge=0, le=525_600)
    """A repo is left alone until its last commit is so old: the commits of one upload become one release."""
    revision: str = Field(default="main", min_length=1, max_length=200, pattern=r"^[^\x00]*$")
    """Branch to follow. Of others than `main` every repo takes a call of its own at each poll."""
    recipe: str = Field(default="default", min_length=1, max_length=1000)
    """Recipe name or path."""

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.named and not self.owners:
            raise ValueError("it follows nothing: give `repo` (owner/name), `repos` or `owners`")
        if self.names and not self.owners:
            raise ValueError("`names` chooses among the repos of `owners`, and there are none: name some, or leave out `names`")
        return self

    @property
    def named(self) -> tuple[str, ...]:
        """The repos that are followed by name."""
        return self.repos if self.repo is None else (self.repo, *self.repos)

    @property
    def concerns(self) -> frozenset[str]:
        """The owners, in lower case, of all that it can follow."""
        return self._owners | {repo.partition("/")[0] for repo in self._named}

    @cached_property
    def _named(self) -> frozenset[str]:
        return frozenset(repo.lower() for repo in self.named)

    @cached_property
    def _owners(self) -> frozenset[str]:
        return frozenset(owner.lower() for owner in self.owners)

    @property
    def label(self) -> str:
        """What the entry follows, in a line."""
        patterns = "|".join(self.names) or "*"
        return ", ".join((*self.named, *(f"{owner}/{patterns}" for owner in self.owners)))

    def names_repo(self, repo: str) -> bool:
        """Whether it follows the repo by name; in any case, as names are on the Hub."""
        return repo.lower() in self._named

    def follows(self, repo: str) -> bool:
        """Whether it follows a repo of this name; what else it asks of the repo, only the Hub knows."""
        whole = repo.lower()
        owner, _, name = whole.partition("/")
        if any(fnmatchcase(whole if "/" in pattern else name, pattern.lower()) for pattern in self.exclude):
            return False
        if self.names_repo(repo):
            return True
        return owner in self._owners and (not self.names or any(fnmatchcase(name, pattern.lower()) for pattern in self.names))

    def policy(self, repo: str, given: Policy | None) -> Policy:
        """What is done with a repo that is private or gated, for which the entry says `given`."""
        return given or ("follow" if self.names_repo(repo) else "skip")
