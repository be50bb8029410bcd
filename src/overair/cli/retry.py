"""``overair retry``: another attempt for the things that failed, as a new job over exactly those things.

A job that has ended for a thing has ended for good in AWS's model; its retry criteria work only while it runs. So what is
made here is another job with the same document, rate, abort rule and timeouts. Uptane devices get it by the Director as before:
where one job served both kinds, two are made.
"""

from __future__ import annotations

import json as json_text
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.executions import describe, follow_of
from overair.cli.jobs import one_of
from overair.cli.operator import DATA_DEFAULT, Data, Operator, operator_of, told_plainly
from overair.cli.output import Json, console, print_json
from overair.cli.watch import Follow, job_of

RETRIED: Final = ("FAILED", "REJECTED", "TIMED_OUT")
RETRIABLE: Final = (*RETRIED, "CANCELED")
TARGETS_MAX: Final = 100
"""Explicit targets of one job (wire reference §3.2); more things go into a static group."""
SHOWN_MAX: Final = 10
_OTA_JOB: Final = "AFR_OTA-"
_KEPT: Final = (
    "jobExecutionsRolloutConfig",
    "abortConfig",
    "timeoutConfig",
    "jobExecutionsRetryConfig",
    "presignedUrlConfig",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One job that is to be made."""

    job: str
    things: tuple[str, ...]
    document: str


def retry(
    job: Annotated[str, typer.Argument(help="A job's id, or an OTA update's.")],
    things: Annotated[list[str] | None, typer.Option("--thing", help="Only this thing; may be repeated.")] = None,
    statuses: Annotated[
        list[str] | None,
        typer.Option("--status", help="What counts as failed. [default: FAILED, REJECTED and TIMED_OUT; CANCELED may be said]"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made; change nothing.")] = False,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Give another attempt to the things that failed: a new job over exactly those things."""
    wanted = [word for each in statuses or RETRIED if (word := one_of("--status", each, RETRIABLE)) is not None]
    with told_plainly():
        operator = operator_of(data)
        found = job_of(operator, job)
        failed = failed_of(operator, found, wanted, only=things or [])
        if not failed:
            what = "none of the things named" if things else "no thing"
            raise CommandEnded(ExitCode.REFUSED, f"Nothing to retry: {what} ended {found} as {' or '.join(wanted)}.")
        attempts = attempts_of(operator, found, [each.thing for each in failed])
        if not dry_run:
            for attempt in attempts:
                create(operator, found, attempt)
    if json:
        print_json(
            {
                "retried": found,
                "things": {each.thing: {"status": each.status, "words": each.words or None} for each in failed},
                "jobs": [{"job": attempt.job, "things": list(attempt.things)} for attempt in attempts],
                "dry_run": dry_run,
            }
        )
        return
    for each in failed[:SHOWN_MAX]:
        console.print(escape(f"  {each.thing}  {each.status}  {each.words}"), soft_wrap=True)
    if len(failed) > SHOWN_MAX:
        console.print(f"  … and {len(failed) - SHOWN_MAX:,} more")
    for attempt in attempts:
        verb = "would be made" if dry_run else "is made"
        console.print(
            f"A new job {verb} over exactly {'this' if len(attempt.things) == 1 else 'these'} {len(attempt.things):,}: "
            f"{attempt.job}{'' if dry_run else f'; follow it with: overair watch {attempt.job}'}",
            soft_wrap=True,
        )


def failed_of(operator: Operator, job: str, statuses: Sequence[str], *, only: Sequence[str]) -> list[Follow]:
    """Things whose latest execution of the job ended so; the reasons of the first few."""
    pages = operator.client("iot").get_paginator("list_job_executions_for_job")
    found = [
        Follow(thing=row["thingArn"].rsplit("/", 1)[1], status=status)
        for status in dict.fromkeys(statuses)
        for page in pages.paginate(jobId=job, status=status)
        for row in page["executionSummaries"]
    ]
    if only:
        found = [each for each in found if each.thing in set(only)]
    found.sort(key=lambda each: each.thing)
    return [
        follow_of(each.thing, describe(operator, job, each.thing)) if position < SHOWN_MAX else each
        for position, each in enumerate(found)
    ]


def attempts_of(operator: Operator, job: str, things: Sequence[str]) -> list[Attempt]:
    """One job; two where the Director served some of the things in place of the document."""
    document = operator.client("iot").get_job_document(jobId=job)["document"]
    update = _multi_target_update(operator, job)
    if update is None:
        return [_attempt(job, things, document)]
    from overair.cli.uptane_rest import UptaneRest  # asked only where a job served both kinds

    registered = UptaneRest(operator).registered()
    attempts = []
    if others := [thing for thing in things if thing not in registered]:
        attempts.append(_attempt(job, others, document))
    if uptane := [thing for thing in things if thing in registered]:
        attempts.append(_attempt(job, uptane, json_text.dumps({"uptane": {"multiTargetUpdate": update}})))
    return attempts


def create(operator: Operator, job: str, attempt: Attempt) -> None:
    """Make the new job, as fast and as careful as the one before."""
    iot = operator.client("iot")
    described: Mapping[str, Any] = iot.describe_job(jobId=job)["job"]
    settings = {name: described[name] for name in _KEPT if described.get(name)}
    place = f"arn:aws:iot:{operator.endpoints.region}:{operator.endpoints.account}"
    targets = [f"{place}:thing/{thing}" for thing in attempt.things]
    if len(targets) > TARGETS_MAX:
        group = iot.create_thing_group(
            thingGroupName=attempt.job,
            thingGroupProperties={"thingGroupDescription": f"Things that get another attempt at {job}."},
        )
        for thing in attempt.things:
            iot.add_thing_to_thing_group(thingGroupName=attempt.job, thingName=thing)
        targets = [group["thingGroupArn"]]
    iot.create_job(
        jobId=attempt.job,
        description=f"Another attempt at {job} for {len(attempt.things)} things that had failed.",
        targets=targets,
        document=attempt.document,
        targetSelection="SNAPSHOT",
        **settings,
    )


def _attempt(job: str, things: Sequence[str], document: str) -> Attempt:
    name = job.removeprefix(_OTA_JOB)
    return Attempt(job=f"retry-{name[:48]}-{secrets.token_hex(4)}", things=tuple(things), document=document)


def _multi_target_update(operator: Operator, job: str) -> str | None:
    """What the Director brought in place of the document, where the job is an OTA update's."""
    if not job.startswith(_OTA_JOB):
        return None
    iot = operator.client("iot")
    try:
        info = iot.get_ota_update(otaUpdateId=job.removeprefix(_OTA_JOB))["otaUpdateInfo"]
    except iot.exceptions.ResourceNotFoundException:
        return None
    update = info.get("additionalParameters", {}).get("uptaneMultiTargetUpdate")
    return None if update is None else str(update)
