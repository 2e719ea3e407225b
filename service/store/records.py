"""What the store is given and hands out: frozen records, never objects that are tied to a database session. All times are UTC."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

from config.progress import Progress
from config.watch import Watched
from config.words import Hold, Measurement, Place, Release, Rollback, Sample, Variant, Verdict, Waiver
from service.pace import Phase

RunState = Literal["queued", "running", "interrupted", "paused", "done", "blocked", "held", "superseded", "failed", "cancelled"]
Scope = Literal["read", "operate", "publish", "admin"]
Wanted = Literal["cancel", "pause"]
StageState = Literal["running", "interrupted", "done", "failed", "reused"]

ROLLBACK = "rollback"  # subject of the hold of a run that would take the place of a newer release


@dataclass(frozen=True, kw_only=True)
class KeptRecipe:
    """A recipe as runs were queued with it. Of its data it knows name and digest, and of those on the Hub the commit; their bytes lie elsewhere."""

    digest: str  # as `Recipe.digest` found it then
    content: Mapping[str, Any]  # all that it says, as JSON; data by absolute path, or by reference at a commit
    sources: tuple[Mapping[str, Any], ...]  # each text and the questions, as `service.release.datasets.sources` describes them


@dataclass(frozen=True, kw_only=True)
class RunOrder:
    """What is wanted of a run; release, digest of the recipe, namespace and target tell it from every other."""

    release: Release
    recipe: str  # name, or path of a YAML file
    recipe_digest: str  # sha256 of what the recipe says, or said when the run was queued
    namespace: str  # account or organization to publish under
    trigger: str  # what asks for it: "poll", "webhook", "api", "republish", "command", …
    private: bool = False  # publish as private: the upstream is, or the operator wants it
    fixes_as_pr: bool = False  # offer the fixes to the upstream as a pull request
    folder: str | None = None  # that the release is taken from; None: the Hub
    target: str | None = None  # the folder that repos are left in; None: the Hub
    quick: bool = False  # the recipe is one for small samples
    rollback: Rollback | None = None  # what it may take the place of although that is newer
    redo: tuple[str, ...] = ()  # stages that are done anew although what they made is kept


@dataclass(frozen=True, kw_only=True)
class RunRecord(RunOrder):
    """One recipe applied to one release: what was wanted last, and how that stands."""

    id: int
    # interrupted: begun, and nobody is at it any more; done: reached its end; blocked: reached it with every variant blocked;
    # held: waits for a person's decision; superseded: a newer release was published meanwhile, which stays, or waits for its turn, or the watched revision
    # that had moved back to it moved on; failed: an error stopped it
    # paused, cancelled: a person did not want it to go on, for a while or for good
    state: RunState
    attempt: int  # 1 for the first time, one more each time it is queued again or taken over from a worker that is gone
    error: str | None  # of a failed run, or of one that waits: what is wrong and what to do; of a superseded one: what is published instead
    lease: int  # number of the latest lease, by which a worker proves that it still has the run
    worker: str | None  # who holds the lease of a running run, or held that of an interrupted one
    created: datetime
    started: datetime | None  # of this attempt
    finished: datetime | None  # of this attempt
    disk_high_water: int | None  # bytes
    due: datetime | None = None  # of a queued run that waits for the Hub: it is taken up again then, by itself
    waits: int = 0  # times in a row that it was put back for that
    priority: int = 0  # the highest is carried out first
    queued: datetime | None = None  # the last time
    wanted: Wanted | None = None  # what a person asked of it while it is carried out


def order_of(run: RunRecord, *, trigger: str) -> RunOrder:
    """The order by which the run is carried out again."""
    return RunOrder(**{item.name: getattr(run, item.name) for item in fields(RunOrder) if item.name != "trigger"}, trigger=trigger)


@dataclass(frozen=True, kw_only=True)
class Referrer:
    """A run as far as it decides what becomes of the outputs that it refers to."""

    run: int
    repo: str
    sha: str
    like: tuple[str, str, str]  # upstream repo, recipe, namespace: runs of which a newer one takes the place of an older
    state: RunState
    last: datetime  # when it ended, or else when it was begun, or queued
    published: tuple[str, ...]  # repos on the Hub that hold its publication, and no newer one


@dataclass(frozen=True, kw_only=True)
class Foretold:
    """How long a stage was expected to take, before it began."""

    like: str  # what it has in common with stages that do the same for other variants
    reckoned: float  # seconds, from its cost and the speed of the machine
    correction: float = 1.0  # what earlier runs taught to multiply that with

    @property
    def seconds(self) -> float:
        """What was said."""
        return self.reckoned * self.correction


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A file that a stage made."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """One step of a run, as it went the last time."""

    id: int
    name: str  # unique within a run
    key: str  # digest of the function, its inputs and its parameters
    state: StageState  # interrupted: nobody is at it any more, and nobody wrote down how it ended
    stage: str | None  # of the release, whose step it is; None where it is of none, or an older version wrote it
    started: datetime
    seconds: float | None  # of one that has ended
    estimate: float | None  # seconds that it was expected to take
    phase: Phase | None  # what was reported of it
    error: str | None
    artifacts: tuple[Artifact, ...]

    @property
    def progress(self) -> Progress | None:
        """The latest report."""
        return None if self.phase is None else self.phase.latest

    @property
    def reported(self) -> datetime | None:
        """When that was."""
        return None if self.phase is None else self.phase.reported


@dataclass(frozen=True, kw_only=True)
class VariantRecord:
    """One variant of a run with what was measured and how its gates came out."""

    variant: Variant
    file: str | None  # None when it was never built
    bytes: int | None
    bpw: float | None  # bits per weight
    measurements: tuple[Measurement, ...]
    verdict: Verdict | None  # None while it is not judged
    samples: tuple[Sample, ...] = ()  # what the measurements rest on; empty when nothing could be measured


@dataclass(frozen=True, kw_only=True)
class WaiverRecord:
    """A waiver as it stands on record."""

    id: int
    run: int
    waiver: Waiver
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A person's word that what a release is held for may be done as proposed."""

    by: str
    comment: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class HoldRecord:
    """Something that has to be decided of a run, as it stands on record."""

    run: int
    hold: Hold
    approval: Approval | None  # None while nobody has decided it


