"""This room's tables."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Boolean, Column, Integer, String, Table, Text

from overair.server.storage.schema import account_column, instant_column, metadata

packages: Final = Table(
    "packages",
    metadata,
    account_column(),
    Column("name", String(128), primary_key=True),
    Column("region", String(32), nullable=False),
    Column("description", Text),
    Column("default_version", String(64)),
    Column("client_token", String(64)),
    instant_column("created_at"),
    instant_column("last_modified_at"),
)

package_versions: Final = Table(
    "package_versions",
    metadata,
    account_column(),
    Column("package", String(128), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("region", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("description", Text),
    Column("attributes", Text, nullable=False),
    Column("artifact", Text),
    Column("recipe", Text),
    Column("client_token", String(64)),
    instant_column("created_at"),
    instant_column("last_modified_at"),
)

package_configurations: Final = Table(
    "package_configurations",
    metadata,
    account_column(),
    Column("enabled", Boolean, nullable=False),
    Column("role_arn", Text),
)

thing_packages: Final = Table(
    "thing_packages",
    metadata,
    account_column(),
    Column("thing", String(128), primary_key=True),
    Column("package", String(128), primary_key=True),
    # NULL: taken off. The row stays, so that a thing's revisions only ever rise.
    Column("version", String(64)),
    Column("job", String(64), nullable=False),
    Column("revision", Integer, nullable=False),
    instant_column("changed_at"),
)
