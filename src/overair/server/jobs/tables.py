"""This room's tables."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, String, Table, Text, false, text

from overair.server.storage.schema import account_column, instant_column, metadata

jobs: Final = Table(
    "jobs",
    metadata,
    account_column(),
    Column("id", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("region", String(32), nullable=False),
    Column("status", String(24), nullable=False),
    Column("phase", String(16), nullable=False),
    instant_column("next_step_at"),
    Column("target_selection", String(16), nullable=False),
    Column("settings", Text, nullable=False),
    Column("document_source", Text),
    Column("destination_package_versions", Text, nullable=False),
    Column("comment", Text),
    Column("reason_code", String(128)),
    Column("force_canceled", Boolean, nullable=False),
    instant_column("created_at"),
    instant_column("last_updated_at"),
    instant_column("completed_at", nullable=True),
    # Things by the state of their latest execution, kept beside each transition so that nobody has to count a fleet.
    Column("count_queued", Integer, nullable=False),
    Column("count_in_progress", Integer, nullable=False),
    Column("count_succeeded", Integer, nullable=False),
    Column("count_failed", Integer, nullable=False),
    Column("count_timed_out", Integer, nullable=False),
    Column("count_rejected", Integer, nullable=False),
    Column("count_removed", Integer, nullable=False),
    Column("count_canceled", Integer, nullable=False),
    Column("fulfilment", String(64)),
    # What a metered rollout gave in the last minute, in the row that a step claims.
    Column("released", Text, nullable=False, server_default="[]"),
    Column("schedule", Text),
    # When the schedule's end is still to be carried out.
    instant_column("ends_at", nullable=True),
    Column("template_arn", Text),
    Column("document_parameters", Text),
    Column("namespace", String(64)),
    Column("offline_signed", Boolean, nullable=False, server_default=false()),
    Column("encrypted", Boolean, nullable=False, server_default=false()),
)
Index("ix_jobs_newest", jobs.c.account, jobs.c.sequence)
Index("ix_jobs_unsettled", jobs.c.phase, jobs.c.next_step_at)
Index("ix_jobs_ending", jobs.c.ends_at)
Index("ix_jobs_status", jobs.c.account, jobs.c.status, jobs.c.sequence)

job_documents: Final = Table(
    "job_documents",
    metadata,
    account_column(),
    Column("job", String(64), primary_key=True),
    Column("document", Text, nullable=False),
    # As they were given, where placeholders for package versions were filled since.
    Column("given_document", Text),
    Column("given_package_versions", Text),
)

job_targets: Final = Table(
    "job_targets",
    metadata,
    account_column(),
    Column("job", String(64), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("arn", Text, nullable=False),
    Column("planned", Boolean, nullable=False),
    Column("cursor", String(128)),
)
Index("ix_job_targets_arn", job_targets.c.account, job_targets.c.arn)
Index("ix_job_targets_unplanned", job_targets.c.account, job_targets.c.job, job_targets.c.planned, job_targets.c.position)

job_waiting_things: Final = Table(
    "job_waiting_things",
    metadata,
    account_column(),
    Column("job", String(64), primary_key=True),
    Column("thing", String(128), primary_key=True),
    Column("position", BigInteger, nullable=False),
    # How the attempt ended that is to be tried again.
    Column("ended", String(16)),
)
"""Things of a metered rollout whose turn hasn't come."""
Index("ix_job_waiting_things_ended", job_waiting_things.c.account, job_waiting_things.c.job, job_waiting_things.c.ended)
Index("ix_job_waiting_things_turn", job_waiting_things.c.account, job_waiting_things.c.job, job_waiting_things.c.position)
Index("ix_job_waiting_things_thing", job_waiting_things.c.account, job_waiting_things.c.thing)

job_executions: Final = Table(
    "job_executions",
    metadata,
    account_column(),
    Column("thing", String(128), primary_key=True),
    Column("job", String(64), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("job_sequence", BigInteger, nullable=False),
    Column("latest", Boolean, nullable=False),
    Column("status", String(16), nullable=False),
    Column("status_details", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("retry_attempt", Integer, nullable=False),
    Column("force_canceled", Boolean, nullable=False),
    instant_column("queued_at"),
    instant_column("started_at", nullable=True),
    instant_column("last_updated_at"),
    instant_column("in_progress_due_at", nullable=True),
    instant_column("step_due_at", nullable=True),
    instant_column("due_at", nullable=True),
    Column("fulfilment", String(64)),
    Column("outlived", Boolean, nullable=False, server_default=false()),
    # Its job's, so that a thing's queue in it is one read.
    Column("namespace", String(64)),
)
is_pending: Final = text("job_executions.status IN ('IN_PROGRESS', 'QUEUED')")
"""Spelt out, and told as the index tells it: else a database doesn't see that the index holds all that is asked for."""
# Each index is paid for by every execution of a large job. What has ended, and what has no time limit, stands in neither of
# these two; a thing's ended executions are found by the primary key.
_PENDING: Final = text("status IN ('IN_PROGRESS', 'QUEUED')")
Index(
    "ix_job_executions_pending",
    job_executions.c.account,
    job_executions.c.thing,
    sqlite_where=_PENDING,
    postgresql_where=_PENDING,
)
Index(
    "ix_job_executions_of_job", job_executions.c.account, job_executions.c.job, job_executions.c.status, job_executions.c.thing
)
Index(
    "ix_job_executions_by_thing",
    job_executions.c.account,
    job_executions.c.job,
    job_executions.c.thing,
    job_executions.c.number,
)
_TIMED: Final = text("due_at IS NOT NULL")
Index("ix_job_executions_timed", job_executions.c.due_at, sqlite_where=_TIMED, postgresql_where=_TIMED)

job_templates: Final = Table(
    "job_templates",
    metadata,
    account_column(),
    Column("id", String(64), primary_key=True),
    Column("region", String(32), nullable=False),
    Column("description", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("document_source", Text),
    Column("settings", Text, nullable=False),
    Column("windows", Text, nullable=False),
    Column("destination_package_versions", Text, nullable=False),
    instant_column("created_at"),
)

job_event_configurations: Final = Table(
    "job_event_configurations",
    metadata,
    account_column(),
    Column("kind", String(32), primary_key=True),
    Column("enabled", Boolean, nullable=False),
    instant_column("created_at"),
    instant_column("last_updated_at"),
)
"""Which of the events that jobs publish an account wants to hear."""