@dataclass(frozen=True, kw_only=True)
class Published:
    """What was published in one repo on the Hub or left in one folder, to be recorded."""

    repo: str  # or the folder's path
    revision: str  # the commit; of a folder the beginning of its manifest's digest
    url: str
    files: tuple[str, ...]
    manifest_digest: str
    changed: bool  # False when the repo already held exactly this; as it is kept, when that was known as well


@dataclass(frozen=True, kw_only=True)
class PublicationRecord(Published):
    """One repo on the Hub that holds exactly the files of a verdict."""

    id: int
    run: int
    at: datetime  # when it was made, or last found to be so
    unpublished: "Unpublished | None" = None  # None: nobody took it back


@dataclass(frozen=True, kw_only=True)
class Unpublished:
    """Who made a published repo private, and why."""

    by: str
    reason: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class PullRequestRecord:
    """The pull request by which the fixes of a run were offered to its upstream."""

    repo: str  # the upstream
    number: int
    url: str
    state: Literal["opened", "open", "merged", "closed"]  # `opened` by this run, the others as they were found
    files: tuple[str, ...]  # that it changes


@dataclass(frozen=True, kw_only=True)
class FollowUpRecord:
    """Something that is still to do for a run that is done: it is tried again by itself."""

    run: int
    kind: str  # "collection"
    details: dict[str, Any]  # all that is needed to do it
    attempts: int
    error: str  # of the last try
    due: datetime  # not tried before


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """Something that happened, in the order source, subject, action; never changed afterwards."""

    id: int
    at: datetime
    source: str  # "api", "poll", "command", …
    subject: str  # "run/7", "token/ci", …
    action: str  # "queued", "revoked", …
    details: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TokenRecord:
    """An API token without its secret."""

    id: int
    name: str
    digest: str  # sha256 of the token, hex
    created: datetime
    revoked: datetime | None
    scopes: tuple[Scope, ...] = ("admin",)
    namespaces: tuple[str, ...] | None = None  # whose runs it may see and steer; None: all
    expires: datetime | None = None
    used: datetime | None = None  # the last time, to the minute

    def may(self, scope: Scope) -> bool:
        """Whether it may do what needs that scope: every token may read, and one with `admin` may do everything."""
        return scope == "read" or scope in self.scopes or "admin" in self.scopes

    def sees(self, namespace: str) -> bool:
        """Whether what is published under the namespace is any of its business."""
        return self.namespaces is None or namespace in self.namespaces

    def works(self, at: datetime) -> bool:
        """Whether it is neither revoked nor expired then."""
        return self.revoked is None and (self.expires is None or self.expires > at)


