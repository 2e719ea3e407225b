"""What watched revisions named when they were last looked at, by which is known that one moved back."""

from dataclasses import asdict

from sqlalchemy import Select, select
from sqlalchemy.exc import IntegrityError

from service.store.database import Database, now
from service.store.queue import place_in
from service.store.records import Sighting
from service.store.tables import SightingRow


class Sightings(Database):
    """The latest look at each watched revision."""

    def sighting(self, repo: str, revision: str, recipe: str) -> Sighting | None:
        """What the revision named for that recipe; None when nobody has looked yet."""
        with self.read() as session:
            row = session.scalars(_of(repo, revision, recipe)).first()
            if row is None:
                return None
            return Sighting(repo=repo, revision=revision, recipe=recipe, sha=row.sha, newest=row.newest, place=place_in({"place": row.place}))

    def sight(self, seen: Sighting) -> None:
        """Keep what the revision names now, in the place of what it named before."""
        try:
            self._sight(seen)
        except IntegrityError:  # another process looked for the first time as well
            self._sight(seen)

    def _sight(self, seen: Sighting) -> None:
        with self.write() as session:
            row = session.scalars(_of(seen.repo, seen.revision, seen.recipe).with_for_update()).first()
            if row is None:
                session.add(row := SightingRow(repo=seen.repo, revision=seen.revision, recipe=seen.recipe))
            row.sha, row.newest, row.at = seen.sha, seen.newest, now()
            row.place = None if seen.place is None else asdict(seen.place)


def _of(repo: str, revision: str, recipe: str) -> Select[SightingRow]:
    return select(SightingRow).where(SightingRow.repo == repo, SightingRow.revision == revision, SightingRow.recipe == recipe)
