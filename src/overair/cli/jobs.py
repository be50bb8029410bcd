"""``overair jobs``: what was asked of the fleet, and how far each job is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.listing import for_people, moment, print_rows
from overair.cli.operator import DATA_DEFAULT, Data, operator_of, told_plainly
from overair.cli.output import Json, console, print_json
from overair.cli.watch import is_unsigned, job_of

STATUSES: Final = ("SCHEDULED", "IN_PROGRESS", "COMPLETED", "CANCELED", "DELETION_IN_PROGRESS")
SELECTIONS: Final = ("SNAPSHOT", "CONTINUOUS")
LISTED_MAX_DEFAULT: Final = 100
COUNTS: Final[Mapping[str, str]] = {
    "queued": "numberOfQueuedThings",
    "in_progress": "numberOfInProgressThings",
    "succeeded": "numberOfSucceededThings",
    "failed": "numberOfFailedThings",
    "rejected": "numberOfRejectedThings",
    "timed_out": "numberOfTimedOutThings",
    "canceled": "numberOfCanceledThings",
    "removed": "numberOfRemovedThings",
}
"""Our words for the counts of DescribeJob."""

app = typer.Typer(help="What was asked of the fleet.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def jobs() -> None:
    """What was asked of the fleet."""


def one_of(option: str, value: str | None, known: tuple[str, ...]) -> str | None:
    """A word that an option was given, in capitals.

    Raises:
        CommandEnded: USAGE where it is none of those that AWS knows.
    """
    if value is None:
        return None
    word = value.upper().replace("-", "_")
    if word not in known:
        raise CommandEnded(ExitCode.USAGE, f"{option} {value} isn't known: say one of {', '.join(known)}.")
    return word


def counted(details: Mapping[str, Any]) -> dict[str, int]:
    """jobProcessDetails in our words, those above zero."""
    return {word: count for word, member in COUNTS.items() if (count := int(details.get(member, 0)))}


@app.command("list")
def list_(
    status: Annotated[str | None, typer.Option(help="Only jobs in this state, as AWS calls it.")] = None,
    selection: Annotated[str | None, typer.Option(help="Only SNAPSHOT or only CONTINUOUS jobs.")] = None,
    group: Annotated[str | None, typer.Option(help="Only jobs that target this group.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = LISTED_MAX_DEFAULT,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """List jobs, the newest first."""
    asked: dict[str, Any] = {}
    if (word := one_of("--status", status, STATUSES)) is not None:
        asked["status"] = word
    if (word := one_of("--selection", selection, SELECTIONS)) is not None:
        asked["targetSelection"] = word
    if group is not None:
        asked["thingGroupName"] = group
    with told_plainly():
        iot = operator_of(data).client("iot")
        pages = iot.get_paginator("list_jobs").paginate(**asked, PaginationConfig={"MaxItems": limit})
        found = [job for page in pages for job in page["jobs"]]
    document = [
        {
            "job": job["jobId"],
            "status": job["status"],
            "selection": job["targetSelection"],
            "created_at": moment(job["createdAt"]),
            "completed_at": moment(job.get("completedAt")),
        }
        for job in found
    ]
    if json:
        print_json({"jobs": document})
        return
    if not document:
        console.print("There is no such job.")
        return
    rows = [[each["job"], each["status"], each["selection"], for_people(each["created_at"])] for each in document]
    print_rows(("job", "status", "selection", "created (UTC)"), rows)


@app.command("show")
def show(
    job: Annotated[str, typer.Argument(help="A job's id, or an OTA update's.")], data: Data = DATA_DEFAULT, json: Json = False
) -> None:
    """Show one job: whom it is for, how fast it goes, how far it is."""
    with told_plainly():
        operator = operator_of(data)
        found = job_of(operator, job)
        described = operator.client("iot").describe_job(jobId=found)["job"]
        unsigned = is_unsigned(operator, found)
    counts = counted(described.get("jobProcessDetails", {}))
    document = {
        "job": found,
        "status": described["status"],
        "selection": described["targetSelection"],
        "description": described.get("description"),
        "targets": [arn.rsplit(":", 1)[1] for arn in described["targets"]],
        "counts": counts,
        "rollout": described.get("jobExecutionsRolloutConfig") or None,
        "abort": described.get("abortConfig", {}).get("criteriaList") or None,
        "retry": described.get("jobExecutionsRetryConfig", {}).get("criteriaList") or None,
        "timeout_minutes": described.get("timeoutConfig", {}).get("inProgressTimeoutInMinutes"),
        "scheduling": described.get("schedulingConfig") or None,
        "reason_code": described.get("reasonCode"),
        "comment": described.get("comment"),
        "unsigned": unsigned,
        "created_at": moment(described["createdAt"]),
        "completed_at": moment(described.get("completedAt")),
    }
    if json:
        print_json(document)
        return
    _print(document)


def _print(document: Mapping[str, Any]) -> None:
    def line(name: str, text: str) -> None:
        console.print(f"  {name:<9} {escape(text)}", soft_wrap=True)

    console.print(f"[bold]{document['job']}[/bold]  {document['status']}, {document['selection']}")
    if document["description"]:
        line("says", document["description"])
    targets = document["targets"]
    line("for", ", ".join(targets[:5]) + (f" and {len(targets) - 5} more" if len(targets) > 5 else ""))
    counts = document["counts"]
    line("devices", ", ".join(f"{count:,} {word.replace('_', ' ')}" for word, count in counts.items()) or "none yet")
    if document["rollout"]:
        line("rate", rate_in_words(document["rollout"]))
    for criterion in document["abort"] or ():
        line("stops at", abort_in_words(criterion))
    for criterion in document["retry"] or ():
        line("retries", f"{criterion['numberOfRetries']} times what ended {criterion['failureType']}")
    if document["timeout_minutes"]:
        line("timeout", f"{document['timeout_minutes']} min in progress")
    if document["scheduling"]:
        line("scheduled", ", ".join(f"{name} {value}" for name, value in document["scheduling"].items()))
    if document["reason_code"] or document["comment"]:
        line("because", " ".join(filter(None, (document["reason_code"], document["comment"]))))
    line("created", document["created_at"] + (f", done {document['completed_at']}" if document["completed_at"] else ""))
    if document["unsigned"]:
        console.print("  It is UNSIGNED: a device that checks signatures refuses it.", soft_wrap=True)


def rate_in_words(rollout: Mapping[str, Any]) -> str:
    """jobExecutionsRolloutConfig, told."""
    growth = rollout.get("exponentialRate")
    ceiling = rollout.get("maximumPerMinute")
    if not growth:
        return f"{ceiling:,} devices a minute" if ceiling else "as fast as it goes"
    criteria = growth["rateIncreaseCriteria"]
    notified, succeeded = criteria.get("numberOfNotifiedThings"), criteria.get("numberOfSucceededThings")
    each = f"{notified:,} more were told" if notified else f"{succeeded or 0:,} more have succeeded"
    return f"{growth['baseRatePerMinute']:,} devices a minute, times {growth['incrementFactor']:g} whenever {each}" + (
        f", {ceiling:,} at most" if ceiling else ""
    )


def abort_in_words(criterion: Mapping[str, Any]) -> str:
    """One criterion of abortConfig, told."""
    kind = criterion["failureType"]
    what = "not succeeded" if kind == "ALL" else kind
    return f"{criterion['thresholdPercentage']:g} % {what}, once {criterion['minNumberOfExecutedThings']:,} have ended"
