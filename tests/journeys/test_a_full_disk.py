"""A disk without room: what is there goes on being served, what can't be kept is refused with a code, and nothing is harmed."""

from __future__ import annotations

import errno
import resource
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from botocore.exceptions import ClientError

from tests.support.field_device import Device, enroll
from tests.support.server_process import ServerProcess

DISK_SIZE_MIB = 24
WRITES_UNTIL_FULL_MAX = 3_000
"""The log of the records has room of its own for a while."""


class Disk(Protocol):
    folder: Path

    def fill(self, server: ServerProcess) -> None: ...
    def free(self, server: ServerProcess) -> None: ...


@dataclass
class SmallDisk:
    """A file system of its own, filled by a file."""

    folder: Path

    def fill(self, server: ServerProcess) -> None:
        with (self.folder / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self, server: ServerProcess) -> None:
        (self.folder / "filler").unlink()


@dataclass
class FileSizeLimit:
    """No file of the server may grow: the nearest to a full disk that needs no right of its own."""

    folder: Path

    def fill(self, server: ServerProcess) -> None:
        self._limit(server, 4096)

    def free(self, server: ServerProcess) -> None:
        self._limit(server, resource.RLIM_INFINITY)

    @staticmethod
    def _limit(server: ServerProcess, size_bytes: int) -> None:
        assert server.process is not None
        _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))


@pytest.fixture(params=["small disk", "file size limit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "file size limit":
        yield FileSizeLimit(folder)
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE_MIB}m", "none", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not run: mounting a file system needs root")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=20)


def test_a_full_disk_stops_writes_alone_and_they_go_on_when_there_is_room(disk: Disk, tmp_path: Path) -> None:
    server = ServerProcess(disk.folder / "data")
    server._log = tmp_path / "server.log"
    server.start()
    try:
        iot, s3 = server.client("iot"), server.client("s3")
        bucket = server.endpoints["bucket"]
        image = bytes(range(256)) * 512
        version = s3.put_object(Bucket=bucket, Key="image", Body=image)["VersionId"]
        location = {"bucket": bucket, "key": "image", "version": version}
        iot.create_stream(streamId="s", files=[{"fileId": 0, "s3Location": location}], roleArn=server.endpoints["ota_role_arn"])
        who = enroll(server, tmp_path / "device", "dev-1")
        iot.create_job(jobId="j", targets=[who.thing_arn], document="{}")
        device = Device(server, who).connect()
        device.subscribe(device.jobs("#"), f"$aws/things/{who.thing}/streams/s/#")
        assert device.ask(device.jobs("start-next"))["execution"]["status"] == "IN_PROGRESS"

        disk.fill(server)
        kept = write_until_refused(iot)
        # Refused with a code that says to come back, at each door and as often as it is tried.
        for write in (
            lambda: iot.create_thing(thingName="one-more"),
            lambda: iot.create_job(jobId="more", targets=[who.thing_arn], document="{}" + " " * 20_000),
            lambda: s3.put_object(Bucket=bucket, Key="more", Body=bytes(3_000_000)),
        ):
            for _ in range(2):
                assert status_of(write) == 503
        refused = device.ask(device.jobs("j/update"), {"status": "SUCCEEDED", "statusDetails": {"why": "x" * 1000}})
        assert refused["_topic"].endswith("/rejected"), refused
        # What is there is served, to operators and devices.
        assert iot.describe_thing(thingName=who.thing)["thingName"] == who.thing
        assert s3.get_object(Bucket=bucket, Key="image")["Body"].read() == image
        assert device.ask(device.jobs("j/get"))["execution"]["status"] == "IN_PROGRESS"
        topic = f"$aws/things/{who.thing}/streams/s"
        device.publish(f"{topic}/get/json", {"f": 0, "l": 4096, "n": 1})
        assert device.next_message(f"{topic}/data/json")

        disk.free(server)
        assert iot.create_thing(thingName="one-more")["thingName"] == "one-more"
        s3.put_object(Bucket=bucket, Key="more", Body=bytes(3_000_000))
        assert device.ask(device.jobs("j/update"), {"status": "SUCCEEDED"})["_topic"].endswith("/accepted")
        assert iot.describe_job_execution(jobId="j", thingName=who.thing)["execution"]["status"] == "SUCCEEDED"
        device.close()
        server.kill()
        assert not list((server.data / "contents" / "incoming").iterdir()), "a refused upload left its beginning"
        with closing(sqlite3.connect(server.data / "records.sqlite3")) as records:
            assert records.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            names = {name for (name,) in records.execute("SELECT name FROM things")}
        assert {*kept, "one-more", who.thing} == names
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()


def write_until_refused(iot: Any) -> list[str]:
    """The things that were made before the disk was full."""
    made: list[str] = []
    attributes = {"attributes": {f"a{number}": "x" * 700 for number in range(3)}}
    for number in range(WRITES_UNTIL_FULL_MAX):
        name = f"thing-{number}"
        if status_of(lambda name=name: iot.create_thing(thingName=name, attributePayload=attributes)) != 200:  # type: ignore[misc]
            return made
        made.append(name)
    raise AssertionError("the disk never became full")


def status_of(call: Callable[[], Any]) -> int:
    """The HTTP status of an answer."""
    try:
        return int(call()["ResponseMetadata"]["HTTPStatusCode"])
    except ClientError as error:
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
