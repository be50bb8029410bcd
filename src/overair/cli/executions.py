"""``overair executions``: what each device does with a job, its own words decoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.jobs import LISTED_MAX_DEFAULT, one_of
from overair.cli.listing import for_people, moment, print_rows
from overair.cli.operator import DATA_DEFAULT, Data, Operator, operator_of, told_plainly
from overair.cli.output import Json, console, print_json
from overair.cli.watch import Follow, job_of

STATUSES: Final = ("QUEUED", "IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED", "TIMED_OUT", "CANCELED", "REMOVED")
DETAILED_MAX: Final = 200
"""Lists carry no details in AWS's API: each execution is asked for its own, so far."""

app = typer.Typer(help="What each device does with a job.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def executions() -> None:
    """What each device does with a job."""


def describe(operator: Operator, job: str, thing: str, number: int | None = None) -> Mapping[str, Any]:
    """DescribeJobExecution."""
    asked: dict[str, Any] = {"jobId": job, "thingName": thing}
    if number is not None:
        asked["executionNumber"] = number
    execution: Mapping[str, Any] = operator.client("iot").describe_job_execution(**asked)["execution"]
    return execution


def follow_of(thing: str, execution: Mapping[str, Any]) -> Follow:
    """An execution as DescribeJobExecution tells of it."""
    details = execution.get("statusDetails", {}).get("detailsMap", {})
    return Follow(thing=thing, status=execution["status"], details=details)


@app.command("list")
def list_(
    job: Annotated[str | None, typer.Option(help="Those of this job, or of this OTA update.")] = None,
    thing: Annotated[str | None, typer.Option(help="Those of this thing.")] = None,
    status: Annotated[str | None, typer.Option(help="Only those in this state, as AWS calls it.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = LISTED_MAX_DEFAULT,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """List the executions of a job or of a thing, with what the devices said of them."""
    if (job is None) == (thing is None):
        raise CommandEnded(ExitCode.USAGE, "Say either --job or --thing.")
    word = one_of("--status", status, STATUSES)
    with told_plainly():
        operator = operator_of(data)
        rows = _of_job(operator, job, word, limit) if job is not None else _of_thing(operator, str(thing), word, limit)
        document = [_row(operator, row, detailed=position < DETAILED_MAX) for position, row in enumerate(rows)]
    if json:
        print_json({"executions": document})
        return
    if not document:
        console.print("There is no such execution.")
        return
    member, heading = ("thing", "device") if job is not None else ("job", "job")
    print_rows(
        (heading, "no.", "status", "changed (UTC)", "in its own words"),
        [
            [each[member], str(each["number"]), each["status"], for_people(each["last_updated_at"]), each["words"] or ""]
            for each in document
        ],
    )


@app.command("show")
def show(
    job: Annotated[str, typer.Argument(help="A job's id, or an OTA update's.")],
    thing: Annotated[str, typer.Argument(help="The thing's name.")],
    number: Annotated[int | None, typer.Option(min=1, help="Which attempt. [default: the latest]")] = None,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Show one execution whole."""
    with told_plainly():
        operator = operator_of(data)
        found = job_of(operator, job)
        execution = describe(operator, found, thing, number)
    followed = follow_of(thing, execution)
    document = {
        "job": found,
        "thing": thing,
        "number": execution["executionNumber"],
        "status": execution["status"],
        "version": execution["versionNumber"],
        "force_canceled": bool(execution.get("forceCanceled")),
        "queued_at": moment(execution["queuedAt"]),
        "started_at": moment(execution.get("startedAt")),
        "last_updated_at": moment(execution["lastUpdatedAt"]),
        "seconds_before_timed_out": execution.get("approximateSecondsBeforeTimedOut"),
        "details": dict(followed.details),
        "words": followed.words or None,
    }
    if json:
        print_json(document)
        return
    console.print(f"[bold]{thing}[/bold] at {found}, attempt {document['number']}: {document['status']}", soft_wrap=True)
    for name, value in (
        ("queued", document["queued_at"]),
        ("started", document["started_at"]),
        ("changed", f"{document['last_updated_at']}, version {document['version']}"),
        ("times out", None if (left := document["seconds_before_timed_out"]) is None else f"in {left} s"),
        ("says", document["words"]),
        *((f"  {name}", value) for name, value in followed.details.items()),
    ):
        if value:
            console.print(f"  {name:<10} {escape(str(value))}", soft_wrap=True)


def _of_job(operator: Operator, name: str, status: str | None, limit: int) -> list[dict[str, Any]]:
    job = job_of(operator, name)
    asked = {"jobId": job} | ({"status": status} if status else {})
    pages = operator.client("iot").get_paginator("list_job_executions_for_job")
    return [
        {"job": job, "thing": row["thingArn"].rsplit("/", 1)[1], **row["jobExecutionSummary"]}
        for page in pages.paginate(**asked, PaginationConfig={"MaxItems": limit})
        for row in page["executionSummaries"]
    ]


def _of_thing(operator: Operator, thing: str, status: str | None, limit: int) -> list[dict[str, Any]]:
    asked = {"thingName": thing} | ({"status": status} if status else {})
    pages = operator.client("iot").get_paginator("list_job_executions_for_thing")
    return [
        {"job": row["jobId"], "thing": thing, **row["jobExecutionSummary"]}
        for page in pages.paginate(**asked, PaginationConfig={"MaxItems": limit})
        for row in page["executionSummaries"]
    ]


def _row(operator: Operator, row: Mapping[str, Any], *, detailed: bool) -> dict[str, Any]:
    words = None
    if detailed and row["status"] != "QUEUED":
        execution = describe(operator, row["job"], row["thing"], row["executionNumber"])
        words = follow_of(row["thing"], execution).words or None
    return {
        "job": row["job"],
        "thing": row["thing"],
        "number": row["executionNumber"],
        "status": row["status"],
        "queued_at": moment(row["queuedAt"]),
        "started_at": moment(row.get("startedAt")),
        "last_updated_at": moment(row["lastUpdatedAt"]),
        "words": words,
    }
