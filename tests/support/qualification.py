"""FreeRTOS's end-to-end qualification as a small world: boards that are real processes, images of every kind, one operator.

A board is a device of the posix platform under ``overair-device boot``; what AWS's test programs do by flashing and by
rebuilding the demo (other version, other block size, wrong Wi-Fi password) is done here by settings and by images.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import secrets
import signal
import ssl
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from overair.agent.device_directory import DeviceSettings, read_settings
from overair.agent.flash import flash, read_status
from overair.agent.image_builder import build_image
from overair.agent.progress import Progress
from overair.cli.device import enroll_device
from overair.cli.operator import operator_of
from overair.wire.blocks import block_count
from overair.wire.image import MAIN_FILE
from overair.wire.job_document import TransferProtocol
from overair.wire.stream_messages import Dialect
from tests.support.device_process import POLL_S, DeviceProcess, wait_until
from tests.support.field_device import Device, Identity
from tests.support.server_process import ServerProcess

HARDWARE: Final = "posix"
FIRST_VERSION: Final = "0.9.0"
"""What AWS's test programs flash before each scenario."""
LARGE_SIZE_BYTES: Final = 8_000_000
"""Of an image whose download is to be met half-way."""
TRUSTED_ANCHOR: Final = "/certificates/signer.pem"
HELD_AFTER_BLOCKS: Final = 130
"""A window of 4 KiB blocks is durable by then, over MQTT and over HTTP."""
END_TIMEOUT_S: Final = 90
ASKING_PAUSE_S: Final = 0.05
PATIENCE_S: Final = 60
"""For an image on trial whose machine is slow."""

Details = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a board gets its files."""

    name: str
    protocol: TransferProtocol
    stream_format: Dialect = Dialect.CBOR

    @property
    def settings(self) -> dict[str, Any]:
        return {"primary_protocol": self.protocol, "stream_format": self.stream_format}


WAYS: Final = {
    way.name: way
    for way in (
        Way(name="cbor", protocol=TransferProtocol.MQTT),
        Way(name="json", protocol=TransferProtocol.MQTT, stream_format=Dialect.JSON),
        Way(name="http", protocol=TransferProtocol.HTTP),
    )
}


def scenario(name: str, *, over: Sequence[str] = tuple(WAYS), briefly: Sequence[str] = ("cbor",)) -> pytest.MarkDecorator:
    """One scenario of the qualification over each way of getting files; those not in ``briefly`` are for ``make test-long``.

    The scenario's own name stands in the test's id: ``pytest -k GreaterVersion`` finds it.
    """
    ways = [pytest.param(WAYS[way], id=f"{name}-{way}", marks=() if way in briefly else (pytest.mark.long,)) for way in over]
    return pytest.mark.parametrize("way", ways)


# Images ---------------------------------------------------------------------------------------------------------------

_NO_NETWORK: Final = """
import socket


def _unreachable(*arguments, **named):
    raise OSError("the network refuses this device")


socket.socket.connect = _unreachable
"""


def image(version: str, *, size_bytes: int = 0, self_test: Any = "pass", hardware_id: str = HARDWARE) -> bytes:
    """An image that runs the agent; ``size_bytes`` gives it weight."""
    return build_image("qualification", version, hardware_id, self_test=self_test, payload=os.urandom(size_bytes))


def image_without_network(version: str) -> bytes:
    """As one that was built with another Wi-Fi's password: it runs, and reaches nobody."""
    return with_main(image(version), lambda main: main.replace("import sys\n", "import sys\n" + _NO_NETWORK, 1))


def with_main(content: bytes, change: Any) -> bytes:
    """The same image with another ``__main__.py``."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry, change(data.decode()).encode() if entry.filename == MAIN_FILE else data)
    return made.getvalue()


def with_one_bit_flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


def later(version: str, steps: int = 1) -> str:
    """The version that comes ``steps`` builds after this one."""
    major, minor, build = version.split(".")
    return f"{major}.{minor}.{int(build) + steps}"


# What must be told ------------------------------------------------------------------------------------------------------


def accepted(new: str, old: str) -> Details:
    """What a new image tells at the end, with the C agent's two blanks."""
    return {"reason": f"accepted  v{new}", "updatedBy": f"  v{old}"}


def refused(reason: str) -> Details:
    return {"reason": reason}


