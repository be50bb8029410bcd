"""``overair ship --canary`` and ``overair retry`` over a mixed fleet: vehicles count as boards do, and get another attempt by
the Director, boards by the document."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.test_one_way_to_ship import BOTH, World
from tests.support.device_process import wait_until
from tests.support.server_process import ServerProcess, clean_environment


class Fleet(World):
    """Boards that an AWS client speaks for, and vehicles."""

    def board(self, name: str) -> str:
        thing = f"{name}-{self.mark}"
        self.iot.create_thing(thingName=thing)
        self.join(thing)
        return thing

    def board_ends(self, thing: str, status: str) -> None:
        data = self.server.client("iot-jobs-data")
        job = data.start_next_pending_job_execution(thingName=thing)["execution"]["jobId"]
        data.update_job_execution(thingName=thing, jobId=job, status=status, statusDetails={"reason": "by hand"})

    def begin_canary(self, image: Path, stages: str) -> subprocess.Popen[str]:
        words = ["ship", str(image), *BOTH, "--name", f"app-{self.mark}", "--to", f"group:{self.group}"]
        return subprocess.Popen(
            [sys.executable, "-m", "overair.cli.main", *words, "--canary", stages, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(OVERAIR_DATA=str(self.server.data)),
            cwd=self.folder,
        )

    def job(self) -> str:
        """The canary's job, once there is one."""
        for each in self.iot.list_jobs(targetSelection="CONTINUOUS", maxResults=50)["jobs"]:
            group = self.iot.describe_job(jobId=each["jobId"])["job"]["targets"][0].rsplit("/", 1)[1]
            told = self.iot.describe_thing_group(thingGroupName=group)["thingGroupProperties"]
            if told.get("attributePayload", {}).get("attributes", {}).get("to") == f"group:{self.group}":
                return str(each["jobId"])
        return ""

    def executions(self, job: str) -> dict[str, dict[str, Any]]:
        rows = self.iot.list_job_executions_for_job(jobId=job)["executionSummaries"]
        return {row["thingArn"].rsplit("/", 1)[1]: row["jobExecutionSummary"] for row in rows}

    def done(self, process: subprocess.Popen[str], code: int) -> dict[str, Any]:
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, err
        return dict(json.loads(out))


@pytest.fixture
def fleet(server: ServerProcess, tmp_path: Path) -> Fleet:
    return Fleet(server, tmp_path)


def test_a_stage_waits_for_its_vehicles_and_passes_those_that_the_update_does_not_fit(fleet: Fleet) -> None:
    board, car = fleet.board("board"), fleet.vehicle("car")
    stranger = fleet.vehicle("boat", gateway="boat-gw", door="boat-door")
    process = fleet.begin_canary(fleet.image("2.0.0"), "1,2,100%")
    try:
        wait_until(lambda: process.poll() is not None or fleet.job() != "")
        job = fleet.job()
        ended: list[str] = []
        while len(ended) < 2:
            wait_until(lambda: process.poll() is not None or len(fleet.executions(job)) > len(ended))
            (thing,) = fleet.executions(job).keys() - set(ended)
            if thing == board:
                fleet.board_ends(board, "SUCCEEDED")
            else:
                car.round()
                assert fleet.executions(job)[thing]["status"] in {"IN_PROGRESS", "SUCCEEDED"}
                assert car.rounds_until_ended(job)["status"] == "SUCCEEDED"
            ended.append(thing)
        told = fleet.done(process, 0)
    finally:
        process.kill()
    assert told["counts"] == {"SUCCEEDED": 2}
    assert [each["thing"] for each in told["left_out"]] == [stranger.name]
    first, second = (fleet.executions(job)[thing] for thing in ended)
    assert second["queuedAt"] >= first["lastUpdatedAt"], "nobody came in before the stage was over"


def test_what_failed_on_either_road_stops_the_canary_and_gets_another_attempt_on_its_own(fleet: Fleet) -> None:
    installer = fleet.folder / "install"
    installer.write_text("#!/bin/sh\nexit 1\n")
    installer.chmod(0o700)
    board, car = fleet.board("board"), fleet.vehicle("car", "--install-command", shlex.quote(str(installer)))
    process = fleet.begin_canary(fleet.image("2.0.0"), "100%")
    try:
        wait_until(lambda: process.poll() is not None or (fleet.job() and len(fleet.executions(fleet.job())) == 2))
        job = fleet.job()
        fleet.board_ends(board, "FAILED")
        assert car.rounds_until_ended(job)["status"] == "FAILED"
        told = fleet.done(process, 3)
    finally:
        process.kill()
    assert told["counts"] == {"FAILED": 2}
    described = fleet.iot.describe_job(jobId=job)["job"]
    assert (described["status"], described["reasonCode"]) == ("CANCELED", "CANARY_FAILED")

    installer.write_text("#!/bin/sh\nexit 0\n")
    ended = fleet.run("retry", job, "--json")
    assert ended.returncode == 0, ended.stderr
    retried = json.loads(ended.stdout)
    assert {thing: each["status"] for thing, each in retried["things"].items()} == {board: "FAILED", car.name: "FAILED"}
    assert str(installer) in retried["things"][car.name]["words"]
    by_document, by_director = retried["jobs"]
    assert (by_document["things"], by_director["things"]) == ([board], [car.name])
    fleet.board_ends(board, "SUCCEEDED")
    assert fleet.executions(by_document["job"])[board]["status"] == "SUCCEEDED"
    assert car.rounds_until_ended(by_director["job"])["status"] == "SUCCEEDED"
    again = fleet.run("retry", by_director["job"], "--json")
    assert (again.returncode, "Nothing to retry" in again.stderr) == (2, True)
