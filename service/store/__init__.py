"""The service's memory, in SQLite or PostgreSQL: runs and all that comes of them, what they wait for, tokens, audit trail."""

from service.store.access import Access
from service.store.answers import Answer, Answers
from service.store.approvals import ApprovalRefused, Approvals
from service.store.backlog import Backlog, Backlogs
from service.store.conditions import Conditions, Kind
from service.store.counting import Counting
from service.store.database import StoreError, connect
from service.store.deliveries import Deliveries
from service.store.follow_ups import FollowUps
from service.store.forgetting import Forgetting, Horizons
from service.store.ledger import Ledger
from service.store.openings import Openings
from service.store.owner import worker_name
from service.store.pull_requests import PullRequests
from service.store.queue import LeaseLost, Queue, UnknownRun
from service.store.recipes import Recipes
from service.store.records import (
    ROLLBACK,
    Approval,
    Artifact,
    AuditFilter,
    AuditRecord,
    DeliveryRecord,
    FollowUpRecord,
    Foretold,
    HintRecord,
    HoldRecord,
    KeptRecipe,
    ListingRecord,
    LookKey,
    Message,
    PublicationRecord,
    Published,
    PullRequestRecord,
    Referrer,
    RunFilter,
    RunOrder,
    RunRecord,
    RunState,
    Scope,
    Seen,
    Sighting,
    StageRecord,
    StageState,
    TokenRecord,
    Unpublished,
    VariantRecord,
    WaiverRecord,
    Wanted,
    WatchRecord,
    order_of,
)
from service.store.references import References
from service.store.releases import Releases
from service.store.results import Results, UnknownPublication
from service.store.sightings import Sightings
from service.store.steering import PRIORITIES, Steering, SteeringRefused, refuse_priority
from service.store.undecided import Undecided
from service.store.waivers import WaiverRefused, Waivers
from service.store.watching import Replayed, UnknownEntry, Watching

__all__ = [
    "PRIORITIES",
    "ROLLBACK",
    "Answer",
    "Approval",
    "ApprovalRefused",
    "Artifact",
    "AuditFilter",
    "AuditRecord",
    "Backlog",
    "DeliveryRecord",
    "FollowUpRecord",
    "Foretold",
    "HintRecord",
    "HoldRecord",
    "Horizons",
    "KeptRecipe",
    "Kind",
    "LeaseLost",
    "ListingRecord",
    "LookKey",
    "Message",
    "PublicationRecord",
    "Published",
    "PullRequestRecord",
    "Referrer",
    "Replayed",
    "RunFilter",
    "RunOrder",
    "RunRecord",
    "RunState",
    "Scope",
    "Seen",
    "Sighting",
    "StageRecord",
    "StageState",
    "SteeringRefused",
    "Store",
    "StoreError",
    "TokenRecord",
    "UnknownEntry",
    "UnknownPublication",
    "UnknownRun",
    "Unpublished",
    "VariantRecord",
    "WaiverRecord",
    "WaiverRefused",
    "Wanted",
    "WatchRecord",
    "open_store",
    "order_of",
    "refuse_priority",
    "worker_name",
]


class Store(
    Queue,
    Backlogs,
    Steering,
    Recipes,
    References,
    Releases,
    Results,
    PullRequests,
    Waivers,
    Approvals,
    Undecided,
    Access,
    Answers,
    Sightings,
    Openings,
    FollowUps,
    Watching,
    Conditions,
    Counting,
    Deliveries,
    Forgetting,
    Ledger,
):
    """Everything that is remembered. Safe to share between threads, and between processes on one database."""


def open_store(url: str) -> Store:
    """The store at a SQLAlchemy URL, created or brought to the newest schema first. Raises ConfigurationError when that is not possible."""
    return Store(connect(url))
