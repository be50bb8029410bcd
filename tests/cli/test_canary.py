"""``overair ship --canary``: stages that open one after another, stop where one goes badly, and go on after an interruption."""

from __future__ import annotations

import json
import os
import re
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.cli.canary import Canary, CanaryEnd, ordered, read_canary, report_end
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.rollout_bar import Rollout
from overair.cli.watch import Follow
from tests.support.device_process import wait_until
from tests.support.server_process import ServerProcess, clean_environment, overair
from tests.support.warm_process import WarmProcess


def rollout(**counts: int) -> Rollout:
    return Rollout({"status": "IN_PROGRESS", **counts})


def test_shares_are_rounded_up_and_stages_that_add_nobody_are_left_out() -> None:
    canary = read_canary("1%,10%,100%", None)
    assert canary.sizes(1000) == [10, 100, 1000]
    assert canary.sizes(12) == [1, 2, 12]
    assert canary.sizes(1) == [1]
    assert read_canary("5,50%,100%", None).sizes(40) == [5, 20, 40]


@given(total=st.integers(1, 100_000), first=st.integers(1, 99))
def test_stages_rise_begin_with_somebody_and_end_with_everybody(total: int, first: int) -> None:
    sizes = Canary(stages=(f"{first}%", "100%")).sizes(total)
    assert sizes[0] >= 1
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == total


@pytest.mark.parametrize("text", ["", "1%", "10%,1%,100%", "1%,1%,100%", "0%,100%", "1%,200%", "a,100%", "100%,5"])
def test_stages_that_do_not_rise_to_the_whole_are_usage_errors(text: str) -> None:
    with pytest.raises(CommandEnded):
        read_canary(text, None)


def test_any_failure_stops_a_stage_unless_a_share_is_tolerated() -> None:
    strict, patient = Canary(stages=("100%",)), Canary(stages=("100%",), tolerated_percent=5)
    assert not strict.stops_after(rollout(succeeded=100, canceled=3))
    assert strict.stops_after(rollout(succeeded=99, timedOut=1))
    assert not patient.stops_after(rollout(succeeded=97, failed=3))
    assert patient.stops_after(rollout(succeeded=95, failed=3, rejected=2))


def test_the_line_is_mixed_and_the_same_whenever_it_is_asked() -> None:
    things = [f"t-{number:03}" for number in range(100)]
    line = ordered(things, "canary-a")
    assert line == ordered(list(reversed(things)), "canary-a")
    assert sorted(line) == things
    assert line != things
    assert line != ordered(things, "canary-b")


@pytest.mark.parametrize(("status", "words"), [("SUCCEEDED", "in canary stage 1"), ("FAILED", "never got it. 1 of 1 devices")])
def test_a_canary_that_was_stopped_is_no_success_however_well_it_went_before(status: str, words: str) -> None:
    stopped = "The job was CANCELED in canary stage 1 of 3; 46 things never got it."
    end = CanaryEnd(rollout=rollout(), left_out=(), stopped=stopped)
    with pytest.raises(CommandEnded, match=words) as ended:
        report_end("job", [Follow(thing="a", status=status)], end, as_json=False)
    assert ended.value.code is ExitCode.DEVICES_FAILED
    assert ended.value.message.startswith(stopped)
    if status == "SUCCEEDED":
        report_end("job", [Follow(thing="a", status=status)], CanaryEnd(rollout=rollout(), left_out=()), as_json=False)


