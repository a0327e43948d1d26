"""When the newest instance of a study came, room for large files, and indexes for what is asked all the time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change.

    No table is copied in SQLite, which would take all that refers to it along; its whole numbers have 64 bits anyway.
    """
    op.add_column("studies", sa.Column("newest_at", sa.String(length=32), server_default="", nullable=False))
    op.execute("UPDATE studies SET newest_at = received_at")
    op.create_index(op.f("ix_studies_newest_at"), "studies", ["newest_at"], unique=False)
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column(
            "instances", "bytes", existing_type=sa.Integer(), type_=sa.BigInteger(), existing_nullable=False
        )
    op.drop_index("ix_jobs_waiting", table_name="jobs")
    op.create_index("ix_jobs_state_created_at", "jobs", ["state", "created_at", "id"], unique=False)
    op.create_index("ix_jobs_kind_key_created_at", "jobs", ["kind", "key", "created_at"], unique=False)
    op.create_index("ix_jobs_created_at", "jobs", ["created_at"], unique=False)
    op.create_index("ix_jobs_kind_ended_at", "jobs", ["kind", "ended_at"], unique=False)
