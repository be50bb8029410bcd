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
