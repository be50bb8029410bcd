"""Who may do what."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "approved_certificates",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("certificate_id", sa.String(length=64), nullable=False),
        sa.Column("approved_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "certificate_id", name=op.f("pk_approved_certificates")),
    )
    op.create_table(
        "certificate_transfers",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("certificate_id", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=12), nullable=False),
        sa.Column("target", sa.String(length=12), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("transferred_at", sa.BigInteger(), nullable=False),
        sa.Column("accepted_at", sa.BigInteger(), nullable=True),
        sa.Column("rejected_at", sa.BigInteger(), nullable=True),
        sa.Column("reject_reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("account", "certificate_id", name=op.f("pk_certificate_transfers")),
    )
    with op.batch_alter_table("certificate_transfers", schema=None) as batch_op:
        batch_op.create_index("ix_certificate_transfers_target", ["target"], unique=False)
        batch_op.create_index("uq_certificate_transfers_certificate_id", ["certificate_id"], unique=True)

    op.create_table(
        "device_decryption",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("formats", sa.Text(), nullable=False),
        sa.Column("public_keys", sa.Text(), nullable=False),
        sa.Column("declared_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "thing", name=op.f("pk_device_decryption")),
    )
    op.create_table(
        "keyring_expiry_notices",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("account", "name", name=op.f("pk_keyring_expiry_notices")),
    )
    op.create_table(
        "registration_task_lines",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("task", sa.String(length=36), nullable=False),
        sa.Column("line", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("report", sa.String(length=8), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "task", "line", name=op.f("pk_registration_task_lines")),
    )
    with op.batch_alter_table("registration_task_lines", schema=None) as batch_op:
        batch_op.create_index(
            "ix_registration_task_lines_account_task_report_line", ["account", "task", "report", "line"], unique=False
        )

    op.create_table(
        "registration_tasks",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("region", sa.String(length=64), nullable=False),
        sa.Column("template_body", sa.Text(), nullable=False),
        sa.Column("bucket", sa.String(length=256), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("etag", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("role_arn", sa.Text(), nullable=False),
        sa.Column("started_from", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("position_bytes", sa.BigInteger(), nullable=False),
        sa.Column("lines", sa.BigInteger(), nullable=False),
        sa.Column("successes", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "id", name=op.f("pk_registration_tasks")),
    )
    with op.batch_alter_table("registration_tasks", schema=None) as batch_op:
        batch_op.create_index("ix_registration_tasks_account_created_at_id", ["account", "created_at", "id"], unique=False)
        batch_op.create_index("ix_registration_tasks_status_modified_at", ["status", "modified_at"], unique=False)

    op.create_table(
        "renewal_requests",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("certificate_id", sa.String(length=64), nullable=False),
        sa.Column("request_pem", sa.Text(), nullable=False),
        sa.Column("key_sha256", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("requested_at", sa.BigInteger(), nullable=False),
        sa.Column("answered_at", sa.BigInteger(), nullable=True),
        sa.Column("answered_by", sa.Text(), nullable=False),
        sa.Column("chain_pem", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "thing", name=op.f("pk_renewal_requests")),
    )
    with op.batch_alter_table("renewal_requests", schema=None) as batch_op:
        batch_op.create_index("ix_renewal_requests_account_state_thing", ["account", "state", "thing"], unique=False)

    op.create_table(
        "renewal_rules",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("overlap_days", sa.Integer(), nullable=False),
        sa.Column("relay", sa.Boolean(), nullable=False),
        sa.Column("retry_after_s", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_renewal_rules")),
    )
    op.create_table(
        "restores",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("restored_at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("backed_up_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "restored_at", name=op.f("pk_restores")),
    )
    op.create_table(
        "signing_profile_permissions",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("profile", sa.String(length=64), nullable=False),
        sa.Column("statement_id", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("profile_version", sa.String(length=10), nullable=True),
        sa.PrimaryKeyConstraint("account", "profile", "statement_id", name=op.f("pk_signing_profile_permissions")),
    )
    with op.batch_alter_table("access_sessions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("user_name", sa.String(length=64), server_default="", nullable=False))
        batch_op.add_column(sa.Column("tags", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("transitive_keys", sa.Text(), nullable=True))

    with op.batch_alter_table("device_anomalies", schema=None) as batch_op:
        batch_op.create_index("ix_device_anomalies_account_thing", ["account", "thing"], unique=False)

    with op.batch_alter_table("device_certificates", schema=None) as batch_op:
        batch_op.add_column(sa.Column("replaces", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("replaced_by", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("first_used_at", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("retires_at", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("retired_at", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("trusts", sa.String(length=64), nullable=True))
        batch_op.create_index("ix_device_certificates_retires_at", ["retires_at"], unique=False)

    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("encrypted", sa.Boolean(), server_default=sa.false(), nullable=False))

    with op.batch_alter_table("keyring_keys", schema=None) as batch_op:
        batch_op.add_column(sa.Column("holder", sa.String(length=1024), server_default="file:", nullable=False))

    with op.batch_alter_table("ota_update_files", schema=None) as batch_op:
        batch_op.add_column(sa.Column("encryption", sa.Text(), nullable=True))
        batch_op.create_index("ix_ota_update_files_signing_job", ["account", "signing_job"], unique=False)

    with op.batch_alter_table("ota_updates", schema=None) as batch_op:
        batch_op.add_column(sa.Column("signature_ends_at", sa.BigInteger(), nullable=True))
        batch_op.create_index("ix_ota_updates_signature_ends", ["signature_ends_at"], unique=False)

    with op.batch_alter_table("provisioned_devices", schema=None) as batch_op:
        batch_op.add_column(sa.Column("template", sa.String(length=36), nullable=True))
        batch_op.add_column(sa.Column("claim", sa.String(length=128), nullable=True))
        batch_op.create_index("ix_provisioned_devices_account_claim_thing", ["account", "claim", "thing"], unique=False)
        batch_op.create_index("ix_provisioned_devices_account_template_thing", ["account", "template", "thing"], unique=False)

    with op.batch_alter_table("signing_jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("invoker", sa.String(length=12), server_default="", nullable=False))
        batch_op.add_column(sa.Column("certificate_sha256", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("certificate_not_after", sa.BigInteger(), nullable=True))
        batch_op.create_index("ix_signing_jobs_invoked", ["invoker", "id"], unique=False)