@dataclass(frozen=True, kw_only=True)
class RunFilter:
    """Which runs are wanted; None: whichever."""

    repo: str | None = None  # "owner/name"; `*` stands for anything
    state: RunState | None = None
    recipe: str | None = None
    since: datetime | None = None  # created then or later
    until: datetime | None = None  # created before
    namespaces: tuple[str, ...] | None = None
    before: int | None = None  # with a number below that


@dataclass(frozen=True, kw_only=True)
class AuditFilter:
    """Which audit events are wanted; None: whichever."""

    subject: str | None = None
    source: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None  # with a number below that


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What a watched revision named when it was last looked at for a recipe."""

    repo: str
    revision: str  # branch or tag
    recipe: str  # as on the watch list
    sha: str  # the commit
    newest: str  # the newest commit that it ever named, which is another one when it moved back
    place: Place | None  # of that one


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a watched branch of a repo named when it was last looked at, for whichever recipe."""

    repo: str
    revision: str
    sha: str  # the commit
    at: datetime


@dataclass(frozen=True, kw_only=True)
class HintRecord:
    """Word that a watched repo may have changed. At most one is pending for each repo."""

    repo: str
    source: str  # "rebuild", "webhook" or "poll": the latest to say so, but for polls, which take the place of nobody
    count: int  # how often it was said; tells whether it was said again meanwhile
    attempts: int  # looks at the Hub that failed
    error: str | None  # of the last failed look
    created: datetime  # or when a rebuild was asked for, the last time
    due: datetime  # not looked at before
    rebuild: bool = False  # the newest commit is to be released though it was
    rebuilt: tuple[str, ...] = ()  # branches and recipes of the watch list for which that is done, since it was asked for the last time


@dataclass(frozen=True, kw_only=True)
class WatchRecord:
    """An entry of the watch list that was added over the network."""

    id: int
    entry: Watched | None  # None where this version does not understand what an older one, or a newer one, has kept
    kept: Mapping[str, Any]  # the entry as it is kept
    error: str | None  # what this version does not understand of it
    by: str  # name of the token
    created: datetime


@dataclass(frozen=True, kw_only=True)
class LookKey:
    """What is looked at: a branch of a repo, and what is asked of it."""

    repo: str
    revision: str
    asked: str  # digest of recipe and namespace


@dataclass(frozen=True, kw_only=True)
class Look:
    """The last look at a branch that came to something: that it is to be released, or cannot be."""

    sha: str  # that was found
    at: datetime


@dataclass(frozen=True, kw_only=True)
class ListingRecord:
    """How an owner's repos were listed the last time."""

    owner: str
    repos: int  # the last time that it worked
    at: datetime
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a place of `notify` is to be told."""

    event: int  # of the audit trail
    subject: str
    ending: str
    body: str


@dataclass(frozen=True, kw_only=True)
class DeliveryRecord(Message):
    """A message, and how sending it went."""

    id: int
    place: str
    state: str  # pending, delivered, given_up
    attempts: int
    error: str | None  # of the last attempt
    created: datetime
    due: datetime  # the next attempt, while it is pending
