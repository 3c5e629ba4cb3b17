"""What the store forgets, and when."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, select

from jobs.clock import now_ms
from jobs.database import Database
from jobs.model import ENDED
from jobs.schema import jobs


class Retention:
    """Removes what is no longer wanted: deleted jobs that have ended, and ended jobs beyond the limits. Nothing active is ever removed."""

    BATCH = 500

    def __init__(self, database: Database, *, max_age_ms: int, max_jobs: int, max_bytes: int) -> None:
        self.database = database
        self.max_age_ms = max_age_ms
        self.max_jobs = max_jobs
        self.max_bytes = max_bytes

    def run(self) -> int:
        """Remove at most one batch, so that no write lasts long; gives how many jobs it removed."""
        return self.database.write(self._remove, durable=False)

    def _remove(self, connection: Connection) -> int:
        doomed = self._doomed(connection)
        if doomed:
            connection.execute(delete(jobs).where(jobs.c.id.in_(doomed)))
        return len(doomed)

    def _doomed(self, connection: Connection) -> list[str]:
        ended = jobs.c.status.in_(sorted(ENDED))
        # A deleted job's rows stay a moment longer than the job, so that those who watch it still see its end.
        seen = now_ms() - 5_000
        gone = select(jobs.c.id).where(jobs.c.deleted_at < seen, jobs.c.ended_at < seen, ended)
        old = select(jobs.c.id).where(ended, jobs.c.ended_at < now_ms() - self.max_age_ms)
        surplus = select(jobs.c.id).where(ended).order_by(jobs.c.id.desc()).offset(self.max_jobs)
        doomed: list[str] = []
        for query in (gone, old, surplus):
            doomed += connection.execute(query.limit(self.BATCH)).scalars()
        return list(dict.fromkeys(doomed + self._too_large(connection)))[: self.BATCH]

    def _too_large(self, connection: Connection) -> list[str]:
        ended = jobs.c.status.in_(sorted(ENDED))
        total = connection.execute(select(func.sum(jobs.c.log_bytes)).where(ended)).scalar() or 0
        doomed: list[str] = []
        oldest = select(jobs.c.id, jobs.c.log_bytes).where(ended).order_by(jobs.c.id).limit(self.BATCH)
        for row in connection.execute(oldest) if total > self.max_bytes else ():
            if total <= self.max_bytes:
                break
            doomed.append(row.id)
            total -= row.log_bytes
        return doomed
