"""Uptane."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "destroyed_provisioning_keys",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("key_id", sa.String(length=36), nullable=False),
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("destroyed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "key_id", name=op.f("pk_destroyed_provisioning_keys")),
    )
    op.create_table(
        "device_anomalies",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("certificate_id", sa.String(length=64), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("authority", sa.String(length=64), nullable=False),
        sa.Column("pem", sa.Text(), nullable=False),
        sa.Column("first_seen_at", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_at", sa.BigInteger(), nullable=False),
        sa.Column("times_seen", sa.Integer(), nullable=False),
        sa.Column("source_ip", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("account", "certificate_id", name=op.f("pk_device_anomalies")),
    )
    with op.batch_alter_table("device_anomalies", schema=None) as batch_op:
        batch_op.create_index(
            "ix_device_anomalies_account_last_seen_at_certificate_id",
            ["account", "last_seen_at", "certificate_id"],
            unique=False,
        )

    op.create_table(
        "device_blocks",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("blocked_at", sa.BigInteger(), nullable=False),
        sa.Column("blocked_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "kind", "name", name=op.f("pk_device_blocks")),
    )
    op.create_table(
        "director_anomalies",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=24), nullable=False),
        sa.Column("serial", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("account", "thing", "kind", "serial", name=op.f("pk_director_anomalies")),
    )
    op.create_table(
        "director_approvals",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("campaign", sa.String(length=36), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "campaign", "thing", name=op.f("pk_director_approvals")),
    )
    op.create_table(
        "director_assignments",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("correlation_id", sa.String(length=256), nullable=False),
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("update_id", sa.String(length=64), nullable=False),
        sa.Column("targets", sa.Text(), nullable=False),
        sa.Column("installed", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.String(length=12), nullable=True),
        sa.Column("result_code", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("account", "thing", "correlation_id", name=op.f("pk_director_assignments")),
    )
    with op.batch_alter_table("director_assignments", schema=None) as batch_op:
        batch_op.create_index("ix_director_assignments_account_job", ["account", "job"], unique=False)
        batch_op.create_index(
            "ix_director_assignments_account_thing_job_number", ["account", "thing", "job", "number"], unique=False
        )

    op.create_table(
        "director_auto_updates",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("serial", sa.String(length=64), nullable=False),
        sa.Column("target_name", sa.String(length=253), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_file", sa.String(length=253), nullable=False),
        sa.PrimaryKeyConstraint("account", "thing", "serial", "target_name", name=op.f("pk_director_auto_updates")),
    )
    op.create_table(
        "director_campaigns",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("update_id", sa.String(length=64), nullable=False),
        sa.Column("groups", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("approval_needed", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("job", sa.String(length=64), nullable=True),
        sa.Column("main_campaign", sa.String(length=36), nullable=True),
        sa.Column("failure_code", sa.String(length=128), nullable=True),
        sa.Column("cancelled_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("account", "id", name=op.f("pk_director_campaigns")),
    )
    with op.batch_alter_table("director_campaigns", schema=None) as batch_op:
        batch_op.create_index("ix_director_campaigns_account_created_at", ["account", "created_at", "id"], unique=False)
        batch_op.create_index("ix_director_campaigns_account_main", ["account", "main_campaign"], unique=False)

    op.create_table(
        "director_device_data",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "thing", "kind", name=op.f("pk_director_device_data")),
    )
    op.create_table(
        "director_devices",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("primary_serial", sa.String(length=64), nullable=True),
        sa.Column("registration", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=24), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("registered_at", sa.BigInteger(), nullable=True),
        sa.Column("last_seen_at", sa.BigInteger(), nullable=True),
        sa.Column("last_manifest_at", sa.BigInteger(), nullable=True),
        sa.Column("report_counter", sa.BigInteger(), nullable=True),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("device_type", sa.String(length=16), nullable=False),
        sa.Column("notes", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "thing", name=op.f("pk_director_devices")),
    )
    with op.batch_alter_table("director_devices", schema=None) as batch_op:
        batch_op.create_index("ix_director_devices_account_status_thing", ["account", "status", "thing"], unique=False)

    op.create_table(
        "director_ecus",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("serial", sa.String(length=64), nullable=False),
        sa.Column("hardware_id", sa.String(length=200), nullable=False),
        sa.Column("key_type", sa.String(length=8), nullable=False),
        sa.Column("key_der", sa.LargeBinary(), nullable=False),
        sa.Column("is_primary", sa.Boolean(), nullable=False),
        sa.Column("registered_at", sa.BigInteger(), nullable=False),
        sa.Column("retired_at", sa.BigInteger(), nullable=True),
        sa.Column("installed_name", sa.String(length=1024), nullable=True),
        sa.Column("installed_length", sa.BigInteger(), nullable=True),
        sa.Column("installed_hashes", sa.Text(), nullable=True),
        sa.Column("installed_since", sa.BigInteger(), nullable=True),
        sa.Column("installed_for", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("account", "thing", "serial", name=op.f("pk_director_ecus")),
    )
    with op.batch_alter_table("director_ecus", schema=None) as batch_op:
        batch_op.create_index("ix_director_ecus_account_hardware_id", ["account", "hardware_id"], unique=False)
        batch_op.create_index("ix_director_ecus_account_installed_name", ["account", "installed_name"], unique=False)

    op.create_table(
        "director_events",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("device_time", sa.BigInteger(), nullable=True),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("correlation_id", sa.String(length=256), nullable=False),
        sa.Column("ecu", sa.String(length=64), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "thing", "id", name=op.f("pk_director_events")),
    )
    with op.batch_alter_table("director_events", schema=None) as batch_op:
        batch_op.create_index("ix_director_events_account_thing_received_at", ["account", "thing", "received_at"], unique=False)

    op.create_table(
        "director_installations",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("serial", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=1024), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("hashes", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("correlation_id", sa.String(length=256), nullable=False),
        sa.PrimaryKeyConstraint("account", "thing", "serial", "sequence", name=op.f("pk_director_installations")),
    )
    op.create_table(
        "director_jobs",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("origin", sa.String(length=12), nullable=False),
        sa.Column("correlation_id", sa.String(length=256), nullable=False),
        sa.Column("approval_needed", sa.Boolean(), nullable=False),
        sa.Column("campaign", sa.String(length=36), nullable=True),
        sa.PrimaryKeyConstraint("account", "job", name=op.f("pk_director_jobs")),
    )
    op.create_table(
        "director_key_changes",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("serial", sa.String(length=64), nullable=False),
        sa.Column("key_type", sa.String(length=8), nullable=False),
        sa.Column("key_der", sa.LargeBinary(), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("approved_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("account", "thing", "serial", name=op.f("pk_director_key_changes")),
    )
    op.create_table(
        "director_left_out",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("ecus", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "job", "thing", name=op.f("pk_director_left_out")),
    )
    with op.batch_alter_table("director_left_out", schema=None) as batch_op:
        batch_op.create_index("ix_director_left_out_account_thing_at", ["account", "thing", "at"], unique=False)

    op.create_table(
        "director_reports",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("correlation_id", sa.String(length=256), nullable=False),
        sa.Column("success", sa.Boolean(), nullable=False),
        sa.Column("code", sa.String(length=128), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("raw", sa.Text(), nullable=False),
        sa.Column("ecus", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "thing", "sequence", name=op.f("pk_director_reports")),
    )
    with op.batch_alter_table("director_reports", schema=None) as batch_op:
        batch_op.create_index("ix_director_reports_account_correlation_id", ["account", "correlation_id"], unique=False)
        batch_op.create_index("ix_director_reports_account_thing_digest", ["account", "thing", "digest"], unique=False)

    op.create_table(
        "director_updates",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("targets", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("only_ecus", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("account", "id", name=op.f("pk_director_updates")),
    )
    op.create_table(
        "director_views",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("view", sa.String(length=12), nullable=False),
        sa.Column("job", sa.String(length=64), nullable=True),
        sa.Column("number", sa.BigInteger(), nullable=True),
        sa.Column("correlation_id", sa.String(length=256), nullable=False),
        sa.Column("root_version", sa.Integer(), nullable=False),
        sa.Column("signed_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("is_stale", sa.Boolean(), nullable=False),
        sa.Column("must_stay", sa.Boolean(), nullable=False),
        sa.Column("cancelled_job", sa.String(length=64), nullable=True),
        sa.Column("cancelled_number", sa.BigInteger(), nullable=True),
        sa.Column("cancelled_way", sa.String(length=16), nullable=True),
        sa.Column("cancelled_at", sa.BigInteger(), nullable=True),
        sa.Column("held_until", sa.BigInteger(), nullable=True),
        sa.Column("targets", sa.LargeBinary(), nullable=False),
        sa.Column("snapshot", sa.LargeBinary(), nullable=False),
        sa.Column("timestamp", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("account", "thing", name=op.f("pk_director_views")),
    )
    op.create_table(
        "fleet_authorities",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("pem", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("subject_sha256", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("first_contact", sa.String(length=8), nullable=False),
        sa.Column("device_id_pattern", sa.String(length=128), nullable=False),
        sa.Column("thing_type", sa.String(length=128), nullable=True),
        sa.Column("groups", sa.Text(), nullable=False),
        sa.Column("policy", sa.String(length=128), nullable=False),
        sa.Column("renewal", sa.String(length=8), nullable=False),
        sa.Column("renewal_overlap_days", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "id", name=op.f("pk_fleet_authorities")),
    )
    with op.batch_alter_table("fleet_authorities", schema=None) as batch_op:
        batch_op.create_index("ix_fleet_authorities_subject_sha256", ["subject_sha256"], unique=False)
        batch_op.create_index("uq_fleet_authorities_id", ["id"], unique=True)

    op.create_table(
        "image_comments",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "name", name=op.f("pk_image_comments")),
    )
    op.create_table(
        "image_delegations",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("friendly_name", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("account", "name", name=op.f("pk_image_delegations")),
    )
    op.create_table(
        "image_documents",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("role", sa.String(length=64), nullable=False),
        sa.Column("flavour", sa.String(length=16), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("signed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "role", "flavour", "version", name=op.f("pk_image_documents")),
    )
    op.create_table(
        "image_settings",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_image_settings")),
    )
    op.create_table(
        "image_target_hardware",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("hardware_id", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.PrimaryKeyConstraint("account", "hardware_id", "name", name=op.f("pk_image_target_hardware")),
    )
    op.create_table(
        "image_targets",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("role", sa.String(length=64), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("hashes", sa.Text(), nullable=False),
        sa.Column("custom", sa.Text(), nullable=False),
        sa.Column("content_id", sa.String(length=66), nullable=True),
        sa.Column("uri", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "name", name=op.f("pk_image_targets")),
    )
    with op.batch_alter_table("image_targets", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_image_targets_account_status_role_name"), ["account", "status", "role", "name"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_image_targets_content_id"), ["content_id"], unique=False)

    op.create_table(
        "image_upload_parts",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("upload_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("content_id", sa.String(length=66), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("md5_hex", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("account", "upload_id", "number", name=op.f("pk_image_upload_parts")),
    )
    with op.batch_alter_table("image_upload_parts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_image_upload_parts_content_id"), ["content_id"], unique=False)

    op.create_table(
        "image_uploads",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("upload_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "upload_id", name=op.f("pk_image_uploads")),
    )
    op.create_table(
        "provisioned_devices",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("origin", sa.String(length=128), nullable=False),
        sa.Column("certificate_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("source_ip", sa.String(length=64), nullable=False),
        sa.Column("registered_at", sa.BigInteger(), nullable=True),
        sa.Column("reissues", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("account", "thing", name=op.f("pk_provisioned_devices")),
    )
    with op.batch_alter_table("provisioned_devices", schema=None) as batch_op:
        batch_op.create_index("ix_provisioned_devices_account_origin_thing", ["account", "origin", "thing"], unique=False)

    op.create_table(
        "role_keys",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("repository", sa.String(length=16), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("keyring_key", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("exported_at", sa.BigInteger(), nullable=True),
        sa.Column("unlisted_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("account", "repository", "key_id", name=op.f("pk_role_keys")),
    )
    op.create_table(
        "root_documents",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("repository", sa.String(length=16), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("flavour", sa.String(length=16), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("is_published", sa.Boolean(), nullable=False),
        sa.Column("stored_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "repository", "version", "flavour", name=op.f("pk_root_documents")),
    )
    op.create_table(
        "root_probes",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("repository", sa.String(length=16), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "repository", "thing", name=op.f("pk_root_probes")),
    )
    op.create_table(
        "shared_credentials",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("certificate_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("uses_max", sa.BigInteger(), nullable=True),
        sa.Column("uses", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("key_type", sa.String(length=16), nullable=False),
        sa.Column("certificate_days_max", sa.Integer(), nullable=False),
        sa.Column("devices_per_minute", sa.Integer(), nullable=False),
        sa.Column("policy", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("account", "id", name=op.f("pk_shared_credentials")),
    )
    with op.batch_alter_table("shared_credentials", schema=None) as batch_op:
        batch_op.create_index("ix_shared_credentials_account_created_at_id", ["account", "created_at", "id"], unique=False)
        batch_op.create_index("uq_shared_credentials_certificate_id", ["certificate_id"], unique=True)

    op.create_table(
        "shared_provisioning",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("is_on", sa.Boolean(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=True),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_shared_provisioning")),
    )
    op.create_table(
        "uptane_repositories",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("repository", sa.String(length=16), nullable=False),
        sa.Column("repository_id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("signed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "repository", name=op.f("pk_uptane_repositories")),
    )
    with op.batch_alter_table("device_certificates", schema=None) as batch_op:
        batch_op.add_column(sa.Column("origin", sa.String(length=128), server_default="", nullable=False))
        batch_op.add_column(sa.Column("key_sha256", sa.String(length=64), nullable=True))
        batch_op.create_index("ix_device_certificates_account_key_sha256", ["account", "key_sha256"], unique=False)

    with op.batch_alter_table("job_executions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("fulfilment", sa.String(length=64), nullable=True))

    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("fulfilment", sa.String(length=64), nullable=True))

    with op.batch_alter_table("thing_groups", schema=None) as batch_op:
        batch_op.create_index("ix_thing_groups_account_id", ["account", "id"], unique=False)

    with op.batch_alter_table("things", schema=None) as batch_op:
        batch_op.create_index("ix_things_account_id", ["account", "id"], unique=False)
