"""the first shape of the records."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "access_inline_policies",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("owner_kind", sa.String(length=8), nullable=False),
        sa.Column("owner_name", sa.String(length=64), nullable=False),
        sa.Column("policy_name", sa.String(length=128), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "owner_kind", "owner_name", "policy_name", name=op.f("pk_access_inline_policies")),
    )
    op.create_table(
        "access_keys",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("user_name", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=8), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("account", "key_id", name=op.f("pk_access_keys")),
    )
    with op.batch_alter_table("access_keys", schema=None) as batch_op:
        batch_op.create_index("ix_access_keys_account_user_name", ["account", "user_name"], unique=False)
        batch_op.create_index("uq_access_keys_key_id", ["key_id"], unique=True)

    op.create_table(
        "access_policies",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("path", sa.String(length=512), nullable=False),
        sa.Column("policy_id", sa.String(length=32), nullable=False),
        sa.Column("default_version", sa.Integer(), nullable=False),
        sa.Column("newest_version", sa.Integer(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "name", name=op.f("pk_access_policies")),
    )
    op.create_table(
        "access_policy_attachments",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("owner_kind", sa.String(length=8), nullable=False),
        sa.Column("owner_name", sa.String(length=64), nullable=False),
        sa.Column("policy_arn", sa.String(length=2048), nullable=False),
        sa.PrimaryKeyConstraint("account", "owner_kind", "owner_name", "policy_arn", name=op.f("pk_access_policy_attachments")),
    )
    with op.batch_alter_table("access_policy_attachments", schema=None) as batch_op:
        batch_op.create_index("ix_access_policy_attachments_account_policy_arn", ["account", "policy_arn"], unique=False)

    op.create_table(
        "access_policy_versions",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("policy_name", sa.String(length=128), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "policy_name", "number", name=op.f("pk_access_policy_versions")),
    )
    op.create_table(
        "access_roles",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("path", sa.String(length=512), nullable=False),
        sa.Column("role_id", sa.String(length=32), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("trust_document", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("session_s_max", sa.Integer(), nullable=False),
        sa.Column("boundary_arn", sa.String(length=2048), nullable=True),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "name", name=op.f("pk_access_roles")),
    )
    op.create_table(
        "access_sessions",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("role_name", sa.String(length=64), nullable=False),
        sa.Column("session_name", sa.String(length=64), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("policy_document", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("account", "key_id", name=op.f("pk_access_sessions")),
    )
    with op.batch_alter_table("access_sessions", schema=None) as batch_op:
        batch_op.create_index("ix_access_sessions_account_expires", ["account", "expires"], unique=False)
        batch_op.create_index("uq_access_sessions_key_id", ["key_id"], unique=True)

    op.create_table(
        "access_users",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("path", sa.String(length=512), nullable=False),
        sa.Column("user_id", sa.String(length=32), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("boundary_arn", sa.String(length=2048), nullable=True),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "name", name=op.f("pk_access_users")),
    )
    op.create_table(
        "acm_certificates",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("region", sa.String(length=64), nullable=False),
        sa.Column("pem", sa.Text(), nullable=False),
        sa.Column("chain_pem", sa.Text(), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("x509_version", sa.Integer(), nullable=False),
        sa.Column("key_usages", sa.Text(), nullable=False),
        sa.Column("extended_key_usages", sa.Text(), nullable=False),
        sa.Column("extended_key_usage_oids", sa.Text(), nullable=False),
        sa.Column("key_algorithm", sa.String(length=32), nullable=False),
        sa.Column("self_signed", sa.Boolean(), nullable=False),
        sa.Column("serial", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("domain_name", sa.Text(), nullable=False),
        sa.Column("alternative_names", sa.Text(), nullable=False),
        sa.Column("signature_algorithm", sa.String(length=64), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("imported_at", sa.BigInteger(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "id", name=op.f("pk_acm_certificates")),
    )
    with op.batch_alter_table("acm_certificates", schema=None) as batch_op:
        batch_op.create_index("ix_acm_certificates_account_created_at_id", ["account", "created_at", "id"], unique=False)

    op.create_table(
        "audit_records",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("record_id", sa.String(length=36), nullable=False),
        sa.Column("principal_arn", sa.String(length=2048), nullable=False),
        sa.Column("access_key_id", sa.String(length=32), nullable=False),
        sa.Column("service", sa.String(length=32), nullable=False),
        sa.Column("operation", sa.String(length=64), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("source_ip", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("account", "at", "record_id", name=op.f("pk_audit_records")),
    )
    op.create_table(
        "device_certificates",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("pem", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=24), nullable=False),
        sa.Column("mode", sa.String(length=12), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("generation_id", sa.String(length=36), nullable=False),
        sa.PrimaryKeyConstraint("account", "id", name=op.f("pk_device_certificates")),
    )
    with op.batch_alter_table("device_certificates", schema=None) as batch_op:
        batch_op.create_index("ix_device_certificates_account_created_at_id", ["account", "created_at", "id"], unique=False)
        batch_op.create_index("uq_device_certificates_id", ["id"], unique=True)

    op.create_table(
        "device_policies",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("default_version", sa.Integer(), nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.Column("generation_id", sa.String(length=36), nullable=False),
        sa.PrimaryKeyConstraint("account", "name", name=op.f("pk_device_policies")),
    )
    with op.batch_alter_table("device_policies", schema=None) as batch_op:
        batch_op.create_index("ix_device_policies_account_created_at_name", ["account", "created_at", "name"], unique=False)

    op.create_table(
        "device_policy_attachments",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("target_kind", sa.String(length=16), nullable=False),
        sa.Column("target_name", sa.String(length=128), nullable=False),
        sa.Column("policy", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("account", "target_kind", "target_name", "policy", name=op.f("pk_device_policy_attachments")),
    )
    with op.batch_alter_table("device_policy_attachments", schema=None) as batch_op:
        batch_op.create_index(
            "ix_device_policy_attachments_account_policy", ["account", "policy", "target_kind", "target_name"], unique=False
        )

    op.create_table(
        "device_policy_versions",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("policy", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "policy", "version", name=op.f("pk_device_policy_versions")),
    )
    op.create_table(
        "job_documents",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "job", name=op.f("pk_job_documents")),
    )
    op.create_table(
        "job_executions",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("job_sequence", sa.BigInteger(), nullable=False),
        sa.Column("latest", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("status_details", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("retry_attempt", sa.Integer(), nullable=False),
        sa.Column("force_canceled", sa.Boolean(), nullable=False),
        sa.Column("queued_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("last_updated_at", sa.BigInteger(), nullable=False),
        sa.Column("in_progress_due_at", sa.BigInteger(), nullable=True),
        sa.Column("step_due_at", sa.BigInteger(), nullable=True),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("account", "thing", "job", "number", name=op.f("pk_job_executions")),
    )
    with op.batch_alter_table("job_executions", schema=None) as batch_op:
        batch_op.create_index("ix_job_executions_due", ["due_at"], unique=False)
        batch_op.create_index("ix_job_executions_of_job", ["account", "job", "status", "thing"], unique=False)
        batch_op.create_index("ix_job_executions_of_thing", ["account", "thing", "status"], unique=False)

    op.create_table(
        "job_targets",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("arn", sa.Text(), nullable=False),
        sa.Column("planned", sa.Boolean(), nullable=False),
        sa.Column("cursor", sa.String(length=128), nullable=True),
        sa.PrimaryKeyConstraint("account", "job", "position", name=op.f("pk_job_targets")),
    )
    with op.batch_alter_table("job_targets", schema=None) as batch_op:
        batch_op.create_index("ix_job_targets_arn", ["account", "arn"], unique=False)

    op.create_table(
        "job_waiting_things",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "job", "thing", name=op.f("pk_job_waiting_things")),
    )
    with op.batch_alter_table("job_waiting_things", schema=None) as batch_op:
        batch_op.create_index("ix_job_waiting_things_thing", ["account", "thing"], unique=False)
        batch_op.create_index("ix_job_waiting_things_turn", ["account", "job", "position"], unique=False)

    op.create_table(
        "jobs",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("region", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=24), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("next_step_at", sa.BigInteger(), nullable=False),
        sa.Column("target_selection", sa.String(length=16), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("document_source", sa.Text(), nullable=True),
        sa.Column("destination_package_versions", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("reason_code", sa.String(length=128), nullable=True),
        sa.Column("force_canceled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_updated_at", sa.BigInteger(), nullable=False),
        sa.Column("completed_at", sa.BigInteger(), nullable=True),
        sa.Column("count_queued", sa.Integer(), nullable=False),
        sa.Column("count_in_progress", sa.Integer(), nullable=False),
        sa.Column("count_succeeded", sa.Integer(), nullable=False),
        sa.Column("count_failed", sa.Integer(), nullable=False),
        sa.Column("count_timed_out", sa.Integer(), nullable=False),
        sa.Column("count_rejected", sa.Integer(), nullable=False),
        sa.Column("count_removed", sa.Integer(), nullable=False),
        sa.Column("count_canceled", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("account", "id", name=op.f("pk_jobs")),
    )
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.create_index("ix_jobs_newest", ["account", "sequence"], unique=False)
        batch_op.create_index("ix_jobs_unsettled", ["phase", "next_step_at"], unique=False)

    op.create_table(
        "keyring_keys",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("key_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("purpose", sa.String(length=128), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("public_key_der", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("account", "key_id", name=op.f("pk_keyring_keys")),
    )
    op.create_table(
        "mqtt_queue",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("client_id", sa.String(length=128), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("account", "client_id", "position", name=op.f("pk_mqtt_queue")),
    )
    op.create_table(
        "mqtt_retained",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("qos", sa.Integer(), nullable=False),
        sa.Column("last_modified", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "topic", name=op.f("pk_mqtt_retained")),
    )
    op.create_table(
        "mqtt_sessions",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("client_id", sa.String(length=128), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("account", "client_id", name=op.f("pk_mqtt_sessions")),
    )
    op.create_table(
        "mqtt_subscriptions",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("client_id", sa.String(length=128), nullable=False),
        sa.Column("topic_filter", sa.Text(), nullable=False),
        sa.Column("qos", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("account", "client_id", "topic_filter", name=op.f("pk_mqtt_subscriptions")),
    )
    op.create_table(
        "objects_buckets",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("region", sa.String(length=32), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("versioning", sa.String(length=16), nullable=False),
        sa.Column("policy", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("account", "name", name=op.f("pk_objects_buckets")),
    )
    op.create_table(
        "objects_parts",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("upload_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("content_id", sa.String(length=66), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("md5_hex", sa.String(length=32), nullable=False),
        sa.Column("modified", sa.BigInteger(), nullable=False),
        sa.Column("checksums", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "upload_id", "number", name=op.f("pk_objects_parts")),
    )
    with op.batch_alter_table("objects_parts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_objects_parts_content_id"), ["content_id"], unique=False)

    op.create_table(
        "objects_uploads",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("upload_id", sa.String(length=64), nullable=False),
        sa.Column("bucket", sa.String(length=63), nullable=False),
        sa.Column("key", sa.String(length=1024), nullable=False),
        sa.Column("initiated", sa.BigInteger(), nullable=False),
        sa.Column("properties", sa.Text(), nullable=False),
        sa.Column("checksum_algorithm", sa.String(length=16), nullable=True),
        sa.Column("checksum_type", sa.String(length=16), nullable=True),
        sa.PrimaryKeyConstraint("account", "upload_id", name=op.f("pk_objects_uploads")),
    )
    with op.batch_alter_table("objects_uploads", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_objects_uploads_account_bucket_key_upload_id"),
            ["account", "bucket", "key", "upload_id"],
            unique=False,
        )

    op.create_table(
        "objects_versions",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("bucket", sa.String(length=63), nullable=False),
        sa.Column("key", sa.String(length=1024), nullable=False),
        sa.Column("version_id", sa.String(length=32), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("is_latest", sa.Boolean(), nullable=False),
        sa.Column("modified", sa.BigInteger(), nullable=False),
        sa.Column("content_id", sa.String(length=66), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("etag", sa.String(length=40), nullable=True),
        sa.Column("properties", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("account", "bucket", "key", "version_id", name=op.f("pk_objects_versions")),
        sa.UniqueConstraint(
            "account", "bucket", "key", "sequence", name=op.f("uq_objects_versions_account_bucket_key_sequence")
        ),
    )
    with op.batch_alter_table("objects_versions", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_objects_versions_account_bucket_is_latest_key"),
            ["account", "bucket", "is_latest", "key"],
            unique=False,
        )
        batch_op.create_index(batch_op.f("ix_objects_versions_content_id"), ["content_id"], unique=False)

    op.create_table(
        "ota_update_files",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("ota_update", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("signature_checked", sa.Boolean(), nullable=False),
        sa.Column("signing_job", sa.String(length=64), nullable=True),
        sa.Column("bucket", sa.Text(), nullable=True),
        sa.Column("object_key", sa.Text(), nullable=True),
        sa.Column("object_version", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("signature", sa.LargeBinary(), nullable=True),
        sa.Column("algorithm", sa.String(length=32), nullable=True),
        sa.Column("certificate_path", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "ota_update", "number", name=op.f("pk_ota_update_files")),
    )
    op.create_table(
        "ota_updates",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("region", sa.String(length=32), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("targets", sa.Text(), nullable=False),
        sa.Column("protocols", sa.Text(), nullable=False),
        sa.Column("selection", sa.String(length=16), nullable=False),
        sa.Column("rollout", sa.Text(), nullable=True),
        sa.Column("abort", sa.Text(), nullable=True),
        sa.Column("timeout", sa.Text(), nullable=True),
        sa.Column("presign_expiry_s", sa.Integer(), nullable=False),
        sa.Column("role_arn", sa.Text(), nullable=False),
        sa.Column("additional_parameters", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("step", sa.String(length=32), nullable=False),
        sa.Column("stream", sa.String(length=128), nullable=False),
        sa.Column("stream_made", sa.Boolean(), nullable=False),
        sa.Column("is_unsigned", sa.Boolean(), nullable=False),
        sa.Column("failure_code", sa.Text(), nullable=True),
        sa.Column("failure_message", sa.Text(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "id", name=op.f("pk_ota_updates")),
    )
    with op.batch_alter_table("ota_updates", schema=None) as batch_op:
        batch_op.create_index("ix_ota_updates_newest", ["account", "created_at", "id"], unique=False)
        batch_op.create_index("ix_ota_updates_unfinished", ["status", "created_at"], unique=False)

    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("qos", sa.Integer(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "own_certificates",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("pem", sa.Text(), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("hosts", sa.Text(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "purpose", name=op.f("pk_own_certificates")),
    )
    op.create_table(
        "signing_jobs",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("region", sa.String(length=32), nullable=False),
        sa.Column("client_request_token", sa.String(length=512), nullable=True),
        sa.Column("source_bucket", sa.Text(), nullable=True),
        sa.Column("source_key", sa.Text(), nullable=True),
        sa.Column("source_version", sa.Text(), nullable=True),
        sa.Column("destination_bucket", sa.Text(), nullable=True),
        sa.Column("destination_prefix", sa.Text(), nullable=True),
        sa.Column("profile", sa.String(length=64), nullable=False),
        sa.Column("profile_version", sa.String(length=10), nullable=False),
        sa.Column("platform_id", sa.Text(), nullable=False),
        sa.Column("certificate_arn", sa.Text(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("algorithm", sa.String(length=32), nullable=False),
        sa.Column("image_format", sa.String(length=16), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=True),
        sa.Column("signed_version", sa.Text(), nullable=True),
        sa.Column("signature", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("completed_at", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_by", sa.Text(), nullable=True),
        sa.Column("revocation_reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("account", "id", name=op.f("pk_signing_jobs")),
    )
    with op.batch_alter_table("signing_jobs", schema=None) as batch_op:
        batch_op.create_index("ix_signing_jobs_newest", ["account", "created_at", "id"], unique=False)
        batch_op.create_index("ix_signing_jobs_unfinished", ["status", "created_at"], unique=False)
        batch_op.create_index("uq_signing_jobs_client_request_token", ["account", "client_request_token"], unique=True)

    op.create_table(
        "signing_profiles",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=10), nullable=False),
        sa.Column("is_current", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=True),
        sa.Column("platform_id", sa.Text(), nullable=False),
        sa.Column("certificate_arn", sa.Text(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("encryption", sa.String(length=8), nullable=True),
        sa.Column("hash", sa.String(length=8), nullable=True),
        sa.Column("image_format", sa.String(length=16), nullable=True),
        sa.Column("validity_value", sa.Integer(), nullable=True),
        sa.Column("validity_unit", sa.String(length=8), nullable=True),
        sa.Column("testing_only", sa.Boolean(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_by", sa.Text(), nullable=True),
        sa.Column("revocation_effective_from", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("account", "name", "version", name=op.f("pk_signing_profiles")),
    )
    with op.batch_alter_table("signing_profiles", schema=None) as batch_op:
        batch_op.create_index("ix_signing_profiles_current", ["account", "is_current", "name"], unique=False)

    op.create_table(
        "stream_files",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("stream", sa.String(length=128), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("file_id", sa.Integer(), nullable=False),
        sa.Column("bucket", sa.String(length=255), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("version_asked", sa.Text(), nullable=True),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "stream", "position", name=op.f("pk_stream_files")),
    )
    op.create_table(
        "streams",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("role_arn", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "id", name=op.f("pk_streams")),
    )
    with op.batch_alter_table("streams", schema=None) as batch_op:
        batch_op.create_index("ix_streams_listed", ["account", "deleted", "id"], unique=False)

    op.create_table(
        "tags",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("arn", sa.String(length=512), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "arn", "key", name=op.f("pk_tags")),
    )
    op.create_table(
        "thing_attributes",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("attribute", sa.String(length=128), nullable=False),
        sa.Column("value", sa.String(length=800), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("account", "attribute", "value", "thing", name=op.f("pk_thing_attributes")),
    )
    with op.batch_alter_table("thing_attributes", schema=None) as batch_op:
        batch_op.create_index("ix_thing_attributes_account_thing", ["account", "thing"], unique=False)

    op.create_table(
        "thing_group_ancestors",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("ancestor", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("distance", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("account", "ancestor", "name", name=op.f("pk_thing_group_ancestors")),
    )
    with op.batch_alter_table("thing_group_ancestors", schema=None) as batch_op:
        batch_op.create_index("ix_thing_group_ancestors_account_name", ["account", "name"], unique=False)

    op.create_table(
        "thing_group_members",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("group_name", sa.String(length=128), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("account", "group_name", "thing", name=op.f("pk_thing_group_members")),
    )
    with op.batch_alter_table("thing_group_members", schema=None) as batch_op:
        batch_op.create_index(
            "ix_thing_group_members_account_thing_group_name", ["account", "thing", "group_name"], unique=False
        )

    op.create_table(
        "thing_groups",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("parent", sa.String(length=128), nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "name", name=op.f("pk_thing_groups")),
    )
    with op.batch_alter_table("thing_groups", schema=None) as batch_op:
        batch_op.create_index("ix_thing_groups_account_parent_name", ["account", "parent", "name"], unique=False)

    op.create_table(
        "thing_principals",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("certificate", sa.String(length=64), nullable=False),
        sa.Column("type", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("account", "thing", "certificate", name=op.f("pk_thing_principals")),
    )
    with op.batch_alter_table("thing_principals", schema=None) as batch_op:
        batch_op.create_index(
            "ix_thing_principals_account_certificate_thing", ["account", "certificate", "thing"], unique=False
        )

    op.create_table(
        "thing_types",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("searchable_attributes", sa.Text(), nullable=False),
        sa.Column("propagating_attributes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deprecated_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("account", "name", name=op.f("pk_thing_types")),
    )
    op.create_table(
        "things",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("type_name", sa.String(length=128), nullable=True),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "name", name=op.f("pk_things")),
    )
    with op.batch_alter_table("things", schema=None) as batch_op:
        batch_op.create_index("ix_things_account_type_name_name", ["account", "type_name", "name"], unique=False)
