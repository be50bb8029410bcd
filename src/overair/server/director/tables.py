"""This room's tables."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table, Text

from overair.server.director.model import CORRELATION_ID_LENGTH_MAX, IMAGE_NAME_LENGTH_MAX
from overair.server.storage.schema import account_column, instant_column, metadata

# Vehicles and their ECUs --------------------------------------------------------------------------------------------------

devices: Final = Table(
    "director_devices",
    metadata,
    account_column(),
    Column("thing", String(128), primary_key=True),
    Column("primary_serial", String(64)),
    Column("registration", Integer, nullable=False),
    Column("status", String(24), nullable=False),
    instant_column("created_at"),
    instant_column("registered_at", nullable=True),
    instant_column("last_seen_at", nullable=True),
    instant_column("last_manifest_at", nullable=True),
    Column("report_counter", BigInteger),
    Column("name", String(200), nullable=False),
    Column("device_type", String(16), nullable=False),
    Column("notes", Text, nullable=False),
    Index("ix_director_devices_account_status_thing", "account", "status", "thing"),
)

ecus: Final = Table(
    "director_ecus",
    metadata,
    account_column(),
    Column("thing", String(128), primary_key=True),
    Column("serial", String(64), primary_key=True),
    Column("hardware_id", String(200), nullable=False),
    Column("key_type", String(8), nullable=False),
    Column("key_der", LargeBinary, nullable=False),
    Column("is_primary", Boolean, nullable=False),
    instant_column("registered_at"),
    instant_column("retired_at", nullable=True),
    Column("installed_name", String(IMAGE_NAME_LENGTH_MAX)),
    Column("installed_length", BigInteger),
    Column("installed_hashes", Text),
    instant_column("installed_since", nullable=True),
    Column("installed_for", Text),
    Index("ix_director_ecus_account_installed_name", "account", "installed_name"),
    Index("ix_director_ecus_account_hardware_id", "account", "hardware_id"),
)

key_changes: Final = Table(
    "director_key_changes",
    metadata,
    account_column(),
    Column("thing", String(128), primary_key=True),
    Column("serial", String(64), primary_key=True),
    Column("key_type", String(8), nullable=False),
    Column("key_der", LargeBinary, nullable=False),
    instant_column("asked_at"),
    instant_column("approved_at", nullable=True),
)

anomalies: Final = Table(
    "director_anomalies",
    metadata,
    account_column(),
    Column("thing", String(128), primary_key=True),
    Column("kind", String(24), primary_key=True),
    Column("serial", String(64), primary_key=True),
    Column("detail", Text, nullable=False),
    instant_column("first_at"),
    instant_column("last_at"),
    Column("count", Integer, nullable=False),
)

installations: Final = Table(
    "director_installations",
    metadata,
    account_column(),
    Column("thing", String(128), primary_key=True),
    Column("serial", String(64), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("name", String(IMAGE_NAME_LENGTH_MAX), nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("hashes", Text, nullable=False),
    instant_column("at"),
    Column("correlation_id", String(CORRELATION_ID_LENGTH_MAX), nullable=False),
)

reports: Final = Table(
    "director_reports",
    metadata,
    account_column(),
    Column("thing", String(128), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False),
    Column("correlation_id", String(CORRELATION_ID_LENGTH_MAX), nullable=False),
    Column("success", Boolean, nullable=False),
    Column("code", String(128), nullable=False),
    Column("description", Text, nullable=False),
    instant_column("received_at"),
    Column("raw", Text, nullable=False),
    Column("ecus", Text, nullable=False),
    Index("ix_director_reports_account_thing_digest", "account", "thing", "digest"),
    Index("ix_director_reports_account_correlation_id", "account", "correlation_id"),
)

# What vehicles are told ---------------------------------------------------------------------------------------------------

views: Final = Table(
    "director_views",
    metadata,
    account_column(),
    Column("thing", String(128), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("view", String(12), nullable=False),
    Column("job", String(64)),
    Column("number", BigInteger),
    Column("correlation_id", String(CORRELATION_ID_LENGTH_MAX), nullable=False),
    Column("root_version", Integer, nullable=False),
    instant_column("signed_at"),
    instant_column("expires_at"),
    Column("is_stale", Boolean, nullable=False),
    Column("must_stay", Boolean, nullable=False),
    Column("cancelled_job", String(64)),
    Column("cancelled_number", BigInteger),
    Column("cancelled_way", String(16)),
    instant_column("cancelled_at", nullable=True),
    instant_column("held_until", nullable=True),
    Column("targets", LargeBinary, nullable=False),
    Column("snapshot", LargeBinary, nullable=False),
    Column("timestamp", LargeBinary, nullable=False),
)

assignments: Final = Table(
    "director_assignments",
    metadata,
    account_column(),
    Column("thing", String(128), primary_key=True),
    Column("correlation_id", String(CORRELATION_ID_LENGTH_MAX), primary_key=True),
    Column("job", String(64), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("update_id", String(64), nullable=False),
    Column("targets", Text, nullable=False),
    Column("installed", Text, nullable=False),
    instant_column("created_at"),
    instant_column("ended_at", nullable=True),
    Column("outcome", String(12)),
    Column("result_code", String(128), nullable=False),
    Index("ix_director_assignments_account_thing_job_number", "account", "thing", "job", "number"),
    Index("ix_director_assignments_account_job", "account", "job"),
)

updates: Final = Table(
    "director_updates",
    metadata,
    account_column(),
    Column("id", String(64), primary_key=True),
    Column("targets", Text, nullable=False),
    instant_column("created_at"),
    Column("only_ecus", Text),
)

jobs: Final = Table(
    "director_jobs",
    metadata,
    account_column(),
    Column("job", String(64), primary_key=True),
    Column("origin", String(12), nullable=False),
    Column("correlation_id", String(CORRELATION_ID_LENGTH_MAX), nullable=False),
    Column("approval_needed", Boolean, nullable=False),
    Column("campaign", String(36)),
)
"""What is known of a job beyond what jobs keep; none for one that came by AWS's operations."""

