"""Who may do what."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("device_certificates", schema=None) as batch_op:
        batch_op.add_column(sa.Column("replaces", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("first_used_at", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("retires_at", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("retired_at", sa.BigInteger(), nullable=True))
        batch_op.create_index("ix_device_certificates_account_replaces", ["account", "replaces"], unique=False)
        batch_op.create_index("ix_device_certificates_retires_at", ["retires_at"], unique=False)
