"""``overair watch``: follow a job until each device is done, drawn as one bar over the fleet."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.listing import print_rows
from overair.cli.operator import DATA_DEFAULT, Data, Operator, operator_of, told_plainly
from overair.cli.output import Json, console, print_json
from overair.cli.rollout_bar import WIDTH, Rollout, lines
from overair.cli.uptane_rest import LeftOut, UptaneRest
from overair.wire.agent_reasons import blocks_received, reason_in_words
from overair.wire.job_document import MalformedDocument, parse

POLL_INTERVAL_S = 0.5
ENDED = frozenset({"COMPLETED", "CANCELED"})
DEVICES_DRAWN_MAX = 8
DEVICES_LISTED_MAX = 20
"""Of a larger fleet only those are listed at the end that didn't take it."""
DETAILED_MAX = 1000
STILL_NAMED_MAX = 10
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
        return blocks_received(self.details)

    @property
    def words(self) -> str:
        """What the device said last, in words, progress included; empty where it said nothing."""
        if not self.what and self.blocks is not None:
            return f"{self.blocks[0]} of {self.blocks[1]} blocks received"
        return self.what

    @property
    def what(self) -> str:
        """The device's last step, its codes told in words."""
        if "self_test" in self.details:
            return f"self-test {self.details['self_test']}"
        if "reason" not in self.details and "correlationId" in self.details:
            return self._uptane
        return reason_in_words(self.details.get("reason", ""), updated_by=self.details.get("updatedBy", ""))

    @property
    def _uptane(self) -> str:
        """What the Director knows of a vehicle that has said nothing in words."""
        ecus = [pair.partition("=")[0] for pair in self.details.get("ecus", "").split(",") if pair]
        if self.status == "SUCCEEDED":
            named = ", ".join(f"{serial[:12]}…" if len(serial) > 16 else serial for serial in ecus)
            return f"installed on {named}" if named else "every ECU shows its target"
        return "it has fetched its targets" if self.status == "IN_PROGRESS" else ""


def executions(operator: Operator, job: str) -> list[Follow]:
    """Every execution of a job by thing name; with its details, of a fleet beyond ``DETAILED_MAX`` of those alone that didn't
    succeed: AWS tells details one by one."""
    iot = operator.client("iot")
    rows = [
        (summary["thingArn"].rsplit("/", 1)[1], summary["jobExecutionSummary"])
        for page in iot.get_paginator("list_job_executions_for_job").paginate(jobId=job)
        for summary in page["executionSummaries"]
    ]
    latest: dict[str, Mapping[str, Any]] = {}
    for thing, summary in rows:
        if thing not in latest or latest[thing]["executionNumber"] < summary["executionNumber"]:
            latest[thing] = summary
    found, asked = [], 0
    for thing, summary in sorted(latest.items()):
        if asked < DETAILED_MAX and (len(latest) <= DETAILED_MAX or summary["status"] != "SUCCEEDED"):
            asked += 1
            execution = iot.describe_job_execution(jobId=job, thingName=thing)["execution"]
            details = execution.get("statusDetails", {}).get("detailsMap", {})
            found.append(Follow(thing=thing, status=execution["status"], details=details))
        else:
            found.append(Follow(thing=thing, status=summary["status"]))
    return found


def rollout_of(operator: Operator, job: str) -> Rollout:
    """Where all of a job's things stand now: one question, however large the fleet is."""
    return Rollout(operator.client("overair").describe_rollout(jobId=job))


def follow(operator: Operator, job: str, *, timeout_s: float, quiet: bool) -> list[Follow]:
    """Follow a job until it has ended for each thing, drawing it unless ``quiet``.

    Raises:
        CommandEnded: TIMED_OUT, with what is still open.
    """
    follow_rollout(operator, job, timeout_s=timeout_s, quiet=quiet)
    return executions(operator, job)


def is_over(rollout: Rollout) -> bool:
    """Whether nothing more will come of a job. One that goes on for whoever joins its group never completes; one at a rate has
    more to come."""
    answer = rollout.answer
    if answer["status"] in ENDED:
        return True
    return answer["targetSelection"] == "CONTINUOUS" and rollout.total > 0 and not rollout.open


def follow_rollout(
    operator: Operator,
    job: str,
    *,
    timeout_s: float,
    quiet: bool,
    is_over: Callable[[Rollout], bool] = is_over,
    note: str = "",
) -> Rollout:
    """Follow a job until ``is_over`` says so, drawing it unless ``quiet``, with ``note`` below.

    Raises:
        CommandEnded: TIMED_OUT, with what is still open.
    """
    began = time.monotonic()
    screen = Console(stderr=True)
    with Live(console=screen, transient=True, auto_refresh=False, screen=False) if not quiet else nullcontext() as live:
        while True:
            rollout = rollout_of(operator, job)
            elapsed_s = time.monotonic() - began
            if live is not None:
                picture = lines(job, rollout, elapsed_s=elapsed_s, width=min(WIDTH, screen.width))
                if 0 < rollout.total <= DEVICES_DRAWN_MAX:
                    picture += [device_line(each) for each in executions(operator, job)]
                live.update(Group(*picture, *([Text(note, no_wrap=True)] if note else [])), refresh=True)
            if is_over(rollout):
                return rollout
            if elapsed_s > timeout_s:
                raise CommandEnded(
                    ExitCode.TIMED_OUT, f"After {timeout_s:g} s job {job} still waits for {_still(operator, job)}."
                )
            time.sleep(POLL_INTERVAL_S)  # the AWS API has no notice for operators: asking again is its only way


