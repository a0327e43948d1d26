"""The tables of the store; :mod:`spicula.store.migrations` makes them.

Times are UTC, ISO 8601 with microseconds, as text: they order as they read, in SQLite and PostgreSQL alike. Whole
records of other parts are JSON.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

from spicula.store.clock import now

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
UID = String(64)
TIME = String(32)
BYTES = BigInteger().with_variant(Integer(), "sqlite")
"""A count of bytes: 64 bits, which a whole number of SQLite has anyway."""

_IS_OPEN = text("state IN ('queued', 'running')")

STUDIES = Table(
    "studies",
    METADATA,
    Column("study_uid", UID, primary_key=True),
    Column("patient_id", String(64), nullable=False, index=True),
    Column("patient_name", String(324), nullable=False, default=""),
    Column("study_date", String(8), nullable=False, default="", index=True),
    Column("description", Text, nullable=False, default=""),
    Column("accession_number", String(16), nullable=False, default=""),
    Column("body_part", String(16), nullable=False, default=""),
    Column("received_at", TIME, nullable=False, index=True),
    Column("newest_at", TIME, nullable=False, index=True, default=now, server_default=""),
    Column("origin", String(16), nullable=False),
    Column("deidentified", Boolean, nullable=False, default=False),
)
SERIES = Table(
    "series",
    METADATA,
    Column("series_uid", UID, primary_key=True),
    Column("study_uid", UID, ForeignKey("studies.study_uid", ondelete="CASCADE"), nullable=False, index=True),
    Column("modality", String(16), nullable=False),
    Column("description", Text, nullable=False, default=""),
    Column("number", Integer),
    Column("slice_thickness_mm", Float),
)
INSTANCES = Table(
    "instances",
    METADATA,
    Column("sop_instance_uid", UID, primary_key=True),
    Column("series_uid", UID, ForeignKey("series.series_uid", ondelete="CASCADE"), nullable=False, index=True),
    Column("sop_class_uid", UID, nullable=False),
    Column("transfer_syntax_uid", UID, nullable=False),
    Column("number", Integer),
    Column("rows", Integer),
    Column("columns", Integer),
    Column("frames", Integer, nullable=False, default=1),
    Column("file", String(96), nullable=False, unique=True),
    Column("bytes", BYTES, nullable=False),
    Column("sha256", String(64), nullable=False),
)
ANALYSES = Table(
    "analyses",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("study_uid", UID, ForeignKey("studies.study_uid", ondelete="CASCADE"), nullable=False, index=True),
    Column("series_uid", UID, nullable=False),
    Column("created_at", TIME, nullable=False),
    Column("record", JSON, nullable=False),
    Column("folder", String(96), nullable=False),
)
FINDINGS = Table(
    "findings",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("study_uid", UID, ForeignKey("studies.study_uid", ondelete="CASCADE"), nullable=False, index=True),
    Column("series_uid", UID, nullable=False),
    Column("analysis_id", String(32), ForeignKey("analyses.id", ondelete="CASCADE"), index=True),
    Column("state", String(16), nullable=False),
    Column("version", Integer, nullable=False),
    Column("content", JSON, nullable=False),
    Column("changed_at", TIME, nullable=False),
    Column("changed_by", String(64), nullable=False),
)
FINDING_CHANGES = Table(
    "finding_changes",
    METADATA,
    Column("finding_id", String(32), ForeignKey("findings.id", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("at", TIME, nullable=False),
    Column("by", String(64), nullable=False),
    Column("what", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("content", JSON, nullable=False),
)
JOBS = Table(
    "jobs",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("key", String(255), nullable=False),
    Column("task", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("tries", Integer, nullable=False, default=0),
    Column("created_at", TIME, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("started_at", TIME),
    Column("ended_at", TIME),
    Column("not_before", TIME, nullable=False),
    Column("worker", String(64)),
    Column("alive_until", TIME),
    Column("progress", Float, nullable=False, default=0.0),
    Column("message", Text, nullable=False, default=""),
    Column("result", JSON),
    Index("ix_jobs_state_created_at", "state", "created_at", "id"),
    Index("ix_jobs_kind_key_created_at", "kind", "key", "created_at"),
    Index("ix_jobs_created_at", "created_at"),
    Index("ix_jobs_kind_ended_at", "kind", "ended_at"),
    Index("uq_jobs_open_key", "kind", "key", unique=True, sqlite_where=_IS_OPEN, postgresql_where=_IS_OPEN),
)  # fmt: skip
USERS = Table(
    "users",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("password_hash", Text),
    Column("subject", String(255), unique=True),
    Column("disabled", Boolean, nullable=False, default=False),
    Column("created_at", TIME, nullable=False),
)
SECRETS = Table(
    "secrets",
    METADATA,
    Column("hash", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("user", String(64), ForeignKey("users.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("label", String(64), nullable=False, default=""),
    Column("csrf", String(64), nullable=False, default=""),
    Column("created_at", TIME, nullable=False),
    Column("expires_at", TIME, nullable=False),
    Column("used_at", TIME),
)
AUDIT = Table(
    "audit",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", TIME, nullable=False, index=True),
    Column("user", String(64), nullable=False),
    Column("action", String(32), nullable=False),
    Column("object", String(255), nullable=False, default=""),
    Column("detail", JSON),
    Column("address", String(64), nullable=False, default=""),
)
