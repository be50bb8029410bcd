"""The tables of device certificates, for the stores that share them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, Index, Integer, String, Table, Text

from overair.server.storage.schema import account_column, instant_column, metadata

device_certificates: Final = Table(
    "device_certificates",
    metadata,
    account_column(),
    Column("id", String(64), primary_key=True),
    Column("pem", Text, nullable=False),
    Column("status", String(24), nullable=False),
    Column("mode", String(12), nullable=False),
    instant_column("not_before"),
    instant_column("not_after"),
    instant_column("created_at"),
    instant_column("modified_at"),
    Column("version", Integer, nullable=False),
    Column("generation_id", String(36), nullable=False),
    Column("origin", String(128), nullable=False, server_default=""),
    Column("key_sha256", String(64), nullable=True),
    Column("replaces", String(64), nullable=True),
    Column("replaced_by", String(64), nullable=True),
    instant_column("first_used_at", nullable=True),
    instant_column("retires_at", nullable=True),
    instant_column("retired_at", nullable=True),
    Column("trusts", String(64), nullable=True),
    # A fingerprint is unique on the server, and so names its account.
    Index("uq_device_certificates_id", "id", unique=True),
    Index("ix_device_certificates_account_created_at_id", "account", "created_at", "id"),
    Index("ix_device_certificates_account_key_sha256", "account", "key_sha256"),
    # Few have a moment to retire at, and those that have are asked for by it.
    Index("ix_device_certificates_retires_at", "retires_at"),
)

certificate_transfers: Final = Table(
    "certificate_transfers",
    metadata,
    account_column(),
    Column("certificate_id", String(64), primary_key=True),
    Column("source", String(12), nullable=False),
    Column("target", String(12), nullable=False),
    Column("message", Text, nullable=True),
    instant_column("transferred_at"),
    instant_column("accepted_at", nullable=True),
    instant_column("rejected_at", nullable=True),
    Column("reject_reason", Text, nullable=True),
    Index("uq_certificate_transfers_certificate_id", "certificate_id", unique=True),
    # Who is offered something asks for it in each of its lists.
    Index("ix_certificate_transfers_target", "target"),
)
