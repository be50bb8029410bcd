"""Documents, the values of their fields, what is indexed, and what is left to do.

``fleet_values`` holds a row for each value of each field. Its key leads from a field and a value to names, which is a search;
the index beside it leads from a name to its fields, which is the judgement of one thing.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Boolean, Column, Double, Index, String, Table, Text

from overair.server.storage.schema import account_column, instant_column, metadata

fleet_settings: Final = Table(
    "fleet_settings",
    metadata,
    account_column(),
    Column("things", Boolean, nullable=False),
    Column("connectivity", Boolean, nullable=False),
    Column("groups", Boolean, nullable=False),
    Column("packages", Boolean, nullable=False),
    Column("fields", Text, nullable=False),
    Column("group_fields", Text, nullable=False),
)

fleet_indices: Final = Table(
    "fleet_indices",
    metadata,
    account_column(),
    Column("index_name", String(32), primary_key=True),
    Column("phase", String(16), nullable=False),
    Column("cursor", String(128), nullable=False),
    instant_column("built_at", nullable=True),
    instant_column("due_at"),
    Index("ix_fleet_indices_phase_due_at", "phase", "due_at"),
)

fleet_group_builds: Final = Table(
    "fleet_group_builds",
    metadata,
    account_column(),
    Column("group_name", String(128), primary_key=True),
    Column("phase", String(16), nullable=False),
    Column("cursor", String(128), nullable=False),
)

fleet_documents: Final = Table(
    "fleet_documents",
    metadata,
    account_column(),
    Column("index_name", String(32), primary_key=True),
    Column("name", String(128), primary_key=True),
)

fleet_values: Final = Table(
    "fleet_values",
    metadata,
    account_column(),
    Column("index_name", String(32), primary_key=True),
    Column("field", String(176), primary_key=True),
    Column("text", String(800), primary_key=True),
    Column("name", String(128), primary_key=True),
    # As it is shown; empty where that is the text itself.
    Column("shown", String(800), primary_key=True),
    Column("number", Double),
    # With all that is read of one document: else SQLite would take the key, which holds everything, and read every document.
    Index("ix_fleet_values_account_index_name_name", "account", "index_name", "name", "field", "text", "shown"),
    Index("ix_fleet_values_account_index_name_field_number", "account", "index_name", "field", "number"),
)
