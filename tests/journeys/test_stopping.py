"""SIGTERM while clients are in the middle of something: what was begun is finished, then the process ends with 0."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.support.field_device import Device, enroll
from tests.support.server_process import ServerProcess

MIB = 1024 * 1024
STOP_S = 10.0


class SlowFile(io.BytesIO):
    """Bytes that say when half of them were taken and wait for leave to give the rest."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(os.urandom(size_bytes))
        self._half = size_bytes // 2
        self.half_sent = threading.Event()
        self.go_on = threading.Event()
        self.is_armed = False

    def read(self, size: int | None = -1, /) -> bytes:
        if self.is_armed and self.tell() >= self._half and not self.half_sent.is_set():
            self.half_sent.set()
            assert self.go_on.wait(30)
        return super().read(size)


def is_served(server: ServerProcess) -> bool:
    try:
        server.client("sts").get_caller_identity()
    except (ClientError, BotoCoreError):
        return False
    return True


def test_an_upload_that_had_begun_is_taken_whole_and_is_there_after_the_restart(
    new_server: Callable[..., ServerProcess],
) -> None:
    server = new_server().start()
    bucket, body = server.endpoints["bucket"], SlowFile(4 * MIB)
    s3 = server.client("s3", config=Config(retries={"total_max_attempts": 1}, request_checksum_calculation="when_required"))
    answers: list[Any] = []
    body.is_armed = True

    def upload() -> None:
        try:
            answers.append(s3.put_object(Bucket=bucket, Key="slow", Body=body, ContentLength=4 * MIB))
        except (ClientError, BotoCoreError) as error:
            answers.append(error)

    uploading = threading.Thread(target=upload)
    uploading.start()
    assert body.half_sent.wait(30)
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    # New work is turned away as soon as the server has heard it.
    while is_served(server):
        assert time.monotonic() - began < STOP_S
    body.go_on.set()
    uploading.join(30)
    assert isinstance(answers[0], dict), answers
    assert server.process.wait(STOP_S) == 0
    assert time.monotonic() - began < STOP_S
    server.start()
    assert server.client("s3").get_object(Bucket=bucket, Key="slow")["Body"].read() == body.getvalue()


def test_devices_that_are_connected_do_not_hold_the_stop_up_and_find_their_work_again(
    new_server: Callable[..., ServerProcess], tmp_path: Any
) -> None:
    server = new_server().start()
    identity = enroll(server, tmp_path / "device", "patient")
    device = Device(server, identity).connect()
    device.subscribe(device.jobs("notify-next"))
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < STOP_S
    assert device.disconnected.get(timeout=10) is not None
    device.client.loop_stop()
    server.start()
    server.client("iot").create_job(jobId="later", targets=[identity.thing_arn], document="{}")
    with Device(server, identity) as again:
        again.subscribe(again.jobs("$next/get/accepted"), again.jobs("notify-next"))
        again.publish(again.jobs("$next/get"), {})
        assert again.next_message()[0].startswith("$aws/things/patient/jobs/")
