"""How alembic runs the migrations: on the connection that :func:`spicula.store.database.upgrade` gives it."""

from __future__ import annotations

from alembic import context

from spicula.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True,
    transactional_ddl=False,
)  # fmt: skip
context.run_migrations()