class Road:
    """A fleet of ten on a real server, and the commands."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.name = f"flock-{uuid.uuid4().hex[:8]}"
        self.run("device", "enroll", self.name, "--count", "10", "--group", self.name, "--out", str(folder / "fleet"))
        (folder / "image.bin").write_bytes(os.urandom(20_000))

    def flags(self) -> list[str]:
        return ["--json", "--data", str(self.server.data)]

    def run(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        done = overair(*arguments, *self.flags())
        assert done.returncode == code, done.stderr
        return dict(json.loads(done.stdout)) if done.stdout else {"error": done.stderr}

    def ship(self, *more: str) -> list[str]:
        return ["ship", str(self.folder / "image.bin"), "--to", f"group:{self.name}", "--version", "2.0.0", *more]

    def fleet(self, *more: str) -> WarmProcess:
        arguments = ["fleet", str(self.folder / "fleet"), "--jobs", "0", *more]
        devnull = subprocess.DEVNULL
        return WarmProcess("overair.cli.device_main", arguments, environment=clean_environment(), stdout=devnull)

    def job(self) -> str:
        listed = self.server.client("iot").list_jobs(maxResults=250, targetSelection="CONTINUOUS")["jobs"]
        for each in listed:
            targets = self.server.client("iot").describe_job(jobId=each["jobId"])["job"]["targets"]
            group = targets[0].rsplit("/", 1)[1]
            told = self.server.client("iot").describe_thing_group(thingGroupName=group)
            attributes = told["thingGroupProperties"].get("attributePayload", {}).get("attributes", {})
            if attributes.get("to") == f"group:{self.name}":
                return str(each["jobId"])
        return ""

    def reached(self) -> int:
        details = self.server.client("iot").describe_job(jobId=self.job())["job"]["jobProcessDetails"]
        return sum(count for name, count in details.items() if name.startswith("numberOf"))


@pytest.fixture
def road(server: ServerProcess, tmp_path: Path) -> Road:
    return Road(server, tmp_path)


@pytest.mark.long
def test_each_stage_waits_for_the_one_before_and_everybody_is_reached(road: Road) -> None:
    planned = road.run(*road.ship("--canary", "10%,50%,100%", "--dry-run"))
    assert planned["canary"] == {"stages": ["10%", "50%", "100%"], "things": [1, 5, 10]}
    fleet = road.fleet()
    try:
        told = road.run(*road.ship("--canary", "10%,50%,100%", "--rate", "1000/min"))
    finally:
        fleet.terminate()
        fleet.wait(30)
    assert told["counts"] == {"SUCCEEDED": 10}
    queued = sorted(
        summary["jobExecutionSummary"]["queuedAt"]
        for summary in road.server.client("iot").list_job_executions_for_job(jobId=told["job"])["executionSummaries"]
    )
    assert queued[0] < queued[1], "the first went alone"


def test_a_stage_that_goes_badly_is_the_last(road: Road) -> None:
    fleet = road.fleet("--fail-percent", "100")
    try:
        told = road.run(*road.ship("--canary", "20%,100%"), code=3)
    finally:
        fleet.terminate()
        fleet.wait(30)
    assert told["counts"] == {"FAILED": 2}, "eight never got it"
    shown = road.run("jobs", "show", told["job"])
    assert (shown["status"], shown["reason_code"]) == ("CANCELED", "CANARY_FAILED")
    assert "8 things never got it" in shown["comment"]


def finish(road: Road) -> None:
    """The first stage ends, nobody else gets it, and ``resume`` lets the others in."""
    fleet = road.fleet()
    try:
        job = road.job()
        wait_until(lambda: road.run("jobs", "show", job)["counts"] == {"succeeded": 3})
        assert road.reached() == 3
        told = road.run("resume", job)
    finally:
        fleet.terminate()
        fleet.wait(30)
    assert told["counts"] == {"SUCCEEDED": 10}


def test_a_stage_that_takes_too_long_goes_on_by_itself_and_resume_opens_the_next(road: Road) -> None:
    late = road.run(*road.ship("--canary", "30%,100%", "--timeout", "1"), code=4)
    assert re.search(r"Stage 1 of 2 goes on by itself.*overair resume AFR_OTA-", late["error"])
    finish(road)
    plain = road.run(*road.ship())
    assert "no canary rollout" in road.run("resume", plain["job"], code=2)["error"]


@pytest.mark.long
def test_a_command_that_was_killed_leaves_its_stage_and_resume_opens_the_next(road: Road) -> None:
    arguments = [*road.ship("--canary", "30%,100%"), *road.flags()]
    stopped = WarmProcess("overair.cli.main", arguments, environment=clean_environment(), stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: road.job() and road.reached() == 3)
    finally:
        stopped.kill()
        stopped.wait(30)
    finish(road)