def device_line(each: Follow) -> Text:
    """One device of a small fleet, in 80 columns."""
    name = each.thing if len(each.thing) <= 20 else f"{each.thing[:19]}…"
    line = Text(f"  {name:<20} ", no_wrap=True)
    if each.status == "IN_PROGRESS" and each.blocks is not None and "self_test" not in each.details:
        received, total = each.blocks
        done = min(20, received * 20 // total) if total else 0
        line.append("█" * done, "blue").append("░" * (20 - done), "dim").append(f" {received}/{total} blocks")
    else:
        colour = "green" if each.status == "SUCCEEDED" else "default" if each.status not in TERMINAL else "red"
        line.append(f"{each.status:<12}", colour).append(f" {each.what}")
    line.truncate(WIDTH, overflow="ellipsis")
    return line


def _still(operator: Operator, job: str) -> str:
    found = [
        f"{summary['thingArn'].rsplit('/', 1)[1]} ({status})"
        for status in ("IN_PROGRESS", "QUEUED")
        for summary in operator.client("iot").list_job_executions_for_job(jobId=job, status=status, maxResults=STILL_NAMED_MAX)[
            "executionSummaries"
        ]
    ]
    more = rollout_of(operator, job).open - len(found)
    return (", ".join(found) or "no device") + (f" and {more:,} more" if found and more > 0 else "")


def is_unsigned(operator: Operator, job: str) -> bool:
    """Whether a job sends a file that nobody signed; a job of another kind than an OTA update sends none."""
    text = operator.client("iot").get_job_document(jobId=job)["document"]
    try:
        return any(file.signature is None for file in parse(text).files)
    except MalformedDocument:
        return False


def report(
    job: str,
    followed: list[Follow],
    *,
    as_json: bool,
    unsigned: bool = False,
    left_out: Sequence[LeftOut] = (),
    rollout: Rollout | None = None,
) -> None:
    """Print where each device ended, and end with DEVICES_FAILED if one didn't succeed, or if nobody got it at all."""
    counts = Counter(each.status for each in followed)
    failed = [each for each in followed if each.status != "SUCCEEDED"]
    if as_json:
        document = {
            "job": job,
            "unsigned": unsigned,
            "counts": dict(counts),
            "devices": [
                {"thing": each.thing, "status": each.status, "details": dict(each.details), "words": each.words or None}
                for each in followed
            ],
            "left_out": [each.to_json() for each in left_out],
        }
        print_json(document if rollout is None else document | {"rollout": rollout.to_json()})
    else:
        console.print(Text(job, "bold"), soft_wrap=True)
        if unsigned:
            console.print(f"{job} is UNSIGNED: a device that checks signatures refuses it.", soft_wrap=True)
        _print_devices(followed, failed, left_out)
    if failed:
        named = ", ".join(each.thing for each in failed[:10]) + (f" and {len(failed) - 10:,} more" if len(failed) > 10 else "")
        raise CommandEnded(ExitCode.DEVICES_FAILED, f"{len(failed):,} of {len(followed):,} devices didn't take it: {named}")
    if left_out and not followed:
        raise CommandEnded(ExitCode.DEVICES_FAILED, f"Nobody got it: all {len(left_out)} were left out.")


def _print_devices(followed: Sequence[Follow], failed: Sequence[Follow], left_out: Sequence[LeftOut]) -> None:
    """Each device of a small fleet; of a large one those that didn't take it, and the others counted."""
    shown = followed if len(followed) <= DEVICES_LISTED_MAX else failed[:DEVICES_LISTED_MAX]
    rows = [
        (each.thing, Text(each.status, "green" if each.status == "SUCCEEDED" else "red"), Text(each.what)) for each in shown
    ]
    rows += [(each.thing, Text("LEFT OUT", "yellow"), Text(each.reason)) for each in left_out]
    if rows:
        print_rows(("device", "status", "in its own words"), rows)
    if len(followed) > DEVICES_LISTED_MAX:
        done = len(followed) - len(failed)
        more = f"; {len(failed) - len(shown):,} that didn't are not listed" if len(failed) > len(shown) else ""
        console.print(f"{done:,} of {len(followed):,} devices took it{more}.", soft_wrap=True)


def watch(
    update: Annotated[str, typer.Argument(help="An OTA update's id or a job's id.")],
    once: Annotated[bool, typer.Option("--once", help="Say where it stands now, and end.")] = False,
    data: Data = DATA_DEFAULT,
    timeout: Timeout = 3600,
    json: Json = False,
) -> None:
    """Follow an update or a job until each device is done."""
    with told_plainly():
        operator = operator_of(data)
        job = job_of(operator, update)
        if once:
            rollout = rollout_of(operator, job)
            if json:
                print_json({"job": job, "status": rollout.answer["status"], "rollout": rollout.to_json()})
                return
            for line in lines(job, rollout, elapsed_s=None):
                console.print(line)
            return
        unsigned = is_unsigned(operator, job)
        followed = follow(operator, job, timeout_s=timeout, quiet=json)
        left_out = UptaneRest(operator).left_out(job)
        rollout = rollout_of(operator, job)
    report(job, followed, as_json=json, unsigned=unsigned, left_out=left_out, rollout=rollout)


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
