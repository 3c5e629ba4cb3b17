"""Lists of jobs and counts of jobs, at a cost that does not grow with the number of jobs.

They are read from the tables `job_counts` and `job_labels`, which the `note_…` functions here keep up to date with each change of a job.
Deleted jobs are in neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from jobs.model import JobType, Status
from jobs.store.schema import in_status, job_counts, job_labels, jobs

LAST_MS = (1 << 48) - 1
SOME = 1000
"""Up to this many jobs of a label are counted to find the rarest label."""


@dataclass(frozen=True)
class JobFilter:
    """`since` and `until` are Unix milliseconds; the former is within, the latter is not."""

    status: Sequence[str] = ()
    type: Sequence[str] = ()
    project: str | None = None
    labels: Sequence[str] = ()
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True)
class JobCounts:
    by_status: Mapping[str, int]
    by_type: Mapping[str, int]
    oldest_pending_ms: int | None


# -- kept with each change ------------------------------------------------------------------------------------------------


def note_new(connection: Connection, job_id: str, *, type: str, project: str | None, labels: Iterable[str]) -> None:
    """A new job is pending."""
    facts = {"job_id": job_id, "status": Status.PENDING, "type": type, "project": project}
    if rows := [{"label": label, **facts} for label in labels]:
        connection.execute(insert(job_labels), rows)
    _count(connection, Status.PENDING, type, 1)


def note_status(connection: Connection, job_id: str, *, type: str, previous: str, status: str, labelled: bool) -> None:
    """A job that is not deleted changed its status."""
    if labelled:
        connection.execute(update(job_labels).where(job_labels.c.job_id == job_id).values(status=status))
    _count(connection, previous, type, -1)
    _count(connection, status, type, 1)


def note_deleted(connection: Connection, job_id: str, *, type: str, status: str) -> None:
    """A job was deleted; its rows still exist."""
    connection.execute(delete(job_labels).where(job_labels.c.job_id == job_id))
    _count(connection, status, type, -1)


def note_removed(connection: Connection, removed: Iterable[tuple[str, str]]) -> None:
    """The rows of jobs that were not deleted before were removed; each is given as a status and a type."""
    for (status, type_), count in Counter(removed).items():
        _count(connection, status, type_, -count)


def _count(connection: Connection, status: str, type_: str, change: int) -> None:
    row = {"status": status, "type": type_}
    query = update(job_counts).where(job_counts.c.status == status, job_counts.c.type == type_)
    if connection.execute(query.values(jobs=job_counts.c.jobs + change)).rowcount == 0:
        connection.execute(insert(job_counts), {**row, "jobs": change})


# -- read -----------------------------------------------------------------------------------------------------------------


def counts(connection: Connection) -> JobCounts:
    by_status, by_type = Counter({str(name): 0 for name in Status}), Counter({str(name): 0 for name in JobType})
    for row in connection.execute(select(job_counts)):
        by_status[row.status] += row.jobs
        by_type[row.type] += row.jobs
    return JobCounts(by_status, by_type, _oldest_pending(connection))


def _oldest_pending(connection: Connection) -> int | None:
    oldest = [select(jobs.c.created_at).where(*_listed(Status.PENDING, type_)).order_by(jobs.c.id).limit(1) for type_ in JobType]
    return min((at for query in oldest if (at := connection.execute(query).scalar()) is not None), default=None)


def pending(connection: Connection) -> int:
    return sum(connection.execute(select(job_counts.c.jobs).where(job_counts.c.status == Status.PENDING)).scalars())


def page(connection: Connection, wanted: JobFilter, *, limit: int, cursor: str | None) -> list[str]:
    """The ids of the newest jobs that match, after `cursor`.

    Each wanted pair of a status and a type is a range of an index. The end of each range is read, and the page is the newest of those.
    """
    labels = _rarest_first(connection, wanted.labels)
    table = job_labels if labels else jobs
    job_id = table.c.job_id if labels else table.c.id
    query = select(job_id).where(*_window(job_id, wanted, cursor)).order_by(job_id.desc()).limit(limit)
    if labels:
        query = query.where(table.c.label == labels[0])
    for label in labels[1:]:
        other = job_labels.alias()
        query = query.where(select(other.c.job_id).where(other.c.label == label, other.c.job_id == job_id).exists())
    if wanted.project is not None:
        query = query.where(table.c.project == wanted.project)
    if not labels:
        query = query.where(jobs.c.deleted_at.is_(None))
    if not (wanted.status or wanted.type or wanted.project is not None):
        return list(connection.execute(query).scalars())
    ids: list[str] = []
    for status, type_ in _kinds(connection, wanted):
        ids += connection.execute(query.where(table.c.status == status, table.c.type == type_)).scalars()
    return sorted(ids, reverse=True)[:limit]


def _kinds(connection: Connection, wanted: JobFilter) -> list[tuple[str, str]]:
    """The wanted pairs of status and type that have jobs."""
    there = {(row.status, row.type) for row in connection.execute(select(job_counts).where(job_counts.c.jobs > 0))}
    return [kind for kind in product(wanted.status or Status, wanted.type or JobType) if kind in there]


def _window(job_id: ColumnElement[str], wanted: JobFilter, cursor: str | None) -> list[ColumnElement[bool]]:
    """Times become bounds of ids, because an id contains the time at which its job was created."""
    window = [job_id < cursor] if cursor else []
    if wanted.since is not None:
        window.append(job_id >= first_id(wanted.since))
    if wanted.until is not None:
        window.append(job_id < first_id(wanted.until))
    return window


def first_id(ms: int) -> str:
    """A text that sorts right before every id made at that time (Unix milliseconds) or later."""
    digits = f"{min(max(ms, 0), LAST_MS):012x}"
    return f"{digits[:8]}-{digits[8:]}"


def created_ms(job_id: str) -> int:
    """The time in a job's id (Unix milliseconds)."""
    return int(job_id[:8] + job_id[9:13], 16)


def _rarest_first(connection: Connection, labels: Sequence[str]) -> list[str]:
    """The page is read along the first label; the others are looked up for each of its jobs."""
    if len(labels) < 2:
        return list(labels)

    def some(label: str) -> int:
        few = select(job_labels.c.job_id).where(job_labels.c.label == label).limit(SOME).subquery()
        return connection.execute(select(func.count()).select_from(few)).scalar_one()

    return sorted(labels, key=some)


def _listed(status: str, type_: str) -> tuple[Any, ...]:
    return (in_status(jobs, status), jobs.c.type == type_, jobs.c.deleted_at.is_(None))
