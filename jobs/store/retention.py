"""Removes jobs beyond the limits of retention, and deleted jobs."""

from __future__ import annotations

from sqlalchemy import Connection, Select, case, delete, func, select

from jobs.clock import now_ms
from jobs.model import ENDED
from jobs.store import listing
from jobs.store.database import Database
from jobs.store.schema import jobs


class Retention:
    """Removes deleted jobs that have ended, and ended jobs beyond the limits. An active job is never removed.

    `log_cap` is the most that is stored of one log, in bytes. Whatever the limits, a job's rows stay for `seen_ms` after its end, so that
    subscribers still receive the end.
    """

    BATCH = 500
    BATCH_BYTES = 64 << 20
    SEEN_MS = 5_000

    def __init__(
        self, database: Database, *, max_age_ms: int, max_jobs: int, max_bytes: int, log_cap: int = 1 << 62, seen_ms: int = SEEN_MS
    ) -> None:
        self.database = database
        self.max_age_ms = max_age_ms
        self.max_jobs = max_jobs
        self.max_bytes = max_bytes
        self.seen_ms = seen_ms
        self._kept = case((jobs.c.log_bytes > log_cap, log_cap), else_=jobs.c.log_bytes)

    def run(self) -> int:
        """Remove at most one batch, so that no write lasts long. Returns how many jobs were removed."""
        # Read before the write begins, because other writers wait for a write. A job that has ended does not change any more.
        to_remove = self.database.read(self._to_remove)
        if to_remove:
            self.database.write(lambda connection: _remove(connection, to_remove), durable=False)
        return len(to_remove)

    def _to_remove(self, connection: Connection) -> list[str]:
        seen = now_ms() - self.seen_ms
        to_remove: dict[str, int] = {}
        for query in (self._deleted(), self._old(), self._surplus(connection), self._too_large(connection)):
            to_remove.update((row.id, row.kept) for row in connection.execute(query) if row.ended_at < seen)
        batch: list[str] = []
        room = self.BATCH_BYTES
        for job_id, kept in to_remove.items():
            if len(batch) == self.BATCH or room <= 0:
                break
            batch.append(job_id)
            room -= kept
        return batch

    def _ended(self) -> Select[tuple[str, int, int]]:
        return select(jobs.c.id, self._kept.label("kept"), jobs.c.ended_at).where(jobs.c.ended_at.is_not(None))

    def _deleted(self) -> Select[tuple[str, int, int]]:
        return self._ended().where(jobs.c.deleted_at < now_ms() - self.SEEN_MS).limit(self.BATCH)

    def _old(self) -> Select[tuple[str, int, int]]:
        return self._ended().where(jobs.c.ended_at < now_ms() - self.max_age_ms).limit(self.BATCH)

    def _surplus(self, connection: Connection) -> Select[tuple[str, int, int]]:
        counted = listing.counts(connection).by_status
        # Deleted jobs are not counted, and are removed soon anyway.
        return self._oldest(max(0, sum(counted[status] for status in ENDED) - self.max_jobs)).where(jobs.c.deleted_at.is_(None))

    def _too_large(self, connection: Connection) -> Select[tuple[str, int, int]]:
        surplus = (connection.execute(select(func.sum(self._kept)).where(jobs.c.ended_at.is_not(None))).scalar() or 0) - self.max_bytes
        if surplus <= 0:
            return self._oldest(0)
        count = 0
        for row in connection.execute(self._oldest(self.BATCH)):
            if surplus <= 0:
                break
            surplus -= row.kept
            count += 1
        return self._oldest(count)

    def _oldest(self, count: int) -> Select[tuple[str, int, int]]:
        return self._ended().order_by(jobs.c.id).limit(min(count, self.BATCH))


def _remove(connection: Connection, to_remove: list[str]) -> None:
    removed = connection.execute(delete(jobs).where(jobs.c.id.in_(to_remove)).returning(jobs.c.status, jobs.c.type, jobs.c.deleted_at))
    listing.note_removed(connection, [(row.status, row.type) for row in removed if row.deleted_at is None])
