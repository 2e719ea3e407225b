"""The service's memory, in SQLite or PostgreSQL: runs and all that comes of them, what they wait for, tokens, audit trail."""

from service.store.approvals import ApprovalRefused, Approvals
from service.store.counting import Counting
from service.store.database import StoreError, connect
from service.store.ledger import Ledger
from service.store.owner import worker_name
from service.store.pull_requests import PullRequests
from service.store.queue import Queue, UnknownRun
from service.store.records import (
    Approval,
    Artifact,
    AuditRecord,
    Foretold,
    HintRecord,
    HoldRecord,
    ListingRecord,
    LookKey,
    PublicationRecord,
    Published,
    PullRequestRecord,
    RunOrder,
    RunRecord,
    RunState,
    StageRecord,
    StageState,
    TokenRecord,
    VariantRecord,
    WaiverRecord,
    WatchRecord,
    order_of,
)
from service.store.results import Results, UnknownPublication
from service.store.waivers import WaiverRefused, Waivers
from service.store.watching import Replayed, UnknownEntry, Watching

__all__ = [
    "Approval",
    "ApprovalRefused",
    "Artifact",
    "AuditRecord",
    "Foretold",
    "HintRecord",
    "HoldRecord",
    "ListingRecord",
    "LookKey",
    "PublicationRecord",
    "Published",
    "PullRequestRecord",
    "Replayed",
    "RunOrder",
    "RunRecord",
    "RunState",
    "StageRecord",
    "StageState",
    "Store",
    "StoreError",
    "TokenRecord",
    "UnknownEntry",
    "UnknownPublication",
    "UnknownRun",
    "VariantRecord",
    "WaiverRecord",
    "WaiverRefused",
    "WatchRecord",
    "open_store",
    "order_of",
    "worker_name",
]


class Store(Queue, Results, PullRequests, Waivers, Approvals, Watching, Counting, Ledger):
    """Everything that is remembered. Safe to share between threads, and between processes on one database."""


def open_store(url: str) -> Store:
    """The store at a SQLAlchemy URL, created or brought to the newest schema first. Raises ConfigurationError when that is not possible."""
    return Store(connect(url))