def progress_reports(size_bytes: int, block_size_bytes: int = 4096) -> int:
    """How many updates a whole download makes: after the first block and every 64th (wire reference §7.3)."""
    return 1 + block_count(size_bytes, block_size_bytes) // 64


# The operator -----------------------------------------------------------------------------------------------------------


class Operator:
    """Creates updates as AWS's test programs do: boto3 and nothing else."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.shell = operator_of(server.data)
        """As ``overair`` in a shell of the server's machine."""
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """Kept: to make one costs more than most scenarios."""
        if service not in self._clients:
            self._clients[service] = self.server.client(service)
        return self._clients[service]

    def upload(self, content: bytes) -> dict[str, str]:
        """An object of its own for each image; its bucket, key and version."""
        bucket, key = self.server.endpoints["bucket"], f"qualification/{secrets.token_hex(8)}"
        put = self.client("s3").put_object(Bucket=bucket, Key=key, Body=content)
        return {"bucket": bucket, "key": key, "version": put["VersionId"]}

    def signing(self) -> dict[str, Any]:
        """The server's signer, whose certificate the boards trust."""
        return {"startSigningJobParameter": {"signingProfileName": self.server.endpoints["signing_profile"]}}

    def signing_by(self, certificate: bytes, key: bytes, platform: str) -> dict[str, Any]:
        """Another signer's certificate, imported, under the name that the boards trust."""
        arn = self.client("acm").import_certificate(Certificate=certificate, PrivateKey=key)["CertificateArn"]
        wanted = {"certificateArn": arn, "platform": platform, "certificatePathOnDevice": TRUSTED_ANCHOR}
        profile = f"profile_{secrets.token_hex(6)}"
        return {"startSigningJobParameter": {"signingProfileName": profile, "signingProfileParameter": wanted}}

    def signed_elsewhere(
        self, signature: bytes, *, anchor: str = TRUSTED_ANCHOR, hashing: str = "SHA256", signing: str = "ECDSA"
    ) -> dict[str, Any]:
        """A signature without its certificate: the server can't check it, so the board must."""
        return {
            "customCodeSigning": {
                "signature": {"inlineDocument": signature},
                "certificateChain": {"certificateName": anchor},
                "hashAlgorithm": hashing,
                "signatureAlgorithm": signing,
            }
        }

    def sign(self, content: bytes) -> tuple[str, str]:
        """Have the trusted signer sign these bytes: a finished signing job, and the key of the object that it wrote."""
        signer, stored = self.client("signer"), self.upload(content)
        job = str(
            signer.start_signing_job(
                source={"s3": {"bucketName": stored["bucket"], "key": stored["key"], "version": stored["version"]}},
                destination={"s3": {"bucketName": stored["bucket"], "prefix": "SignedImages/"}},
                profileName=self.server.endpoints["signing_profile"],
            )["jobId"]
        )

        def signed() -> str | None:
            told = signer.describe_signing_job(jobId=job)
            assert told["status"] != "Failed", told
            return str(told["signedObject"]["s3"]["key"]) if told["status"] == "Succeeded" else None

        return job, str(self.asks_until(signed))

    def signature_of(self, content: bytes) -> bytes:
        """What the trusted signer says of these bytes."""
        _, key = self.sign(content)
        signed = self.client("s3").get_object(Bucket=self.server.endpoints["bucket"], Key=key)["Body"].read()
        return base64.b64decode(json.loads(signed)["signature"])

    def asks_until(self, answered: Callable[[], Any]) -> Any:
        """Ask again and again, as AWS's programs do."""
        deadline = time.monotonic() + END_TIMEOUT_S
        while not (answer := answered()):
            assert time.monotonic() < deadline, self.server.log()
            time.sleep(ASKING_PAUSE_S)
        return answer

    def create_update(
        self,
        thing: str,
        content: bytes,
        *,
        protocols: Sequence[str],
        code_signing: Mapping[str, Any],
        file_name: str | None = "firmware",
        file_type: int | None = None,
        url_expires_s: int | None = None,
    ) -> str:
        """An OTA update for one thing; its job."""
        iot, update = self.client("iot"), f"q-{secrets.token_hex(8)}"
        file: dict[str, Any] = {"fileLocation": {"s3Location": self.upload(content)}, "codeSigning": code_signing}
        file |= {} if file_name is None else {"fileName": file_name}
        file |= {} if file_type is None else {"fileType": file_type}
        more: dict[str, Any] = {} if url_expires_s is None else {"awsJobPresignedUrlConfig": {"expiresInSec": url_expires_s}}
        iot.create_ota_update(
            otaUpdateId=update,
            targets=[iot.describe_thing(thingName=thing)["thingArn"]],
            protocols=list(protocols),
            roleArn=self.server.endpoints["ota_role_arn"],
            files=[{name: value for name, value in file.items() if value}],
            **more,
        )

        def created() -> str | None:
            info = iot.get_ota_update(otaUpdateId=update)["otaUpdateInfo"]
            assert info["otaUpdateStatus"] != "CREATE_FAILED", info
            return str(info["awsIotJobId"]) if info["otaUpdateStatus"] == "CREATE_COMPLETE" else None

        return str(self.asks_until(created))

    def blocks_sent(self) -> int:
        """Stream blocks that the server has answered with."""
        return int(self._counted("overair_stream_blocks_total"))

    def ranges_sent(self, status: int = 206) -> int:
        """Ranges of objects that it answered, by status."""
        return int(self._counted("overair_device_requests_total", 'operation="GetObject"', f'status="{status}"'))

    def _counted(self, name: str, *labels: str) -> float:
        context = ssl.create_default_context(cafile=self.server.endpoints["ca_file"])
        with urllib.request.urlopen(f"{self.server.endpoints['operator_url']}/metrics", context=context) as answer:
            lines = answer.read().decode().splitlines()
        matching = (line for line in lines if line.startswith(name) and all(label in line for label in labels))
        return sum(float(line.rsplit(" ", 1)[1]) for line in matching)