left_out: Final = Table(
    "director_left_out",
    metadata,
    account_column(),
    Column("job", String(64), primary_key=True),
    Column("thing", String(128), primary_key=True),
    Column("code", String(64), nullable=False),
    Column("message", Text, nullable=False),
    instant_column("at"),
    Column("ecus", Text, nullable=False),
    Index("ix_director_left_out_account_thing_at", "account", "thing", "at"),
)

auto_updates: Final = Table(
    "director_auto_updates",
    metadata,
    account_column(),
    Column("thing", String(128), primary_key=True),
    Column("serial", String(64), primary_key=True),
    Column("target_name", String(253), primary_key=True),
    instant_column("created_at"),
    Column("last_file", String(253), nullable=False),
)
"""``last_file``: the newest file of that target name that was there when it was set, or that was assigned since."""

# What vehicles and their drivers say --------------------------------------------------------------------------------------

device_data: Final = Table(
    "director_device_data",
    metadata,
    account_column(),
    Column("thing", String(128), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("body", Text, nullable=False),
    instant_column("received_at"),
)

events: Final = Table(
    "director_events",
    metadata,
    account_column(),
    Column("thing", String(128), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("type", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    instant_column("device_time", nullable=True),
    instant_column("received_at"),
    Column("correlation_id", String(CORRELATION_ID_LENGTH_MAX), nullable=False),
    Column("ecu", String(64), nullable=False),
    Column("payload", Text, nullable=False),
    Index("ix_director_events_account_thing_received_at", "account", "thing", "received_at"),
)

campaigns: Final = Table(
    "director_campaigns",
    metadata,
    account_column(),
    Column("id", String(36), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("update_id", String(64), nullable=False),
    Column("groups", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("approval_needed", Boolean, nullable=False),
    instant_column("created_at"),
    instant_column("updated_at"),
    Column("job", String(64)),
    Column("main_campaign", String(36)),
    Column("failure_code", String(128)),
    instant_column("cancelled_at", nullable=True),
    Index("ix_director_campaigns_account_created_at", "account", "created_at", "id"),
    Index("ix_director_campaigns_account_main", "account", "main_campaign"),
)

approvals: Final = Table(
    "director_approvals",
    metadata,
    account_column(),
    Column("campaign", String(36), primary_key=True),
    Column("thing", String(128), primary_key=True),
    Column("state", String(12), nullable=False),
    instant_column("at"),
)
