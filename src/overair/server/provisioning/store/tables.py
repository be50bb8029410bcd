"""This room's tables."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, String, Table, Text

from overair.server.storage.schema import account_column, instant_column, metadata

shared_credentials: Final = Table(
    "shared_credentials",
    metadata,
    account_column(),
    Column("id", String(36), primary_key=True),
    Column("certificate_id", String(64), nullable=False),
    Column("name", String(128), nullable=False),
    instant_column("created_at"),
    Column("created_by", Text, nullable=False),
    instant_column("expires_at"),
    Column("uses_max", BigInteger, nullable=True),
    Column("uses", BigInteger, nullable=False),
    instant_column("revoked_at", nullable=True),
    Column("key_type", String(16), nullable=False),
    Column("certificate_days_max", Integer, nullable=False),
    Column("devices_per_minute", Integer, nullable=False),
    Column("policy", String(128), nullable=False),
    Index("uq_shared_credentials_certificate_id", "certificate_id", unique=True),
    Index("ix_shared_credentials_account_created_at_id", "account", "created_at", "id"),
)

fleet_authorities: Final = Table(
    "fleet_authorities",
    metadata,
    account_column(),
    Column("id", String(64), primary_key=True),
    Column("pem", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("subject_sha256", String(64), nullable=False),
    Column("name", String(128), nullable=False),
    instant_column("not_before"),
    instant_column("not_after"),
    Column("first_contact", String(8), nullable=False),
    Column("device_id_pattern", String(128), nullable=False),
    Column("thing_type", String(128), nullable=True),
    Column("groups", Text, nullable=False),
    Column("policy", String(128), nullable=False),
    Column("renewal", String(8), nullable=False),
    Column("renewal_overlap_days", Integer, nullable=False),
    instant_column("created_at"),
    Column("created_by", Text, nullable=False),
    Column("registration", Text, nullable=True),
    # An authority belongs to one account on the server.
    Index("uq_fleet_authorities_id", "id", unique=True),
    Index("ix_fleet_authorities_subject_sha256", "subject_sha256"),
)

fleet_revocation_lists: Final = Table(
    "fleet_revocation_lists",
    metadata,
    account_column(),
    Column("issuer", String(64), primary_key=True),
    Column("authority", String(64), nullable=False),
    Column("issuer_pem", Text, nullable=False),
    # Hexadecimal: it may have twenty octets.
    Column("number", String(40), nullable=False),
    instant_column("this_update"),
    instant_column("next_update"),
    Column("entries", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("refuse_when_stale", Boolean, nullable=False),
    instant_column("put_at"),
    Column("put_by", Text, nullable=False),
)

fleet_revoked_serials: Final = Table(
    "fleet_revoked_serials",
    metadata,
    account_column(),
    Column("issuer", String(64), primary_key=True),
    Column("serial_number", String(40), primary_key=True),
)

provisioned_devices: Final = Table(
    "provisioned_devices",
    metadata,
    account_column(),
    Column("thing", String(128), primary_key=True),
    Column("origin", String(128), nullable=False),
    Column("certificate_id", String(64), nullable=False),
    instant_column("created_at"),
    Column("source_ip", String(64), nullable=False),
    instant_column("registered_at", nullable=True),
    Column("reissues", Integer, nullable=False),
    Column("template", String(36), nullable=True),
    Column("claim", String(128), nullable=True),
    Index("ix_provisioned_devices_account_origin_thing", "account", "origin", "thing"),
    Index("ix_provisioned_devices_account_template_thing", "account", "template", "thing"),
    Index("ix_provisioned_devices_account_claim_thing", "account", "claim", "thing"),
)

device_anomalies: Final = Table(
    "device_anomalies",
    metadata,
    account_column(),
    Column("certificate_id", String(64), primary_key=True),
    Column("thing", String(128), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("authority", String(64), nullable=False),
    Column("pem", Text, nullable=False),
    instant_column("first_seen_at"),
    instant_column("last_seen_at"),
    Column("times_seen", Integer, nullable=False),
    Column("source_ip", String(64), nullable=False),
    Index("ix_device_anomalies_account_thing", "account", "thing"),
    Index("ix_device_anomalies_account_last_seen_at_certificate_id", "account", "last_seen_at", "certificate_id"),
)

renewal_rules: Final = Table(
    "renewal_rules",
    metadata,
    account_column(),
    Column("overlap_days", Integer, nullable=False),
    Column("relay", Boolean, nullable=False),
    Column("retry_after_s", Integer, nullable=False),
)

renewal_requests: Final = Table(
    "renewal_requests",
    metadata,
    account_column(),
    Column("thing", String(128), primary_key=True),
    Column("certificate_id", String(64), nullable=False),
    Column("request_pem", Text, nullable=False),
    Column("key_sha256", String(64), nullable=False),
    Column("state", String(12), nullable=False),
    instant_column("requested_at"),
    instant_column("answered_at", nullable=True),
    Column("answered_by", Text, nullable=False),
    Column("chain_pem", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Index("ix_renewal_requests_account_state_thing", "account", "state", "thing"),
)

shared_provisioning: Final = Table(
    "shared_provisioning",
    metadata,
    account_column(),
    Column("is_on", Boolean, nullable=False),
    instant_column("changed_at", nullable=True),
    Column("changed_by", Text, nullable=False),
)

destroyed_provisioning_keys: Final = Table(
    "destroyed_provisioning_keys",
    metadata,
    account_column(),
    Column("key_id", String(36), primary_key=True),
    Column("purpose", String(32), nullable=False),
    instant_column("created_at"),
    instant_column("destroyed_at"),
)

provisioning_templates: Final = Table(
    "provisioning_templates",
    metadata,
    account_column(),
    Column("name", String(36), primary_key=True),
    Column("type", String(20), nullable=False),
    Column("description", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("role_arn", Text, nullable=False),
    Column("hook_target_arn", Text, nullable=True),
    Column("hook_payload_version", String(32), nullable=True),
    Column("default_version", Integer, nullable=False),
    Column("last_version", Integer, nullable=False),
    Column("body", Text, nullable=False),
    instant_column("created_at"),
    instant_column("modified_at"),
)

provisioning_template_versions: Final = Table(
    "provisioning_template_versions",
    metadata,
    account_column(),
    Column("template", String(36), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
    instant_column("created_at"),
)

certificate_ownerships: Final = Table(
    "certificate_ownerships",
    metadata,
    account_column(),
    Column("token_sha256", String(64), primary_key=True),
    Column("certificate_id", String(64), nullable=False),
    Column("claim", String(128), nullable=False),
    instant_column("expires_at"),
    Index("ix_certificate_ownerships_expires_at", "expires_at"),
)

temporary_claims: Final = Table(
    "temporary_claims",
    metadata,
    account_column(),
    Column("certificate_id", String(64), primary_key=True),
    Column("template", String(36), nullable=False),
    instant_column("expires_at"),
    Index("ix_temporary_claims_expires_at", "expires_at"),
)

registration_codes: Final = Table(
    "registration_codes",
    metadata,
    account_column(),
    Column("code", String(64), nullable=False),
)

registration_tasks: Final = Table(
    "registration_tasks",
    metadata,
    account_column(),
    Column("id", String(36), primary_key=True),
    Column("region", String(64), nullable=False),
    Column("template_body", Text, nullable=False),
    Column("bucket", String(256), nullable=False),
    Column("key", Text, nullable=False),
    Column("version", String(64), nullable=False),
    Column("etag", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("role_arn", Text, nullable=False),
    Column("started_from", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("message", Text, nullable=False),
    Column("position_bytes", BigInteger, nullable=False),
    Column("lines", BigInteger, nullable=False),
    Column("successes", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    instant_column("created_at"),
    instant_column("modified_at"),
    Index("ix_registration_tasks_account_created_at_id", "account", "created_at", "id"),
    Index("ix_registration_tasks_status_modified_at", "status", "modified_at"),
)

registration_task_lines: Final = Table(
    "registration_task_lines",
    metadata,
    account_column(),
    Column("task", String(36), primary_key=True),
    Column("line", BigInteger, primary_key=True, autoincrement=False),
    Column("report", String(8), nullable=False),
    Column("text", Text, nullable=False),
    Index("ix_registration_task_lines_account_task_report_line", "account", "task", "report", "line"),
)

approved_certificates: Final = Table(
    "approved_certificates",
    metadata,
    account_column(),
    Column("certificate_id", String(64), primary_key=True),
    instant_column("approved_at"),
)
