"""What watched revisions named when they were last looked at, by which is known that one moved back, and whether a run of that is still wanted."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from config.words import Place
from service.store.database import Database, now, upserting
from service.store.ledger import note
from service.store.records import Sighting
from service.store.tables import ReleaseRow, RunRow, SightingRow


class Sightings(Database):
    """The latest look at each watched revision."""

    def sighting(self, repo: str, revision: str, recipe: str) -> Sighting | None:
        """What the revision named for that recipe; None when nobody has looked yet."""
        query = select(SightingRow).where(SightingRow.repo == repo, SightingRow.revision == revision, SightingRow.recipe == recipe)
        with self.read() as session:
            row = session.scalars(query).first()
            if row is None:
                return None
            return Sighting(repo=repo, revision=revision, recipe=recipe, sha=row.sha, newest=row.newest, place=place_in({"place": row.place}))

    def named(self, repo: str, recipe: str) -> frozenset[str]:
        """The commits that watched revisions of the repo named when they were last looked at for that recipe."""
        with self.read() as session:
            return frozenset(session.scalars(select(SightingRow.sha).where(SightingRow.repo == repo, SightingRow.recipe == recipe)))

    def sight(self, seen: Sighting) -> None:
        """Keep what the revision names now, in the place of what it named before; nobody need decide any more about going back to another commit."""
        with self.write() as session:
            sighted(session, seen)


def sighted(session: Session, seen: Sighting) -> None:
    """See `Sightings.sight`, in the transaction of what comes of it."""
    new = upserting(session, SightingRow).values(**asdict(seen), at=now())
    same = [SightingRow.repo, SightingRow.revision, SightingRow.recipe]
    session.execute(new.on_conflict_do_update(index_elements=same, set_={name: new.excluded[name] for name in ("sha", "newest", "place", "at")}))
    undecided = (
        select(RunRow)
        .join(ReleaseRow, ReleaseRow.id == RunRow.release_id)
        .where(ReleaseRow.repo == seen.repo, ReleaseRow.sha != seen.sha, RunRow.recipe == seen.recipe, RunRow.state == "held")
        .order_by(RunRow.id)
        .with_for_update(of=RunRow)
    )
    for row in session.scalars(undecided):
        if row.rollback is not None and row.rollback.get("revision") == seen.revision:
            row.state, row.finished = "superseded", now()
            row.error = f"{row.rollback['comment']} It names {seen.sha[:12]} by now, so there is nothing to approve any more."
            note(session, row.trigger, f"run/{row.id}", row.state, {"error": row.error})


def place_in(kept: Mapping[str, Any]) -> Place | None:
    """The place that stands under `place` of what was kept."""
    return None if kept["place"] is None else Place(**kept["place"])
