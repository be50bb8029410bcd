"""What Alembic runs around each step. The connection is given by ``migrations.upgrade`` or by the tool that writes a step."""

from __future__ import annotations

from alembic import context

from overair.server.storage.migrations import VERSION_TABLE
from overair.server.storage.schema import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # SQLite changes a table by copying it.
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
