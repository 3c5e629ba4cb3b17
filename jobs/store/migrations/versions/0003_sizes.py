"""Answers cost the same whatever the size of the store: indexes that list, labels that know the status of their job, counts that are kept.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_PENDING, _RUNNING = sa.text("status = 'pending'"), sa.text("status = 'running'")
_ENDED, _LISTED = sa.text("ended_at IS NOT NULL"), sa.text("deleted_at IS NULL")


def upgrade() -> None:
    for name in ("jobs_by_status", "jobs_by_type", "jobs_by_project", "jobs_by_created", "jobs_to_claim", "jobs_by_key"):
        op.drop_index(name, "jobs")
    _index("jobs_listed", "status", "type", "id", where=_LISTED)
    _index("jobs_of_project", "project", "status", "type", "id", where=_LISTED)
    _index("jobs_to_claim", "queue", sa.literal_column("priority DESC"), "id", "concurrency_key", where=_PENDING)
    _index("jobs_by_key", "concurrency_key", "queue", "id", where=_PENDING)
    _index("jobs_running", "worker_id", where=_RUNNING)
    _index("jobs_ended", "ended_at", "log_bytes", where=_ENDED)
    _labels()
    op.create_table(
        "job_counts",
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("status", "type"),
    )
    op.execute("INSERT INTO job_counts SELECT status, type, count(*) FROM jobs WHERE deleted_at IS NULL GROUP BY status, type")
    op.create_index("log_chunks_by_stream", "log_chunks", ["job_id", "stream", "first_seq", "lines"])


def _index(name: str, *columns: str | sa.ColumnElement[str], where: sa.TextClause) -> None:
    op.create_index(name, "jobs", list(columns), sqlite_where=where, postgresql_where=where)


def _labels() -> None:
    """Made anew, because a column without a default cannot be added to a table with rows; the labels of deleted jobs stay behind."""
    op.drop_index("job_labels_by_job", "job_labels")
    op.rename_table("job_labels", "job_labels_before")
    op.create_table(
        "job_labels",
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("label", "job_id"),
    )
    op.execute(
        "INSERT INTO job_labels SELECT label, job_id, status, type, project FROM job_labels_before "
        "JOIN jobs ON jobs.id = job_id WHERE deleted_at IS NULL"
    )
    op.drop_table("job_labels_before")
    op.create_index("job_labels_by_job", "job_labels", ["job_id"])
    op.create_index("job_labels_listed", "job_labels", ["label", "status", "type", "job_id"])
    op.create_index("job_labels_of_project", "job_labels", ["label", "project", "status", "type", "job_id"])
