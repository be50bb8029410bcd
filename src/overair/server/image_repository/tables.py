"""This room's tables."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, Text

from overair.server.storage.schema import account_column, instant_column, metadata

ROLE_LENGTH: Final = 64
NAME_LENGTH: Final = 253
HARDWARE_ID_LENGTH: Final = 200
CONTENT_ID_LENGTH: Final = 66

targets: Final = Table(
    "image_targets",
    metadata,
    account_column(),
    Column("name", String(NAME_LENGTH), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("role", String(ROLE_LENGTH), nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("hashes", Text, nullable=False),
    Column("custom", Text, nullable=False),
    Column("content_id", String(CONTENT_ID_LENGTH)),
    Column("uri", Text),
    instant_column("created_at"),
    instant_column("updated_at"),
    Index(None, "account", "status", "role", "name"),
    Index(None, "content_id"),
)

hardware: Final = Table(
    "image_target_hardware",
    metadata,
    account_column(),
    Column("hardware_id", String(HARDWARE_ID_LENGTH), primary_key=True),
    Column("name", String(NAME_LENGTH), primary_key=True),
)
"""Of listed images only."""

comments: Final = Table(
    "image_comments",
    metadata,
    account_column(),
    Column("name", String(NAME_LENGTH), primary_key=True),
    Column("comment", Text, nullable=False),
    instant_column("updated_at"),
)

documents: Final = Table(
    "image_documents",
    metadata,
    account_column(),
    Column("role", String(ROLE_LENGTH), primary_key=True),
    Column("flavour", String(16), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("document", LargeBinary, nullable=False),
    instant_column("expires"),
    instant_column("signed_at"),
)

settings: Final = Table(
    "image_settings",
    metadata,
    account_column(),
    instant_column("not_before"),
)

delegations: Final = Table(
    "image_delegations",
    metadata,
    account_column(),
    Column("name", String(ROLE_LENGTH), primary_key=True),
    Column("friendly_name", String(255), nullable=False),
)

uploads: Final = Table(
    "image_uploads",
    metadata,
    account_column(),
    Column("upload_id", String(64), primary_key=True),
    Column("name", String(NAME_LENGTH), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    instant_column("created_at"),
)

parts: Final = Table(
    "image_upload_parts",
    metadata,
    account_column(),
    Column("upload_id", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("content_id", String(CONTENT_ID_LENGTH), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("md5_hex", String(32), nullable=False),
    Index(None, "content_id"),
)