# A board ----------------------------------------------------------------------------------------------------------------


class Board(DeviceProcess):
    """A device under test, and what is asserted of it."""

    def __init__(self, operator: Operator, root: Path, way: Way, **settings: Any) -> None:
        super().__init__(operator.server, f"board-{way.name}-{secrets.token_hex(4)}", root)
        self.way = way
        self.operator = operator
        enroll_device(operator.shell, self.name, root, hardware_id=HARDWARE)
        self.change_settings(**({"self_test_timeout_s": PATIENCE_S} | way.settings | settings))
        first = root.with_suffix(".first")
        first.write_bytes(image(FIRST_VERSION))
        flash(self.directory, first, signature=None)
        self.boot()
        wait_until(lambda: self.progress, what=self.log)  # the agent has read its settings

    def execution(self, job: str) -> dict[str, Any]:
        described = self.operator.client("iot").describe_job_execution(jobId=job, thingName=self.name)
        return dict(described["execution"])

    @property
    def settings(self) -> DeviceSettings:
        return read_settings(self.directory)

    def whole_log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def version(self) -> str:
        """Of the image in the active slot."""
        return str(read_status(self.directory).version)

    def send(self, content: bytes, **how: Any) -> str:
        """An update for this board, by its way and signed by the trusted signer unless said otherwise; its job."""
        given = {"protocols": [self.way.protocol.value], "code_signing": self.operator.signing()} | how
        return self.operator.create_update(self.name, content, **given)

    def runs(self, content: bytes, version: str) -> None:
        """The board runs exactly this image, and says so: both the slot and the process."""

        def stands() -> bool:
            status = read_status(self.directory)
            return status.state == "valid" and self.progress is not None and self.progress.version == version

        wait_until(stands, what=self.log)
        status = read_status(self.directory)
        assert (status.version, status.sha256) == (version, hashlib.sha256(content).hexdigest())
        assert status.slot is not None
        assert self.directory.slot_file(status.slot).read_bytes() == content

    def ended(self, job: str, status: str, details: Details, *, updates: int | range) -> None:
        """The execution ended so: its status, its details and nothing more, and as many updates as the C agent makes."""
        execution = self.wait_for_end(job, timeout_s=END_TIMEOUT_S)
        told = (execution["status"], execution["statusDetails"]["detailsMap"])
        assert told == (status, dict(details)), self.log()
        made, expected = execution["versionNumber"] - 1, updates if isinstance(updates, range) else [updates]
        assert made in expected, f"{made} updates, not {updates}"

    def updates_to(self, version: str, **how: Any) -> bytes:
        """Ship a good image and see it run; the image."""
        before, content = self.version, image(version)
        job = self.send(content, **how)
        size = self.settings.block_size_bytes
        self.ended(job, "SUCCEEDED", accepted(version, before), updates=progress_reports(len(content), size) + 3)
        self.runs(content, version)
        return content

    def refuses(self, content: bytes, reason: str, *, fetched: bool = True, **how: Any) -> None:
        """Ship what must not be installed: the execution fails for this reason, and nothing else has changed."""
        before = read_status(self.directory), self.image_pid
        job = self.send(content, **how)
        updates = 1 + (progress_reports(len(content), self.settings.block_size_bytes) if fetched else 0)
        self.ended(job, "FAILED", refused(reason), updates=updates)
        after = read_status(self.directory), self.image_pid
        assert (replace(after[0], job=None), after[1]) == (replace(before[0], job=None), before[1])
        assert not list(self.directory.slots.glob("receiving.*"))

    def rolls_back_from(self, content: bytes, reason: str, *, updates: int | range) -> None:
        """Ship what installs and then fails its trial: the old image runs again, untouched, and tells."""
        before = read_status(self.directory)
        assert before.slot is not None
        old = self.directory.slot_file(before.slot).read_bytes()
        job = self.send(content)
        self.ended(job, "FAILED", refused(reason), updates=updates)
        self.runs(old, str(before.version))
        assert read_status(self.directory).slot == before.slot

    @contextmanager
    def holding_its_next_download(self) -> Iterator[Callable[[], Progress]]:
        """Stop the board's process once the first blocks of its next download are on its disk, until this ends.

        What is yielded waits for that moment. The board is watched from before the update is made: it begins the moment there
        is a job, while whoever made the update is still being told so.
        """
        pid, before = self.image_pid, self.progress
        assert pid is not None
        done = before.last_job if before is not None else None
        over = threading.Event()

        def stop_in_time() -> None:
            while not over.is_set():
                progress = self.progress
                if progress and progress.job not in (None, done) and progress.received_blocks >= HELD_AFTER_BLOCKS:
                    os.kill(pid, signal.SIGSTOP)
                    return
                over.wait(POLL_S)

        def stopped() -> bool:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

        def wait() -> Progress:
            wait_until(stopped, what=self.log)
            job = self.progress.job if self.progress is not None else None
            assert job is not None
            while self.execution(job)["status"] == "QUEUED":
                # Its first report still lies in its own process: it may do one more step.
                os.kill(pid, signal.SIGCONT)
                time.sleep(POLL_S)
                os.kill(pid, signal.SIGSTOP)
                wait_until(stopped, what=self.log)
            progress = self.progress
            assert progress is not None
            assert progress.received_blocks < progress.total_blocks, "the download was over: take a larger image"
            assert self.execution(job)["status"] == "IN_PROGRESS"
            return progress

        watcher = threading.Thread(target=stop_in_time)
        watcher.start()
        try:
            yield wait
        finally:
            over.set()
            watcher.join()
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def is_taken_over(self) -> None:
        """Somebody else connects by the same client id and credentials, which ends the board's connection, and goes."""
        identity = Identity(
            thing=self.name,
            thing_arn="",
            certificate_arn="",
            certificate_id="",
            certificate_file=self.directory.certificate_file,
            key_file=self.directory.private_key_file,
            policy="",
        )
        with Device(self.server, identity):
            pass

    def is_canceled(self, job: str) -> None:
        """The operator force-cancels this board's execution, which keeps what was told of its progress."""
        self.operator.client("iot").cancel_job_execution(jobId=job, thingName=self.name, force=True)
        execution = self.execution(job)
        assert execution["status"] == "CANCELED"
        progress = self.progress
        assert progress is not None
        assert set(execution["statusDetails"]["detailsMap"]) == {"receive"}
        assert execution["statusDetails"]["detailsMap"]["receive"].endswith(f"/{progress.total_blocks}")

    def has_given_up(self) -> None:
        """Whatever was received of a withdrawn update is gone."""
        wait_until(lambda: not list(self.directory.slots.glob("receiving.*")), what=self.log)

    @property
    def healthy(self) -> bool:
        """Fit for another scenario: it runs, on an accepted image, with no work left."""
        running = self.process is not None and self.process.poll() is None
        if not running or read_status(self.directory).state != "valid":
            return False
        executions = self.operator.client("iot").list_job_executions_for_thing(thingName=self.name)["executionSummaries"]
        return all(each["jobExecutionSummary"]["status"] not in ("QUEUED", "IN_PROGRESS") for each in executions)
