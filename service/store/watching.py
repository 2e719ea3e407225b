"""What is watched beside the settings' list, what was found at the last look at each repo, and how the owners' listings went."""

from collections.abc import Collection, Mapping
from datetime import timedelta

from pydantic import ValidationError
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError

from config.files import explain
from config.watch import Watched
from config.wire import API
from service.store.database import Database, StoreError, now, upserting
from service.store.ledger import note, put_hints
from service.store.outside import UsedRow, WatchRow
from service.store.records import ListingRecord, Look, LookKey, WatchRecord
from service.store.tables import ListingRow, LookRow, PublicationRow, ReleaseRow, RunRow


class UnknownEntry(StoreError):
    """No entry of the watch list has that number."""


class Replayed(StoreError):
    """A signed request came a second time."""


class Watching(Database):
    """The watch list and its state."""

    def watch_entries(self) -> tuple[WatchRecord, ...]:
        """What was added beside the settings, over the network or by command, oldest first."""
        with self.read() as session:
            return tuple(_record(row) for row in session.scalars(select(WatchRow).order_by(WatchRow.id)))

    def watch_entry(self, id: int) -> WatchRecord:
        """The entry of that number. Raises UnknownEntry."""
        with self.read() as session:
            return _record(_known(session.get(WatchRow, id), id))

    def add_watch(self, entry: Watched, *, by: str, source: str = "api") -> WatchRecord:
        """Put an entry on the list; `by` names the token that asks over the network."""
        with self.write() as session:
            session.add(row := WatchRow(entry=entry.model_dump(mode="json", exclude_defaults=True), by=by, created=now()))
            session.flush()
            note(session, source, f"watch/{row.id}", "added", {**_asking(by, source), "entry": row.entry})
            return _record(row)

    def change_watch(self, id: int, entry: Watched, *, by: str, source: str = "api") -> WatchRecord:
        """Replace an entry. Raises UnknownEntry."""
        with self.write() as session:
            row = _known(session.get(WatchRow, id), id)
            row.entry = entry.model_dump(mode="json", exclude_defaults=True)
            note(session, source, f"watch/{id}", "changed", {**_asking(by, source), "entry": row.entry})
            return _record(row)

    def remove_watch(self, id: int, *, by: str, source: str = "api") -> None:
        """Take an entry off the list. Raises UnknownEntry."""
        with self.write() as session:
            session.delete(_known(session.get(WatchRow, id), id))
            note(session, source, f"watch/{id}", "removed", _asking(by, source))

    def looks(self) -> dict[LookKey, Look]:
        """The last look, by repo, branch and what was asked of it."""
        with self.read() as session:
            rows = session.execute(select(LookRow.repo, LookRow.revision, LookRow.asked, LookRow.sha, LookRow.at))
            return {LookKey(repo=repo, revision=revision, asked=asked): Look(sha=sha, at=at) for repo, revision, asked, sha, at in rows}

    def record_look(self, key: LookKey, sha: str) -> None:
        """A look at a repo found this commit, and polls need not ask for another one as long as it stays."""
        with self.write() as session:
            new = upserting(session, LookRow).values(**vars(key), sha=sha, at=now())
            same = [LookRow.repo, LookRow.revision, LookRow.asked]
            session.execute(new.on_conflict_do_update(index_elements=same, set_={"sha": new.excluded.sha, "at": new.excluded.at}))

    def forget_looks(self, *, asked: Collection[str], keep: timedelta) -> None:
        """Forget what was found for anything else than what is `asked` now, and longer ago than `keep`: another recipe, another namespace."""
        with self.write() as session:
            session.execute(delete(LookRow).where(LookRow.asked.not_in(asked), LookRow.at < now() - keep))

    def failed_releases(self, attempts: int, *, namespace: str | None) -> frozenset[tuple[str, str, str]]:
        """Repo, commit and the recipe's digest of runs that failed and were tried fewer than `attempts` times.

        Only of runs that publish under the namespace, whichever it was without one: the others, those that leave their repos in folders among them, no look
        would take up.
        """
        failed = select(ReleaseRow.repo, ReleaseRow.sha, RunRow.recipe_digest).join(RunRow, RunRow.release_id == ReleaseRow.id)
        query = failed.where(RunRow.state == "failed", RunRow.attempt < attempts, RunRow.target.is_(None))
        if namespace is not None:
            query = query.where(func.lower(RunRow.namespace) == namespace.lower())  # as the Hub spells it, to which case is all the same
        with self.read() as session:
            return frozenset((repo, sha, digest) for repo, sha, digest in session.execute(query))

    def published_repos(self) -> frozenset[str]:
        """Every repo that was ever published into, in lower case."""
        with self.read() as session:
            return frozenset(repo.lower() for repo in session.scalars(select(PublicationRow.repo).distinct()))

    def listings(self) -> tuple[ListingRecord, ...]:
        """How each owner was listed the last time."""
        with self.read() as session:
            rows = session.scalars(select(ListingRow).order_by(ListingRow.owner))
            return tuple(ListingRecord(owner=row.owner, repos=row.repos, at=row.at, error=row.error) for row in rows)

    def record_listings(self, found: Mapping[str, int | str]) -> None:
        """Keep of each owner how many repos were listed, or why that failed; what was kept of all other owners is forgotten."""
        with self.write() as session:
            session.execute(delete(ListingRow).where(ListingRow.owner.not_in(found)))
            for owner, said in sorted(found.items()):  # in one order, or two services could block one another
                error, repos = (said, 0) if isinstance(said, str) else (None, said)
                new = upserting(session, ListingRow).values(owner=owner, repos=repos, at=now(), error=error)
                told = {"at": new.excluded.at, "error": new.excluded.error} | ({} if error is not None else {"repos": new.excluded.repos})
                session.execute(new.on_conflict_do_update(index_elements=[ListingRow.owner], set_=told))

    def ask_to_rebuild(self, repo: str, digest: str, *, keep: timedelta) -> None:
        """Leave the hint that a signed request asks for, note that it was carried out, and forget those that are older than `keep`: all of it or nothing.

        Raises Replayed when it was carried out before.
        """
        try:
            with self.write() as session:
                session.execute(delete(UsedRow).where(UsedRow.at < now() - keep))
                session.add(UsedRow(digest=digest, at=now()))
                session.flush()
                put_hints(session, {repo: "rebuild"}, rebuild=True)
                note(session, "rebuild", f"repo/{repo}", "requested", {})
        except IntegrityError as error:
            raise Replayed("This request was carried out already. Sign a new one, with the present time.") from error


def _known(row: WatchRow | None, id: int) -> WatchRow:
    if row is None:
        raise UnknownEntry(f"The watch list has no entry {id} beside those of the settings. `sluice watch list` shows those there are.")
    return row


def _asking(by: str, source: str) -> dict[str, str]:
    """Who asks, as the audit trail tells it."""
    return {"token": by} if source == "api" else {}


def _record(row: WatchRow) -> WatchRecord:
    entry, error = _read(row)
    return WatchRecord(id=row.id, entry=entry, kept=row.entry, error=error, by=row.by, created=row.created)


def _read(row: WatchRow) -> tuple[Watched | None, str | None]:
    """The entry, or what this version does not understand of it: one such must not take the others away."""
    try:
        return Watched.model_validate(row.entry), None
    except ValidationError as error:
        return None, f"This version cannot read it ({explain(error, Watched)}). Replace it by PUT {API}/watch/{row.id}, or remove it by DELETE there."
