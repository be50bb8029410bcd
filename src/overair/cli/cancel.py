"""``overair cancel``: a whole job, or what one thing does of it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import DATA_DEFAULT, Data, operator_of, told_plainly
from overair.cli.output import Json, console, print_json
from overair.cli.watch import job_of


def cancel(
    job: Annotated[str, typer.Argument(help="A job's id, or an OTA update's.")],
    thing: Annotated[str | None, typer.Argument(help="Only for this thing; the job goes on for the others.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Devices that are at it, too: they may be in the middle.")] = False,
    reason_code: Annotated[str | None, typer.Option("--reason-code", help="A word kept with the job.")] = None,
    comment: Annotated[
        str | None, typer.Option("--comment", help="A sentence kept with the job, or with the execution.")
    ] = None,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Cancel a job, or one thing's part in it. Without --force a device that is at it may finish."""
    if thing is not None and reason_code is not None:
        raise CommandEnded(ExitCode.USAGE, "--reason-code is kept with a job; for one thing say --comment.")
    with told_plainly():
        operator = operator_of(data)
        iot = operator.client("iot")
        found = job_of(operator, job)
        if thing is None:
            more = {"reasonCode": reason_code, "comment": comment}
            iot.cancel_job(jobId=found, force=force, **{name: value for name, value in more.items() if value is not None})
            left = iot.describe_job(jobId=found)["job"].get("jobProcessDetails", {}).get("numberOfInProgressThings", 0)
        else:
            details: dict[str, Any] = {} if comment is None else {"statusDetails": {"reason": comment}}
            iot.cancel_job_execution(jobId=found, thingName=thing, force=force, **details)
            left = 0
    if json:
        print_json({"job": found, "thing": thing, "forced": force, "still_in_progress": left})
        return
    if thing is not None:
        console.print(f"{thing} is told to drop {found}; the job goes on for everybody else.", soft_wrap=True)
        return
    console.print(f"{found} is cancelled.", soft_wrap=True)
    if left:
        console.print(f"{left:,} devices are at it and may finish; --force takes it from them, too.", soft_wrap=True)
