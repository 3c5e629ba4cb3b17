"""The tables, as SQLAlchemy Core knows them. `migrations/` makes them; a test holds both against each other.

Times are Unix milliseconds. Ids are UUIDv7 as text, so that their order is the order of submission.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    FromClause,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
    or_,
    text,
)

metadata = MetaData()

# SQLite gives an INTEGER PRIMARY KEY to new rows by itself, but not a BIGINT one.
_Serial = BigInteger().with_variant(Integer, "sqlite")
_Json = JSON(none_as_null=True)


def in_status(table: FromClause, *statuses: str) -> ColumnElement[bool]:
    """The condition in the words of the partial indexes: SQLite does not take one for a value that is only given with the query."""
    return or_(*(table.c.status == literal_column(f"'{status}'") for status in statuses))


jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("submission", _Json, nullable=False),
    Column("status", Text, nullable=False),
    Column("previous_status", Text),
    Column("reason", Text),
    Column("error", _Json),
    Column("progress_percent", Float),
    Column("progress_message", Text),
    Column("result", _Json),
    Column("exit_code", Integer),
    Column("signal", Text),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("max_attempts", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("queue", Text, nullable=False),
    Column("concurrency_key", Text),
    Column("labels", _Json, nullable=False),
    Column("timeout_seconds", Integer),
    Column("project", Text),
    Column("submitted_by", Text, nullable=False),
    Column("retry_of", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("ready_at", BigInteger),
    Column("ended_at", BigInteger),
    # A cancel request is not a state: the job stays what it is until its processes are gone.
    Column("cancel_requested_at", BigInteger),
    Column("cancel_reason", Text),
    Column("cancelled_by", Text),
    Column("cancel_forced", Boolean, nullable=False, server_default=text("false")),
    # Invisible from then on, and removed once it has ended.
    Column("deleted_at", BigInteger),
    Column("log_lines", BigInteger, nullable=False, server_default="0"),
    Column("log_bytes", BigInteger, nullable=False, server_default="0"),
    Column("dropped_first", BigInteger),
    Column("dropped_last", BigInteger),
    # The lease: who may write for the job. `heartbeat` counts signs of life, so that no clocks are compared.
    Column("lease", Text),
    Column("worker_id", Text),
    Column("host", Text),
    Column("heartbeat", BigInteger, nullable=False, server_default="0"),
    Column("supervisor", _Json),
    Column("process_group", Integer),
)
_PENDING, _RUNNING = text("status = 'pending'"), text("status = 'running'")
_ENDED, _LISTED = text("ended_at IS NOT NULL"), text("deleted_at IS NULL")
# A page of the list is the ends of a few ranges of these, one for each status and type that is wanted; see `listing.py`.
Index("jobs_listed", jobs.c.status, jobs.c.type, jobs.c.id, sqlite_where=_LISTED, postgresql_where=_LISTED)
Index("jobs_of_project", jobs.c.project, jobs.c.status, jobs.c.type, jobs.c.id, sqlite_where=_LISTED, postgresql_where=_LISTED)
# With the key, so that those which it blocks are passed over without a look at their rows.
Index(
    "jobs_to_claim",
    jobs.c.queue,
    jobs.c.priority.desc(),
    jobs.c.id,
    jobs.c.concurrency_key,
    sqlite_where=_PENDING,
    postgresql_where=_PENDING,
)
Index("jobs_by_key", jobs.c.concurrency_key, jobs.c.queue, jobs.c.id, sqlite_where=_PENDING, postgresql_where=_PENDING)
Index("jobs_running", jobs.c.worker_id, sqlite_where=_RUNNING, postgresql_where=_RUNNING)
Index("jobs_ended", jobs.c.ended_at, jobs.c.log_bytes, sqlite_where=_ENDED, postgresql_where=_ENDED)
# What each token has pending, and what it has logged. A log that still grows is not in the index, so that its growth costs nothing there.
Index("jobs_pending_by_token", jobs.c.submitted_by, sqlite_where=_PENDING, postgresql_where=_PENDING)
Index(
    "jobs_logs_by_token",
    jobs.c.submitted_by,
    jobs.c.deleted_at,
    jobs.c.ended_at,
    jobs.c.log_bytes,
    sqlite_where=_ENDED,
    postgresql_where=_ENDED,
)
Index(
    "jobs_deleted",
    jobs.c.deleted_at,
    sqlite_where=text("deleted_at IS NOT NULL"),
    postgresql_where=text("deleted_at IS NOT NULL"),
)

job_labels = Table(
    "job_labels",
    metadata,
    Column("label", Text, primary_key=True),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    # As the job has them, so that jobs with a label are listed as fast as all are.
    Column("status", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("project", Text),
)
Index("job_labels_by_job", job_labels.c.job_id)
Index("job_labels_listed", job_labels.c.label, job_labels.c.status, job_labels.c.type, job_labels.c.job_id)
Index("job_labels_of_project", job_labels.c.label, job_labels.c.project, job_labels.c.status, job_labels.c.type, job_labels.c.job_id)

# How many jobs there are that were not deleted, kept with every change.
job_counts = Table(
    "job_counts",
    metadata,
    Column("status", Text, primary_key=True),
    Column("type", Text, primary_key=True),
    Column("jobs", BigInteger, nullable=False),
)

job_events = Table(
    "job_events",
    metadata,
    Column("cursor", _Serial, primary_key=True, autoincrement=True),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("previous", Text),
    Column("reason", Text),
    Column("attempt", Integer, nullable=False),
    Column("cause", Text, nullable=False),
    sqlite_autoincrement=True,
)
Index("job_events_by_job", job_events.c.job_id, job_events.c.cursor)

log_chunks = Table(
    "log_chunks",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("first_seq", BigInteger, primary_key=True),
    Column("lines", Integer, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("stream", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
)
Index("log_chunks_by_stream", log_chunks.c.job_id, log_chunks.c.stream, log_chunks.c.first_seq, log_chunks.c.lines)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_hash", Text, nullable=False),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
)
Index("idempotency_keys_by_job", idempotency_keys.c.job_id)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("slots", Integer, nullable=False),
    # ",default,gpu,": so that one LIKE finds the workers of a queue on every database.
    Column("queues", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("heartbeat_at", BigInteger, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("name", Text, primary_key=True),
    Column("id", Text, nullable=False),
    Column("hash", Text, nullable=False, unique=True),
    Column("scopes", _Json, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    UniqueConstraint("id", name="tokens_by_id"),
)
