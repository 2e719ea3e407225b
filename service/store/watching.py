"""What is watched beside the settings' list, what was found at the last look at each repo, and how the owners' listings went."""

from collections.abc import Collection, Mapping
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from config.watch import Watched
from service.store.database import Database, StoreError, now
from service.store.ledger import note
from service.store.outside import UsedRow, WatchRow
from service.store.records import ListingRecord, LookKey, WatchRecord
from service.store.tables import ListingRow, LookRow, PublicationRow, ReleaseRow, RunRow


class UnknownEntry(StoreError):
    """No entry of the watch list has that number."""


class Replayed(StoreError):
    """A signed request came a second time."""


class Watching(Database):
    """The watch list and its state."""

    def watch_entries(self) -> tuple[WatchRecord, ...]:
        """What was added over the network, oldest first."""
        with self.read() as session:
            return tuple(_record(row) for row in session.scalars(select(WatchRow).order_by(WatchRow.id)))

    def watch_entry(self, id: int) -> WatchRecord:
        """The entry of that number. Raises UnknownEntry."""
        with self.read() as session:
            return _record(_known(session.get(WatchRow, id), id))

    def add_watch(self, entry: Watched, *, by: str) -> WatchRecord:
        """Put an entry on the list."""
        with self.write() as session:
            session.add(row := WatchRow(entry=entry.model_dump(mode="json", exclude_defaults=True), by=by, created=now()))
            session.flush()
            note(session, "api", f"watch/{row.id}", "added", {"token": by, "entry": row.entry})
            return _record(row)

    def change_watch(self, id: int, entry: Watched, *, by: str) -> WatchRecord:
        """Replace an entry. Raises UnknownEntry."""
        with self.write() as session:
            row = _known(session.get(WatchRow, id), id)
            row.entry = entry.model_dump(mode="json", exclude_defaults=True)
            note(session, "api", f"watch/{id}", "changed", {"token": by, "entry": row.entry})
            return _record(row)

    def remove_watch(self, id: int, *, by: str) -> None:
        """Take an entry off the list. Raises UnknownEntry."""
        with self.write() as session:
            session.delete(_known(session.get(WatchRow, id), id))
            note(session, "api", f"watch/{id}", "removed", {"token": by})

    def looks(self) -> dict[LookKey, str]:
        """The commit that was found at the last look, by repo, branch and what was asked of it."""
        with self.read() as session:
            rows = session.execute(select(LookRow.repo, LookRow.revision, LookRow.asked, LookRow.sha))
            return {LookKey(repo=repo, revision=revision, asked=asked): sha for repo, revision, asked, sha in rows}

    def record_look(self, key: LookKey, sha: str) -> None:
        """A look at a repo found this commit, and nothing more is to be done about it."""
        with self.write() as session:
            same = (LookRow.repo == key.repo, LookRow.revision == key.revision, LookRow.asked == key.asked)
            session.execute(delete(LookRow).where(*same))
            session.add(LookRow(repo=key.repo, revision=key.revision, asked=key.asked, sha=sha, at=now()))

    def forget_looks(self, *, asked: Collection[str], keep: timedelta) -> None:
        """Forget what was found for anything else than what is `asked` now, and longer ago than `keep`: another recipe, another namespace."""
        with self.write() as session:
            session.execute(delete(LookRow).where(LookRow.asked.not_in(asked), LookRow.at < now() - keep))

    def failed_releases(self, attempts: int) -> frozenset[tuple[str, str]]:
        """Repo and commit of releases of which a run failed and was tried fewer than `attempts` times."""
        failed = select(ReleaseRow.repo, ReleaseRow.sha).join(RunRow, RunRow.release_id == ReleaseRow.id)
        query = failed.where(RunRow.state == "failed", RunRow.attempt < attempts)
        with self.read() as session:
            return frozenset((repo, sha) for repo, sha in session.execute(query))

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
            before = {row.owner: row for row in session.scalars(select(ListingRow))}
            for owner, row in before.items():
                if owner not in found:
                    session.delete(row)
            for owner, said in found.items():
                row = before.get(owner) or ListingRow(owner=owner, repos=0)
                session.add(row)
                row.at, row.error = now(), said if isinstance(said, str) else None
                row.repos = row.repos if isinstance(said, str) else said

    def use_once(self, digest: str, *, keep: timedelta) -> None:
        """Note that a signed request was carried out, and forget those that are older than `keep`. Raises Replayed when it was noted before."""
        try:
            with self.write() as session:
                session.execute(delete(UsedRow).where(UsedRow.at < now() - keep))
                session.add(UsedRow(digest=digest, at=now()))
        except IntegrityError as error:
            raise Replayed("This request was carried out already. Sign a new one, with the present time.") from error


def _known(row: WatchRow | None, id: int) -> WatchRow:
    if row is None:
        raise UnknownEntry(f"The watch list has no entry {id} that was added over the network. GET /api/v1/watch shows those there are.")
    return row


def _record(row: WatchRow) -> WatchRecord:
    return WatchRecord(id=row.id, entry=Watched.model_validate(row.entry), by=row.by, created=row.created)
