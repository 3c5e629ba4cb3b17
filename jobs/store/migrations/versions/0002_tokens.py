"""Tokens get an id and an end; what a token has pending and has logged can be told without a look at every job.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_tokens = sa.table("tokens", sa.column("id", sa.Text), sa.column("name", sa.Text))


def upgrade() -> None:
    with op.batch_alter_table("tokens") as batch:
        batch.add_column(sa.Column("id", sa.Text(), nullable=True))
        batch.add_column(sa.Column("expires_at", sa.BigInteger(), nullable=True))
    for name in op.get_bind().execute(sa.select(_tokens.c.name)).scalars().all():
        op.execute(sa.update(_tokens).where(_tokens.c.name == name).values(id=str(uuid.uuid4())))
    with op.batch_alter_table("tokens") as batch:
        batch.alter_column("id", existing_type=sa.Text(), nullable=False)
        batch.create_unique_constraint("tokens_by_id", ["id"])
    pending, ended = sa.text("status = 'pending'"), sa.text("ended_at IS NOT NULL")
    op.create_index("jobs_pending_by_token", "jobs", ["submitted_by"], sqlite_where=pending, postgresql_where=pending)
    columns = ["submitted_by", "deleted_at", "ended_at", "log_bytes"]
    op.create_index("jobs_logs_by_token", "jobs", columns, sqlite_where=ended, postgresql_where=ended)
