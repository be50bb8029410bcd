"""A virtual fleet takes updates from a real server, and its operator looks on, retries and cancels: with real certificates."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from overair.agent.device_directory import BadDeviceDirectory
from overair.cli.device_fleet import _allow_connections
from overair.cli.device_main import main as device_main
from overair.cli.ends import CommandEnded, ExitCode
from tests.support.command_line import invoke
from tests.support.device_process import wait_until
from tests.support.server_process import ServerProcess, clean_environment

IMAGE = os.urandom(64 * 1024 + 100)
BLOCKS = 17


@dataclass
class Desk:
    """An operator's commands and a fleet's, against one server."""

    server: ServerProcess
    folder: Path
    name: str
    capture: pytest.CaptureFixture[str]

    def run(self, *arguments: str) -> dict[str, Any]:
        """One command that goes well; its document."""
        result = invoke(*arguments, "--json", "--data", self.server.data)
        assert result.exit_code == 0, (result.exception, result.output)
        return dict(json.loads(result.stdout))

    def words(self, *arguments: str) -> str:
        result = invoke(*arguments, "--data", self.server.data)
        assert result.exit_code == 0, (result.exception, result.output)
        return result.stdout

    def refused(self, *arguments: str) -> CommandEnded:
        """One command that doesn't."""
        result = invoke(*arguments, "--json", "--data", self.server.data)
        assert isinstance(result.exception, CommandEnded), result.output
        return result.exception

    def fleet(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        self.capture.readouterr()
        status = device_main(["fleet", str(self.folder), "--json", *arguments])
        return status, json.loads(self.capture.readouterr().out)

    def ship(self, image: bytes = IMAGE, *more: str) -> str:
        file = self.folder.parent / "image.bin"
        file.write_bytes(image)
        return str(self.run("ship", str(file), "--to", f"group:{self.name}", "--version", "2.0.0", *more)["job"])


@pytest.fixture
def desk(server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[int], Desk]:
    def make(count: int) -> Desk:
        desk = Desk(server=server, folder=tmp_path / "fleet", name=f"sim-{uuid.uuid4().hex[:8]}", capture=capsys)
        made = desk.run("device", "enroll", desk.name, "--count", str(count), "--group", desk.name, "--out", str(desk.folder))
        assert made["things"] == [f"{desk.name}-{number:04}" for number in range(1, count + 1)]
        return desk

    return make


def test_a_fleet_takes_an_update_what_failed_is_told_by_cause_and_tried_again_over_exactly_those(
    desk: Callable[[int], Desk], server: ServerProcess
) -> None:
    here = desk(6)
    assert here.run("device", "enroll", here.name, "--count", "6", "--out", str(here.folder))["made"] == 0
    job = here.ship()
    status, told = here.fleet("--fail-percent", "34", "--window", "4")
    assert (status, told["succeeded"], told["unfinished"]) == (3, 3, 0)
    assert told["failures"] == {"the signature does not verify": 3}
    assert (told["blocks"], told["bytes"], told["connects"]) == (6 * BLOCKS, 6 * len(IMAGE), 6)

    update = server.client("iot").get_ota_update(otaUpdateId=job.removeprefix("AFR_OTA-"))["otaUpdateInfo"]
    assert update["otaUpdateFiles"][0]["fileVersion"] == "2.0.0", "the file says none: it is what the operator calls it"
    answer = server.client("overair").describe_rollout(jobId=job)
    assert (answer["succeeded"], answer["failed"], answer["queued"], answer["status"]) == (3, 3, 0, "COMPLETED")
    assert [cause["count"] for cause in answer["causes"]] == [3]
    assert here.run("watch", job, "--once")["rollout"]["causes"][0]["reason"].startswith(
        "the image's signature does not verify"
    )
    assert "✗ failed 3" in here.words("watch", job, "--once")

    shown = here.run("jobs", "show", job)
    assert (shown["status"], shown["counts"]) == ("COMPLETED", {"succeeded": 3, "failed": 3})
    assert job in [each["job"] for each in here.run("jobs", "list", "--status", "completed", "--group", here.name)["jobs"]]
    failed = here.run("executions", "list", "--job", job, "--status", "FAILED")["executions"]
    first_three = [f"{here.name}-{number:04}" for number in (1, 2, 3)]
    assert [each["thing"] for each in failed] == first_three
    assert all("[0x000000e3: 0x00000000]" in each["words"] for each in failed)
    one = here.run("executions", "show", job, first_three[0])
    assert (one["status"], one["number"], one["words"]) == ("FAILED", 1, failed[0]["words"])
    assert "the image's signature does not verify" in here.words("executions", "show", job, first_three[0])

    planned = here.run("retry", job, "--dry-run")
    assert list(planned["things"]) == first_three
    assert here.refused("executions", "show", planned["jobs"][0]["job"], first_three[0]).code is ExitCode.REFUSED
    again = here.run("retry", job, "--thing", first_three[0], "--thing", first_three[1], "--thing", f"{here.name}-0006")
    assert again["jobs"][0]["things"] == first_three[:2], "only what failed"
    status, told = here.fleet("--count", "2")
    assert (status, told["succeeded"], told["failures"]) == (0, 2, {})
    assert here.run("jobs", "show", again["jobs"][0]["job"])["counts"] == {"succeeded": 2}
    of_thing = here.run("executions", "list", "--thing", first_three[0])["executions"]
    assert [(each["job"], each["status"]) for each in of_thing] == [(again["jobs"][0]["job"], "SUCCEEDED"), (job, "FAILED")]
    assert "Nothing to retry" in here.refused("retry", again["jobs"][0]["job"]).message


def test_a_job_is_cancelled_for_one_thing_and_then_for_all(desk: Callable[[int], Desk], server: ServerProcess) -> None:
    here = desk(3)
    job = here.ship()
    things = [f"{here.name}-{number:04}" for number in (1, 2, 3)]
    assert here.run("cancel", job, things[0], "--comment", "on the bench")["thing"] == things[0]
    assert here.run("executions", "show", job, things[0])["words"] == "on the bench"
    server.client("iot-jobs-data").start_next_pending_job_execution(thingName=things[1])
    refused = here.refused("cancel", job, things[1])
    assert refused.code is ExitCode.REFUSED
    assert "force" in refused.message
    cancelled = here.run("cancel", job, "--reason-code", "WRONG_IMAGE", "--comment", "not this one")
    assert cancelled["still_in_progress"] == 1
    shown = here.run("jobs", "show", job)
    assert (shown["status"], shown["reason_code"], shown["comment"]) == ("CANCELED", "WRONG_IMAGE", "not this one")
    wait_until(lambda: here.run("jobs", "show", job)["counts"] == {"canceled": 2, "in_progress": 1})
    here.run("cancel", job, things[1], "--force")
    assert here.run("executions", "show", job, things[1])["force_canceled"] is True
    retried = here.run("retry", job, "--status", "canceled")
    assert retried["jobs"][0]["things"] == things


def test_ranges_over_https_bring_the_same(desk: Callable[[int], Desk], server: ServerProcess) -> None:
    here = desk(3)
    at = server.endpoints
    uploaded = server.client("s3").put_object(Bucket=at["bucket"], Key=f"{here.name}.bin", Body=IMAGE)
    server.client("iot").create_ota_update(
        otaUpdateId=here.name,
        targets=[f"arn:aws:iot:{at['region']}:{at['account']}:thinggroup/{here.name}"],
        protocols=["HTTP"],
        awsJobPresignedUrlConfig={"expiresInSec": 600},
        files=[
            {
                "fileName": "fw",
                "fileVersion": "1",
                "fileLocation": {
                    "s3Location": {"bucket": at["bucket"], "key": f"{here.name}.bin", "version": uploaded["VersionId"]}
                },
                "codeSigning": {
                    "startSigningJobParameter": {
                        "signingProfileName": at["signing_profile"],
                        "destination": {"s3Destination": {"bucket": at["bucket"], "prefix": "SignedImages/"}},
                    }
                },
            }
        ],
        roleArn=at["ota_role_arn"],
    )
    status, told = here.fleet("--window", "8", "--protocol", "http", "--seconds", "60")
    assert (status, told["succeeded"], told["failures"]) == (0, 3, {})
    assert (told["blocks"], told["requests"], told["repeated_requests"]) == (3 * BLOCKS, 9, 0)


def test_a_fleet_without_an_end_stops_when_it_is_told_and_sums_up(desk: Callable[[int], Desk], server: ServerProcess) -> None:
    here = desk(2)
    fleet = subprocess.Popen(
        [sys.executable, "-m", "overair.cli.device_main", "fleet", str(here.folder), "--jobs", "0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    try:
        job = here.ship()
        wait_until(lambda: here.run("jobs", "show", job)["counts"] == {"succeeded": 2})
        fleet.send_signal(signal.SIGTERM)
        out, _ = fleet.communicate(timeout=60)
    finally:
        fleet.kill()
    assert fleet.returncode == 0
    told = json.loads(out)
    assert (told["devices"], told["succeeded"], told["unfinished"]) == (2, 2, 0)


def test_a_fleet_goes_on_with_what_it_runs_until_it_is_reset(desk: Callable[[int], Desk]) -> None:
    here = desk(2)

    def ship_and_run(version: str, *words: str) -> dict[str, Any]:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("image.json", json.dumps({"name": "app", "version": version, "hardware_id": "posix"}))
            archive.writestr("__main__.py", os.urandom(500))
        file = here.folder.parent / "app.zip"
        file.write_bytes(stream.getvalue())
        job = here.run("ship", str(file), "--to", f"group:{here.name}")["job"]
        here.fleet("--count", "1", *words)
        return dict(here.run("executions", "show", job, f"{here.name}-0001")["details"])

    assert ship_and_run("2.0.0") == {"reason": "accepted  v2.0.0", "updatedBy": "  v1.0.0"}
    assert ship_and_run("3.0.0") == {"reason": "accepted  v3.0.0", "updatedBy": "  v2.0.0"}
    assert ship_and_run("2.0.0") == {"reason": "rejected: 0x0000000f"}
    assert ship_and_run("2.0.0", "--reset") == {"reason": "accepted  v2.0.0", "updatedBy": "  v1.0.0"}


def test_a_folder_without_devices_and_words_that_are_not_known_are_told_plainly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: ServerProcess
) -> None:
    assert device_main(["fleet", str(tmp_path)]) == 2
    assert "overair device enroll NAME --count N" in capsys.readouterr().err
    with pytest.raises(BadDeviceDirectory, match="open files"):
        _allow_connections(10**9)
    desk = Desk(server=server, folder=tmp_path, name="nobody", capture=capsys)
    assert desk.refused("jobs", "list", "--status", "FINISHED").code is ExitCode.USAGE
    assert desk.refused("executions", "list").code is ExitCode.USAGE
    assert desk.refused("executions", "list", "--job", "no-such-job").code is ExitCode.REFUSED
    assert desk.refused("cancel", "no-such-job").code is ExitCode.REFUSED
    assert desk.refused("watch", "no-such-job", "--once").code is ExitCode.REFUSED
