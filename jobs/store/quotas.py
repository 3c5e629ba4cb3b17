"""Limits of one token: pending jobs, and stored bytes of logs. Reads indexes only; changes nothing."""

from __future__ import annotations

import time

from sqlalchemy import Connection, case, func, literal, select

from jobs.errors import QuotaExceeded
from jobs.model import Status
from jobs.store.schema import in_status, jobs


class Quotas:
    """The limits are the same for every token; 0 is no limit. `log_cap` is the most that is stored of one log, in bytes."""

    COUNT_SECONDS = 2.0
    """How long the sum of a token's log bytes is reused. Logs grow while jobs run, so the limit can only be met roughly anyway."""
    COUNTS = 1000

    def __init__(self, *, max_pending: int = 0, max_log_bytes: int = 0, log_cap: int = 1 << 62) -> None:
        self._max_pending = max_pending
        self._max_log_bytes = max_log_bytes
        self._kept = case((jobs.c.log_bytes > log_cap, log_cap), else_=jobs.c.log_bytes)
        self._bytes: dict[str, tuple[float, int]] = {}

    def check(self, connection: Connection, owner: str) -> None:
        """Raises QuotaExceeded when `owner` (the name of a token) may not submit another job."""
        if self._max_pending and self._pending(connection, owner) >= self._max_pending:
            detail = f"{self._max_pending} jobs of the token {owner!r} are pending, which is its quota; try again when some have started."
            raise QuotaExceeded(detail)
        if self._max_log_bytes and self._log_bytes(connection, owner) >= self._max_log_bytes:
            detail = f"The logs of the token {owner!r} have {self._max_log_bytes} bytes or more, which is its quota; delete jobs to go on."
            raise QuotaExceeded(detail, retry_after=60)

    def _pending(self, connection: Connection, owner: str) -> int:
        """Counted up to the limit only."""
        # The status is a literal, because SQLite uses a partial index only when the query contains its condition.
        is_pending = jobs.c.status == literal(Status.PENDING.value, literal_execute=True)
        pending = select(literal(1)).where(jobs.c.submitted_by == owner, is_pending).limit(self._max_pending)
        return connection.execute(select(func.count()).select_from(pending.subquery())).scalar_one()

    def _log_bytes(self, connection: Connection, owner: str) -> int:
        known = self._bytes.get(owner)
        if known is None or time.monotonic() >= known[0]:
            if len(self._bytes) >= self.COUNTS:
                self._bytes.clear()
            known = self._bytes[owner] = (time.monotonic() + self.COUNT_SECONDS, self._sum(connection, owner))
        return known[1]

    def _sum(self, connection: Connection, owner: str) -> int:
        of_owner = select(func.coalesce(func.sum(self._kept), 0)).where(jobs.c.submitted_by == owner, jobs.c.deleted_at.is_(None))
        ended = connection.execute(of_owner.where(jobs.c.ended_at.is_not(None))).scalar_one()
        running = connection.execute(of_owner.where(in_status(jobs, Status.RUNNING))).scalar_one()
        return int(ended) + int(running)
