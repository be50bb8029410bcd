"""Our agent against the real server: killed during a download, separate from its boot loader, back from bad images."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overair.agent.image_builder import build_image
from overair.agent.progress import Progress
from tests.support.device_process import DeviceProcess, wait_for_death, wait_until
from tests.support.server_process import ServerProcess

HARDWARE = "posix"
BLOCK_SIZE_BYTES = 4096
WINDOW_BLOCKS = 32


def image(version: str, *, size_bytes: int = 0, self_test: str = "pass") -> bytes:
    return build_image("journey", version, HARDWARE, self_test=self_test, payload=os.urandom(size_bytes))  # type: ignore[arg-type]


@pytest.fixture
def new_device(server: ServerProcess, tmp_path: Path) -> Iterator[Callable[..., DeviceProcess]]:
    """Enrolled, flashed with 1.0.0 and booted, with other settings where they are given; stopped at the end."""
    made: list[DeviceProcess] = []

    def make(name: str, **settings: Any) -> DeviceProcess:
        device = DeviceProcess(server, name, tmp_path / name)
        made.append(device)
        return device.enroll(image("1.0.0")).change_settings(**settings).boot()

    yield make
    for device in made:
        device.stop()


@pytest.mark.parametrize(("kills", "size_bytes"), [(5, 12_000_000), pytest.param(20, 40_000_000, marks=pytest.mark.long)])
def test_an_agent_killed_again_and_again_during_one_download_installs_the_image(
    new_device: Callable[..., DeviceProcess], kills: int, size_bytes: int
) -> None:
    device = new_device(f"survivor-{kills}")
    shipped = image("2.0.0", size_bytes=size_bytes)
    total = -(-len(shipped) // BLOCK_SIZE_BYTES)
    job = device.ship(shipped)
    for number in range(1, kills + 1):
        wanted = total * number // (kills + 2)

        def far_enough(wanted: int = wanted) -> Progress | None:
            progress = device.progress
            return progress if progress is not None and progress.job == job and progress.received_blocks >= wanted else None

        reached = wait_until(far_enough, what=device.log)
        assert reached.received_blocks < total, "the download was over before it could be killed: take a larger image"
        device.kill_image()
        on_disk = reached.received_blocks // WINDOW_BLOCKS * WINDOW_BLOCKS

        def resumed(before: int = on_disk) -> bool:
            progress = device.progress
            return progress is not None and progress.resumed_blocks >= before > 0

        wait_until(resumed, what=device.log)
    execution = device.wait_for_end(job)
    assert execution["status"] == "SUCCEEDED", device.log()
    assert execution["statusDetails"]["detailsMap"]["reason"] == "accepted  v2.0.0"
    status = device.status()
    assert (status["version"], status["state"], status["sha256"]) == ("2.0.0", "valid", hashlib.sha256(shipped).hexdigest())
    assert device.directory.slot_file(status["slot"]).read_bytes() == shipped


def test_agent_boot_loader_and_image_are_really_separate(new_device: Callable[..., DeviceProcess]) -> None:
    device = new_device("separate")
    assert device.process is not None
    seen = {}
    for version, shipped in (("1.0.0", None), ("2.0.0", image("2.0.0"))):
        if shipped is not None:
            job = device.ship(shipped)
            assert device.wait_for_end(job)["status"] == "SUCCEEDED", device.log()
        pid, status = device.image_pid, device.status()
        slot_file = device.directory.slot_file(status["slot"])
        command_line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\x00")
        assert status["version"] == version
        assert str(slot_file).encode() in command_line
        assert hashlib.sha256(slot_file.read_bytes()).hexdigest() == status["sha256"]
        assert pid != device.process.pid
        parent = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("PPid:")]
        assert parent == [f"PPid:\t{device.process.pid}"]
        seen[version] = (pid, status["slot"], status["sha256"])
    assert all(before != after for before, after in zip(seen["1.0.0"], seen["2.0.0"], strict=True))
    wait_for_death(seen["1.0.0"][0])
    assert device.process.poll() is None, "the boot loader is the same process throughout"


@pytest.mark.parametrize("self_test", ["crash", "fail", "hang"])
def test_an_image_that_fails_its_self_test_is_rolled_back_and_reported(
    new_device: Callable[..., DeviceProcess], self_test: str
) -> None:
    device = new_device(f"rolled-back-{self_test}")
    device.stop()
    device.change_settings(self_test_timeout_s=3 if self_test == "hang" else 30).boot()
    before = device.status()
    job = device.ship(image("3.0.0", self_test=self_test))
    execution = device.wait_for_end(job)
    assert execution["status"] == "FAILED"
    reason = "rejected: 0x00000000" if self_test == "fail" else "rejected: 0x00000011"
    assert execution["statusDetails"]["detailsMap"] == {"reason": reason}
    wait_until(lambda: (device.progress or Progress(state="", version="")).version == "1.0.0", what=device.log)
    after = device.status()
    assert (after["slot"], after["version"], after["sha256"]) == (before["slot"], "1.0.0", before["sha256"])
    second = device.ship(image("3.0.1"))
    assert device.wait_for_end(second)["status"] == "SUCCEEDED", device.log()


def test_any_file_is_verified_and_stored_and_nothing_restarts(new_device: Callable[..., DeviceProcess]) -> None:
    device = new_device("any-file")
    pid = device.image_pid
    content = os.urandom(300_000)
    job = device.ship(content, "--as", "models/voice.bin")
    execution = device.wait_for_end(job)
    assert execution["status"] == "SUCCEEDED", device.log()
    assert execution["statusDetails"]["detailsMap"]["reason"] == "accepted  v0.0.1"
    assert (device.directory.files / "models/voice.bin").read_bytes() == content
    assert device.image_pid == pid


def test_a_version_that_does_not_rise_is_refused_by_the_device(new_device: Callable[..., DeviceProcess]) -> None:
    device = new_device("no-downgrade")
    job = device.ship(image("0.9.0"))
    execution = device.wait_for_end(job)
    assert (execution["status"], execution["statusDetails"]["detailsMap"]) == ("FAILED", {"reason": "rejected: 0x0000000f"})
    assert device.status()["version"] == "1.0.0"


def test_an_image_travels_by_presigned_url_over_https(server: ServerProcess, new_device: Callable[..., DeviceProcess]) -> None:
    device = new_device("by-url")
    shipped = image("2.0.0", size_bytes=500_000)
    iot, bucket = server.client("iot"), server.endpoints["bucket"]
    put = server.client("s3").put_object(Bucket=bucket, Key="by-url.zip", Body=shipped)
    signing = {
        "signingProfileName": server.endpoints["signing_profile"],
        "destination": {"s3Destination": {"bucket": bucket, "prefix": "SignedImages/"}},
    }
    iot.create_ota_update(
        otaUpdateId="by-url",
        targets=[iot.describe_thing(thingName="by-url")["thingArn"]],
        protocols=["HTTP"],
        roleArn=server.endpoints["ota_role_arn"],
        files=[
            {
                "fileName": "firmware",
                "fileType": 0,
                "fileLocation": {"s3Location": {"bucket": bucket, "key": "by-url.zip", "version": put["VersionId"]}},
                "codeSigning": {"startSigningJobParameter": signing},
            }
        ],
    )

    def created() -> str | None:
        info = iot.get_ota_update(otaUpdateId="by-url")["otaUpdateInfo"]
        assert info["otaUpdateStatus"] != "CREATE_FAILED", info
        return str(info["awsIotJobId"]) if info["otaUpdateStatus"] == "CREATE_COMPLETE" else None

    execution = device.wait_for_end(wait_until(created, what=server.log))
    assert execution["status"] == "SUCCEEDED", (execution, device.log())
    assert device.status()["sha256"] == hashlib.sha256(shipped).hexdigest()


@pytest.mark.parametrize("how", ["cancel_job", "delete_ota_update"])
def test_work_that_is_withdrawn_during_its_download_leaves_nothing_and_the_next_is_done(
    server: ServerProcess, new_device: Callable[..., DeviceProcess], how: str
) -> None:
    # Small blocks, so that the download goes on while the operator speaks.
    device, iot = new_device(f"withdrawn-{how}", block_size_bytes=512), server.client("iot")
    job = device.ship(image("2.0.0", size_bytes=30_000_000))

    def under_way() -> bool:
        progress = device.progress
        return progress is not None and progress.job == job and progress.received_blocks >= WINDOW_BLOCKS

    wait_until(under_way, what=device.log)
    assert device.execution(job)["status"] == "IN_PROGRESS"
    if how == "cancel_job":
        iot.cancel_job(jobId=job, force=True)
        assert device.execution(job)["status"] == "CANCELED"
    else:
        iot.delete_ota_update(otaUpdateId=job.removeprefix("AFR_OTA-"), deleteStream=True, forceDeleteAWSJob=True)
    wait_until(lambda: not list(device.directory.slots.glob("receiving.*")), what=device.log)
    assert device.status()["version"] == "1.0.0"
    second = device.ship(image("2.0.1"))
    assert device.wait_for_end(second)["status"] == "SUCCEEDED", device.log()
    assert device.status()["version"] == "2.0.1"


def test_a_server_killed_during_a_download_is_waited_for_and_the_download_goes_on(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    server = new_server("--mqtt-port", str(port)).start()
    device = DeviceProcess(server, "patient", tmp_path / "patient").enroll(image("1.0.0")).boot()
    try:
        shipped = image("2.0.0", size_bytes=12_000_000)
        job = device.ship(shipped)
        total = -(-len(shipped) // BLOCK_SIZE_BYTES)

        def a_third() -> bool:
            progress = device.progress
            return progress is not None and progress.received_blocks >= total // 3

        wait_until(a_third, what=device.log)
        server.kill()
        pid = device.image_pid
        server.start()
        execution = device.wait_for_end(job, timeout_s=90)
        assert execution["status"] == "SUCCEEDED", device.log()
        assert device.image_pid != pid
        assert device.status()["sha256"] == hashlib.sha256(shipped).hexdigest()
    finally:
        device.stop()
