"""Jobs and the agent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "access_accounts",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_access_accounts")),
    )
    op.create_table(
        "access_group_members",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("group_name", sa.String(length=64), nullable=False),
        sa.Column("user_name", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("account", "group_name", "user_name", name=op.f("pk_access_group_members")),
    )
    with op.batch_alter_table("access_group_members", schema=None) as batch_op:
        batch_op.create_index("ix_access_group_members_account_user_name", ["account", "user_name"], unique=False)

    op.create_table(
        "access_groups",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("path", sa.String(length=512), nullable=False),
        sa.Column("group_id", sa.String(length=32), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "name", name=op.f("pk_access_groups")),
    )
    op.create_table(
        "certificate_ownerships",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("certificate_id", sa.String(length=64), nullable=False),
        sa.Column("claim", sa.String(length=128), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "token_sha256", name=op.f("pk_certificate_ownerships")),
    )
    with op.batch_alter_table("certificate_ownerships", schema=None) as batch_op:
        batch_op.create_index("ix_certificate_ownerships_expires_at", ["expires_at"], unique=False)

    op.create_table(
        "fleet_documents",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("index_name", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("account", "index_name", "name", name=op.f("pk_fleet_documents")),
    )
    op.create_table(
        "fleet_group_builds",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("group_name", sa.String(length=128), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("cursor", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("account", "group_name", name=op.f("pk_fleet_group_builds")),
    )
    op.create_table(
        "fleet_indices",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("index_name", sa.String(length=32), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("cursor", sa.String(length=128), nullable=False),
        sa.Column("built_at", sa.BigInteger(), nullable=True),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "index_name", name=op.f("pk_fleet_indices")),
    )
    with op.batch_alter_table("fleet_indices", schema=None) as batch_op:
        batch_op.create_index("ix_fleet_indices_phase_due_at", ["phase", "due_at"], unique=False)

    op.create_table(
        "fleet_revocation_lists",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("issuer", sa.String(length=64), nullable=False),
        sa.Column("authority", sa.String(length=64), nullable=False),
        sa.Column("issuer_pem", sa.Text(), nullable=False),
        sa.Column("number", sa.String(length=40), nullable=False),
        sa.Column("this_update", sa.BigInteger(), nullable=False),
        sa.Column("next_update", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("refuse_when_stale", sa.Boolean(), nullable=False),
        sa.Column("put_at", sa.BigInteger(), nullable=False),
        sa.Column("put_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", "issuer", name=op.f("pk_fleet_revocation_lists")),
    )
    op.create_table(
        "fleet_revoked_serials",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("issuer", sa.String(length=64), nullable=False),
        sa.Column("serial_number", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("account", "issuer", "serial_number", name=op.f("pk_fleet_revoked_serials")),
    )
    op.create_table(
        "fleet_settings",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("things", sa.Boolean(), nullable=False),
        sa.Column("connectivity", sa.Boolean(), nullable=False),
        sa.Column("groups", sa.Boolean(), nullable=False),
        sa.Column("packages", sa.Boolean(), nullable=False),
        sa.Column("fields", sa.Text(), nullable=False),
        sa.Column("group_fields", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_fleet_settings")),
    )
    op.create_table(
        "fleet_values",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("index_name", sa.String(length=32), nullable=False),
        sa.Column("field", sa.String(length=176), nullable=False),
        sa.Column("text", sa.String(length=800), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("shown", sa.String(length=800), nullable=False),
        sa.Column("number", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("account", "index_name", "field", "text", "name", "shown", name=op.f("pk_fleet_values")),
    )
    with op.batch_alter_table("fleet_values", schema=None) as batch_op:
        batch_op.create_index(
            "ix_fleet_values_account_index_name_field_number", ["account", "index_name", "field", "number"], unique=False
        )
        batch_op.create_index(
            "ix_fleet_values_account_index_name_name", ["account", "index_name", "name", "field", "text", "shown"], unique=False
        )

    op.create_table(
        "job_event_configurations",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "kind", name=op.f("pk_job_event_configurations")),
    )
    op.create_table(
        "job_templates",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("region", sa.String(length=32), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("document_source", sa.Text(), nullable=True),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("windows", sa.Text(), nullable=False),
        sa.Column("destination_package_versions", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "id", name=op.f("pk_job_templates")),
    )
    op.create_table(
        "nodes",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("lock_key", sa.BigInteger(), nullable=False),
        sa.Column("began", sa.BigInteger(), nullable=False),
        sa.Column("life_began", sa.BigInteger(), nullable=False),
        sa.Column("heard_to", sa.BigInteger(), nullable=True),
        sa.Column("connected", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("account", "name", name=op.f("pk_nodes")),
    )
    op.create_table(
        "package_configurations",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("role_arn", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_package_configurations")),
    )
    op.create_table(
        "package_versions",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("package", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("region", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("artifact", sa.Text(), nullable=True),
        sa.Column("recipe", sa.Text(), nullable=True),
        sa.Column("client_token", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_modified_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "package", "name", name=op.f("pk_package_versions")),
    )
    op.create_table(
        "packages",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("region", sa.String(length=32), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("default_version", sa.String(length=64), nullable=True),
        sa.Column("client_token", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_modified_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "name", name=op.f("pk_packages")),
    )
    op.create_table(
        "provisioning_template_versions",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("template", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "template", "version", name=op.f("pk_provisioning_template_versions")),
    )
    op.create_table(
        "provisioning_templates",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=36), nullable=False),
        sa.Column("type", sa.String(length=20), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("role_arn", sa.Text(), nullable=False),
        sa.Column("hook_target_arn", sa.Text(), nullable=True),
        sa.Column("hook_payload_version", sa.String(length=32), nullable=True),
        sa.Column("default_version", sa.Integer(), nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "name", name=op.f("pk_provisioning_templates")),
    )
    op.create_table(
        "registration_codes",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_registration_codes")),
    )
    op.create_table(
        "temporary_claims",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("certificate_id", sa.String(length=64), nullable=False),
        sa.Column("template", sa.String(length=36), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "certificate_id", name=op.f("pk_temporary_claims")),
    )
    with op.batch_alter_table("temporary_claims", schema=None) as batch_op:
        batch_op.create_index("ix_temporary_claims_expires_at", ["expires_at"], unique=False)

    op.create_table(
        "thing_packages",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("thing", sa.String(length=128), nullable=False),
        sa.Column("package", sa.String(length=128), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=True),
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", "thing", "package", name=op.f("pk_thing_packages")),
    )
    with op.batch_alter_table("access_keys", schema=None) as batch_op:
        batch_op.add_column(sa.Column("used_at", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("used_service", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("used_region", sa.String(length=64), nullable=True))

    with op.batch_alter_table("access_roles", schema=None) as batch_op:
        batch_op.add_column(sa.Column("used_at", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("used_region", sa.String(length=64), nullable=True))

    with op.batch_alter_table("access_sessions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("policy_arns", sa.Text(), nullable=True))

    with op.batch_alter_table("audit_records", schema=None) as batch_op:
        batch_op.add_column(sa.Column("kind", sa.String(length=16), server_default="change", nullable=False))
        batch_op.add_column(sa.Column("times", sa.Integer(), server_default="1", nullable=False))
        batch_op.add_column(sa.Column("sequence", sa.BigInteger(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("chain_hash", sa.String(length=64), server_default="", nullable=False))
        batch_op.create_index("ix_audit_records_account_kind_at", ["account", "kind", "at"], unique=False)
        batch_op.create_index("ix_audit_records_account_sequence", ["account", "sequence"], unique=False)

    with op.batch_alter_table("fleet_authorities", schema=None) as batch_op:
        batch_op.add_column(sa.Column("registration", sa.Text(), nullable=True))

    with op.batch_alter_table("job_documents", schema=None) as batch_op:
        batch_op.add_column(sa.Column("given_document", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("given_package_versions", sa.Text(), nullable=True))

    with op.batch_alter_table("job_executions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("outlived", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column("namespace", sa.String(length=64), nullable=True))
        batch_op.drop_index(batch_op.f("ix_job_executions_due"))
        batch_op.drop_index(batch_op.f("ix_job_executions_of_thing"))
        batch_op.create_index("ix_job_executions_by_thing", ["account", "job", "thing", "number"], unique=False)
        batch_op.create_index(
            "ix_job_executions_pending",
            ["account", "thing"],
            unique=False,
            sqlite_where=sa.text("status IN ('IN_PROGRESS', 'QUEUED')"),
            postgresql_where=sa.text("status IN ('IN_PROGRESS', 'QUEUED')"),
        )
        batch_op.create_index(
            "ix_job_executions_timed",
            ["due_at"],
            unique=False,
            sqlite_where=sa.text("due_at IS NOT NULL"),
            postgresql_where=sa.text("due_at IS NOT NULL"),
        )

    with op.batch_alter_table("job_targets", schema=None) as batch_op:
        batch_op.create_index("ix_job_targets_unplanned", ["account", "job", "planned", "position"], unique=False)

    with op.batch_alter_table("job_waiting_things", schema=None) as batch_op:
        batch_op.add_column(sa.Column("ended", sa.String(length=16), nullable=True))
        batch_op.create_index("ix_job_waiting_things_ended", ["account", "job", "ended"], unique=False)

    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("released", sa.Text(), server_default="[]", nullable=False))
        batch_op.add_column(sa.Column("schedule", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("ends_at", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("template_arn", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("document_parameters", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("namespace", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("offline_signed", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.create_index("ix_jobs_ending", ["ends_at"], unique=False)
        batch_op.create_index("ix_jobs_status", ["account", "status", "sequence"], unique=False)

    with op.batch_alter_table("mqtt_queue", schema=None) as batch_op:
        batch_op.add_column(sa.Column("properties", sa.LargeBinary(), nullable=True))
        batch_op.add_column(sa.Column("expires", sa.BigInteger(), nullable=True))

    with op.batch_alter_table("mqtt_retained", schema=None) as batch_op:
        batch_op.add_column(sa.Column("properties", sa.LargeBinary(), nullable=True))
        batch_op.add_column(sa.Column("expires", sa.BigInteger(), nullable=True))
        batch_op.create_index(batch_op.f("ix_mqtt_retained_expires"), ["expires"], unique=False)

    with op.batch_alter_table("mqtt_sessions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("node", sa.String(length=32), server_default="", nullable=False))
        batch_op.add_column(sa.Column("heard_to", sa.BigInteger(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("expiry_ms", sa.BigInteger(), nullable=True))

    with op.batch_alter_table("mqtt_subscriptions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("options", sa.Integer(), server_default="0", nullable=False))

    with op.batch_alter_table("objects_buckets", schema=None) as batch_op:
        batch_op.add_column(sa.Column("public_access_block", sa.String(length=4), server_default="1111", nullable=True))

    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.add_column(sa.Column("properties", sa.LargeBinary(), nullable=True))
        batch_op.add_column(sa.Column("expires", sa.BigInteger(), nullable=True))

    with op.batch_alter_table("thing_groups", schema=None) as batch_op:
        batch_op.add_column(sa.Column("index_name", sa.String(length=32), nullable=True))
        batch_op.add_column(sa.Column("query", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("query_version", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("query_status", sa.String(length=16), nullable=True))
        batch_op.add_column(sa.Column("signing_rule", sa.String(length=16), nullable=True))
        batch_op.create_index("ix_thing_groups_account_query_version", ["account", "query_version"], unique=False)
        batch_op.create_index("ix_thing_groups_account_signing_rule", ["account", "signing_rule"], unique=False)
