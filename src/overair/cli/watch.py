"""``overair watch``: follow a job until each device is done, with bars while blocks flow."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import DATA_DEFAULT, Data, Operator, operator_of, told_plainly
from overair.cli.output import Json, console, print_json
from overair.cli.uptane_rest import LeftOut, UptaneRest
from overair.wire.agent_reasons import reason_in_words
from overair.wire.job_document import MalformedDocument, parse

POLL_INTERVAL_S = 0.5
TERMINAL = frozenset({"SUCCEEDED", "FAILED", "REJECTED", "TIMED_OUT", "CANCELED", "REMOVED"})

Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait before giving up with code 4.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """Where one device stands."""

    thing: str
    status: str
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def blocks(self) -> tuple[int, int] | None:
        """(received, total), where the device has said so: ``receive`` reads ``64/256``."""
        match = re.fullmatch(r"(\d+)/(\d+)", self.details.get("receive", ""))
        return (int(match[1]), int(match[2])) if match else None

    @property
    def what(self) -> str:
        """The device's last step, its codes told in words."""
        if "self_test" in self.details:
            return f"self-test {self.details['self_test']}"
        if "reason" not in self.details and "correlationId" in self.details:
            return self._uptane
        return reason_in_words(self.details.get("reason", ""))

    @property
    def _uptane(self) -> str:
        """What the Director knows of a vehicle that has said nothing in words."""
        ecus = [pair.partition("=")[0] for pair in self.details.get("ecus", "").split(",") if pair]
        if self.status == "SUCCEEDED":
            named = ", ".join(f"{serial[:12]}…" if len(serial) > 16 else serial for serial in ecus)
            return f"installed on {named}" if named else "every ECU shows its target"
        return "it has fetched its targets" if self.status == "IN_PROGRESS" else ""


def executions(operator: Operator, job: str) -> list[Follow]:
    """Every execution of a job with its details, by thing name."""
    iot = operator.client("iot")
    found: list[Follow] = []
    for page in iot.get_paginator("list_job_executions_for_job").paginate(jobId=job):
        for summary in page["executionSummaries"]:
            thing = summary["thingArn"].rsplit("/", 1)[1]
            execution = iot.describe_job_execution(jobId=job, thingName=thing)["execution"]
            found.append(
                Follow(
                    thing=thing,
                    status=execution["status"],
                    details=execution.get("statusDetails", {}).get("detailsMap", {}),
                )
            )
    return sorted(found, key=lambda follow: follow.thing)


def follow(operator: Operator, job: str, *, timeout_s: float, quiet: bool) -> list[Follow]:
    """Follow a job until it has ended for each thing, drawing bars unless ``quiet``.

    Raises:
        CommandEnded: TIMED_OUT, with what is still open.
    """
    deadline = time.monotonic() + timeout_s
    iot = operator.client("iot")
    with Progress(
        TextColumn("{task.fields[thing]:<20}"),
        BarColumn(bar_width=32),
        TextColumn("{task.fields[blocks]:>11} {task.fields[status]:<12} {task.fields[what]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=quiet,
        transient=True,
    ) as progress:
        bars: dict[str, TaskID] = {}
        while True:
            now = executions(operator, job)
            for each in now:
                bar = bars.get(each.thing)
                if bar is None:
                    bar = bars[each.thing] = progress.add_task("", total=None, thing=each.thing, blocks="", status="", what="")
                received, total = each.blocks or (None, None)
                done = each.status in TERMINAL
                progress.update(
                    bar,
                    total=1 if done else total,
                    completed=1 if done else received,
                    blocks=f"{received}/{total}" if total else "",
                    status=each.status,
                    what=each.what,
                )
            described = iot.describe_job(jobId=job)["job"]
            if described["status"] in {"COMPLETED", "CANCELED"}:
                return executions(operator, job)
            # A job that goes on for whoever joins its group never completes; one at a rate has more to come.
            if described["targetSelection"] == "CONTINUOUS" and now and all(each.status in TERMINAL for each in now):
                return now
            if time.monotonic() > deadline:
                still = ", ".join(f"{each.thing} ({each.status})" for each in now if each.status not in TERMINAL) or "no device"
                raise CommandEnded(ExitCode.TIMED_OUT, f"After {timeout_s:g} s job {job} still waits for {still}.")
            time.sleep(POLL_INTERVAL_S)  # the AWS API has no notice for operators: asking again is its only way


def is_unsigned(operator: Operator, job: str) -> bool:
    """Whether a job sends a file that nobody signed; a job of another kind than an OTA update sends none."""
    text = operator.client("iot").get_job_document(jobId=job)["document"]
    try:
        return any(file.signature is None for file in parse(text).files)
    except MalformedDocument:
        return False


def report(
    job: str, followed: list[Follow], *, as_json: bool, unsigned: bool = False, left_out: Sequence[LeftOut] = ()
) -> None:
    """Print where each device ended, and end with DEVICES_FAILED if one didn't succeed, or if nobody got it at all."""
    counts = Counter(each.status for each in followed)
    if as_json:
        print_json(
            {
                "job": job,
                "unsigned": unsigned,
                "counts": dict(counts),
                "devices": [{"thing": each.thing, "status": each.status, "details": dict(each.details)} for each in followed],
                "left_out": [each.to_json() for each in left_out],
            }
        )
    else:
        if unsigned:
            console.print(f"{job} is UNSIGNED: a device that checks signatures refuses it.", soft_wrap=True)
        table = Table("device", "status", "in its own words")
        for each in followed:
            colour = "green" if each.status == "SUCCEEDED" else "red"
            table.add_row(each.thing, f"[{colour}]{each.status}[/{colour}]", escape(each.what))
        for each_left in left_out:
            table.add_row(each_left.thing, "[yellow]LEFT OUT[/yellow]", escape(each_left.reason))
        console.print(table)
    failed = [each.thing for each in followed if each.status != "SUCCEEDED"]
    if failed:
        raise CommandEnded(
            ExitCode.DEVICES_FAILED, f"{len(failed)} of {len(followed)} devices didn't take it: {', '.join(failed[:10])}"
        )
    if left_out and not followed:
        raise CommandEnded(ExitCode.DEVICES_FAILED, f"Nobody got it: all {len(left_out)} were left out.")


def watch(
    update: Annotated[str, typer.Argument(help="An OTA update's id or a job's id.")],
    data: Data = DATA_DEFAULT,
    timeout: Timeout = 3600,
    json: Json = False,
) -> None:
    """Follow an update or a job until each device is done."""
    with told_plainly():
        operator = operator_of(data)
        job = job_of(operator, update)
        unsigned = is_unsigned(operator, job)
        followed = follow(operator, job, timeout_s=timeout, quiet=json)
        left_out = UptaneRest(operator).left_out(job)
    report(job, followed, as_json=json, unsigned=unsigned, left_out=left_out)


def job_of(operator: Operator, name: str) -> str:
    """The job that a name means: the job of that id, else the job of the OTA update of that id."""
    iot = operator.client("iot")
    try:
        iot.describe_job(jobId=name[:64])
        return name
    except iot.exceptions.ResourceNotFoundException:
        info: dict[str, Any] = iot.get_ota_update(otaUpdateId=name)["otaUpdateInfo"]
        if info["otaUpdateStatus"] == "CREATE_FAILED":
            raise CommandEnded(
                ExitCode.REFUSED, f"{name} was not created: {info.get('errorInfo', {}).get('message', 'no reason kept')}"
            ) from None
        return str(info["awsIotJobId"])
