"""``overair ship --canary 1%,10%,100%``: an update reaches a fleet in stages, each only after the one before has gone well.

AWS has no word for it: its exponential rate grows with time or with successes, and waits for nobody. So the stages are a static
group that grows, and a CONTINUOUS job over it: one job, one count of failures, one thing to watch. The command adds the next
things to the group; everything else is the server's. Whatever happens to the command, nobody gets the update before a stage was
opened for him, and ``overair resume`` goes on where it stopped: what it must know stands in the group.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Final

import typer

from overair.cli.audience import targets_of
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import DATA_DEFAULT, Data, Operator, operator_of, told_plainly
from overair.cli.output import Json
from overair.cli.rollout_bar import Rollout
from overair.cli.uptane_rest import LeftOut, UptaneRest
from overair.cli.watch import ENDED, Follow, Timeout, executions, follow_rollout, job_of, report

GROUP_PREFIX: Final = "canary-"
REASON_CODE: Final = "CANARY_FAILED"
ADDING_THREADS: Final = 8
_STAGE: Final = re.compile(r"([1-9][0-9]{0,5})(%?)")
_FAILED: Final = ("failed", "rejected", "timedOut")


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """In which stages a fleet gets an update, and how much of it may fail."""

    stages: tuple[str, ...]
    """``1%`` of the things, or just so many; the last is ``100%``."""
    tolerated_percent: int | None = None
    """A stage after which so many of all that have ended failed is the last; None: any failure."""

    def sizes(self, total: int) -> list[int]:
        """How many things have been let in after each stage; a stage that would add nobody is left out."""
        found: list[int] = []
        for stage in self.stages:
            size = -(-int(stage[:-1]) * total // 100) if stage.endswith("%") else int(stage)
            size = max(1, min(size, total))
            if not found or size > found[-1]:
                found.append(size)
        return found

    def stops_after(self, rollout: Rollout) -> bool:
        """Whether what has ended so far is too bad for a next stage."""
        failed = sum(int(rollout.answer.get(member, 0)) for member in _FAILED)
        if self.tolerated_percent is None:
            return failed > 0
        return failed > 0 and failed * 100 >= self.tolerated_percent * rollout.ended


def read_canary(text: str, tolerated_percent: int | None) -> Canary:
    """``1%,10%,100%``.

    Raises:
        CommandEnded: USAGE.
    """
    stages = tuple(part.strip() for part in text.split(","))
    parsed = [_STAGE.fullmatch(stage) for stage in stages]
    percents = [int(match[1]) for match in parsed if match is not None and match[2]]
    counts = [int(match[1]) for match in parsed if match is not None and not match[2]]
    rises = percents == sorted(set(percents)) and counts == sorted(set(counts))
    if not all(parsed) or stages[-1] != "100%" or not rises or any(percent > 100 for percent in percents):
        raise CommandEnded(
            ExitCode.USAGE,
            f"--canary {text} isn't understood: say rising shares that end in 100%, as in 1%,10%,100%; N is N things.",
        )
    return Canary(stages=stages, tolerated_percent=tolerated_percent)


def ordered(things: Sequence[str], group: str) -> list[str]:
    """In what order things are let in: mixed, so that a stage isn't all of one batch, and the same whenever it is asked."""
    return sorted(things, key=lambda thing: hashlib.sha256(f"{group}/{thing}".encode()).digest())


def open_first_stage(operator: Operator, canary: Canary, group: str, things: Sequence[str], *, to: str) -> str:
    """Make the group with its first things; its ARN. Nothing is on its way yet."""
    attributes = {"canary": ",".join(canary.stages).replace("%", "_"), "to": to}
    if canary.tolerated_percent is not None:
        attributes["tolerated"] = str(canary.tolerated_percent)
    made = operator.client("iot").create_thing_group(
        thingGroupName=group,
        thingGroupProperties={
            "thingGroupDescription": "Things that a canary rollout has reached; it grows stage by stage.",
            "attributePayload": {"attributes": attributes},
        },
    )
    _let_in(operator, group, ordered(things, group)[: canary.sizes(len(things))[0]])
    return str(made["thingGroupArn"])


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryEnd:
    """What came of the stages."""

    rollout: Rollout
    left_out: tuple[LeftOut, ...]
    stopped: str | None = None
    """Why nobody else gets it; None: everybody was let in."""


