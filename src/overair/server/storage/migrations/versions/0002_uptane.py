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

    with op.batch_alter_table("job_executions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("fulfilment", sa.String(length=64), nullable=True))

    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("fulfilment", sa.String(length=64), nullable=True))

    with op.batch_alter_table("thing_groups", schema=None) as batch_op:
        batch_op.create_index("ix_thing_groups_account_id", ["account", "id"], unique=False)

    with op.batch_alter_table("things", schema=None) as batch_op:
        batch_op.create_index("ix_things_account_id", ["account", "id"], unique=False)