def run_stages(
    operator: Operator, job: str, group: str, canary: Canary, things: Sequence[str], *, timeout_s: float, quiet: bool
) -> CanaryEnd:
    """Wait for each stage and open the next, until all are in, or a stage went badly: then the job is cancelled.

    Raises:
        CommandEnded: TIMED_OUT.
    """
    line = ordered(things, group)
    sizes = canary.sizes(len(line))
    inside = _inside(operator, group)
    rest = UptaneRest(operator)
    # A thing that joined the fleet meanwhile may stand before others in the line: nobody is let out again.
    stage = next((number for number, size in enumerate(sizes) if size >= len(inside)), len(sizes) - 1)
    while True:
        note = f" canary: stage {stage + 1} of {len(sizes)}, {sizes[stage]:,} of {len(line):,} devices"
        try:
            rollout = follow_rollout(
                operator,
                job,
                timeout_s=timeout_s,
                quiet=quiet,
                note=note,
                is_over=partial(_is_over, rest=rest, job=job, size=len(inside)),
            )
        except (CommandEnded, KeyboardInterrupt) as end:
            told = end.message if isinstance(end, CommandEnded) else "Stopped."
            code = end.code if isinstance(end, CommandEnded) else ExitCode.TIMED_OUT
            raise CommandEnded(
                code,
                f"{told} Stage {stage + 1} of {len(sizes)} goes on by itself, and nobody else gets it; "
                f"open the next stages with: overair resume {job}",
            ) from None
        so_far = CanaryEnd(rollout=rollout, left_out=rest.left_out(job))
        never = "and nobody else was to get it" if (left := len(set(line) - inside)) == 0 else f"{left:,} things never got it"
        where = f"anary stage {stage + 1} of {len(sizes)}"
        if rollout.answer["status"] in ENDED:
            status = str(rollout.answer["status"]).replace("_", " ")
            return replace(so_far, stopped=f"The job was {status} in c{where}; {never}.") if left else so_far
        if canary.stops_after(rollout):
            stopped = f"C{where} went badly; {never}."
            operator.client("iot").cancel_job(jobId=job, reasonCode=REASON_CODE, comment=stopped)
            return replace(so_far, stopped=stopped)
        if stage == len(sizes) - 1:
            return so_far
        stage += 1
        following = [thing for thing in line if thing not in inside][: sizes[stage] - len(inside)]
        _let_in(operator, group, following)
        inside |= set(following)


def _is_over(rollout: Rollout, *, rest: UptaneRest, job: str, size: int) -> bool:
    """Whether everybody who was let in has ended. Vehicles that the update doesn't fit never have an execution."""
    if rollout.answer["status"] in ENDED:
        return True
    if rollout.open:
        return False
    return rollout.total >= size or rollout.total + len(rest.left_out(job)) >= size


def _inside(operator: Operator, group: str) -> set[str]:
    pages = operator.client("iot").get_paginator("list_things_in_thing_group").paginate(thingGroupName=group)
    return {str(thing) for page in pages for thing in page["things"]}


def _let_in(operator: Operator, group: str, things: Sequence[str]) -> None:
    iot = operator.client("iot")

    def add(thing: str) -> None:
        iot.add_thing_to_thing_group(thingGroupName=group, thingName=thing)

    with ThreadPoolExecutor(ADDING_THREADS) as threads:
        for _ in threads.map(add, things):
            pass


def report_end(job: str, followed: list[Follow], end: CanaryEnd, *, as_json: bool) -> None:
    """As ``report``; one that was stopped hasn't reached everybody, however well it went before."""
    try:
        report(job, followed, as_json=as_json, left_out=end.left_out, rollout=end.rollout)
    except CommandEnded as failed:
        raise CommandEnded(failed.code, " ".join(filter(None, (end.stopped, failed.message)))) from None
    if end.stopped is not None:
        raise CommandEnded(ExitCode.DEVICES_FAILED, end.stopped)


def resume(
    job: Annotated[str, typer.Argument(help="The job, or the OTA update, of a canary rollout.")],
    data: Data = DATA_DEFAULT,
    timeout: Timeout = 3600,
    json: Json = False,
) -> None:
    """Go on with a canary rollout whose command was stopped: wait for its stage, open the next."""
    with told_plainly():
        operator = operator_of(data)
        found = job_of(operator, job)
        group, canary, to = _canary_of(operator, found)
        _, things = targets_of(operator, to, dry_run=True)
        end = run_stages(operator, found, group, canary, things, timeout_s=timeout, quiet=json)
        followed = executions(operator, found)
    report_end(found, followed, end, as_json=json)


def _canary_of(operator: Operator, job: str) -> tuple[str, Canary, str]:
    """(group, stages, whom it is for), as the group has them.

    Raises:
        CommandEnded: REFUSED where the job is no canary rollout.
    """
    iot = operator.client("iot")
    groups = [arn.rsplit("/", 1)[1] for arn in iot.describe_job(jobId=job)["job"]["targets"]]
    attributes: dict[str, Any] = {}
    if len(groups) == 1 and groups[0].startswith(GROUP_PREFIX):
        told = iot.describe_thing_group(thingGroupName=groups[0])
        attributes = told.get("thingGroupProperties", {}).get("attributePayload", {}).get("attributes", {})
    if "canary" not in attributes or "to" not in attributes:
        raise CommandEnded(ExitCode.REFUSED, f"{job} is no canary rollout: it has no stages to open.")
    tolerated = attributes.get("tolerated")
    canary = read_canary(attributes["canary"].replace("_", "%"), None if tolerated is None else int(tolerated))
    return groups[0], canary, attributes["to"]
