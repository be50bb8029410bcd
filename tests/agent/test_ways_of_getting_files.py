"""By which protocol and in which format a device's files come is its own choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from overair.agent.device_directory import BadDeviceDirectory, read_settings, write_settings
from overair.agent.sources import StreamSource
from overair.agent.states import Event
from overair.agent.update_job import UpdateJob, read_job
from overair.wire.job_document import OtaDocument, TransferProtocol, build
from overair.wire.stream_messages import Dialect
from tests.support.device import Signer, cached_image, make_device
from tests.support.fake_cloud import FakeCloud
from tests.support.machine import Machine

MQTT, HTTP = TransferProtocol.MQTT, TransferProtocol.HTTP


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


def reply(signer: Signer, *protocols: TransferProtocol) -> bytes:
    file = signer.file(b"image", url="https://server/1", auth_scheme="aws.s3.presigned")
    document = json.loads(build(OtaDocument(protocols=protocols, files=(file,), stream_name="stream")))
    times = {"queuedAt": 1, "lastUpdatedAt": 1, "versionNumber": 1, "executionNumber": 1}
    return json.dumps(
        {"timestamp": 1, "execution": {"jobId": "job", "status": "QUEUED", "jobDocument": document, **times}}
    ).encode()


@pytest.mark.parametrize(
    ("offered", "primary", "over_mqtt"),
    [
        ((MQTT, HTTP), MQTT, True),
        ((HTTP, MQTT), MQTT, True),
        ((MQTT, HTTP), HTTP, False),
        ((HTTP, MQTT), HTTP, False),
        ((MQTT,), HTTP, True),
        ((HTTP,), MQTT, False),
    ],
)
def test_of_two_protocols_the_primary_one_is_taken_and_of_one_that_one(
    signer: Signer, offered: tuple[TransferProtocol, ...], primary: TransferProtocol, over_mqtt: bool
) -> None:
    job = read_job(reply(signer, *offered), primary)
    assert isinstance(job, UpdateJob)
    assert (job.stream_name is not None) is over_mqtt


@pytest.mark.parametrize("dialect", [Dialect.CBOR, Dialect.JSON])
def test_a_stream_is_asked_and_heard_in_one_format_only(dialect: Dialect) -> None:
    cloud = FakeCloud()
    source = StreamSource(cloud, thing="dev-1", stream="s", dialect=dialect)
    source.open()
    base = "$aws/things/dev-1/streams/s"
    assert cloud.subscriptions == {f"{base}/data/{dialect.value}", f"{base}/rejected/{dialect.value}"}
    other = "json" if dialect is Dialect.CBOR else "cbor"
    assert source.meaning(f"{base}/data/{dialect.value}") is Event.RECEIVED_FILE_BLOCK
    assert source.meaning(f"{base}/rejected/{dialect.value}") is Event.STREAM_REFUSED
    assert source.meaning(f"{base}/data/{other}") is None


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"primary_protocol": HTTP, "stream_format": Dialect.JSON},
        {"request_timeout_s": 2, "self_test_response_timeout_s": 3600},
    ],
)
def test_what_a_device_says_of_itself_is_read_as_it_was_written(
    tmp_path: Path, signer: Signer, changes: dict[str, Any]
) -> None:
    directory, settings = make_device(tmp_path / "d", signer, **changes)
    write_settings(directory, settings)
    assert read_settings(directory) == settings


def test_a_device_that_keeps_to_the_defaults_has_settings_that_images_of_an_earlier_library_read(
    tmp_path: Path, signer: Signer
) -> None:
    directory, _ = make_device(tmp_path / "d", signer)
    later = {"primary_protocol", "stream_format", "request_timeout_s", "self_test_response_timeout_s"}
    assert not later & json.loads(directory.device_file.read_bytes()).keys()


@pytest.mark.parametrize(
    "change",
    [
        {"primary_protocol": "FTP"},
        {"primary_protocol": ["MQTT"]},
        {"stream_format": ""},
        {"request_timeout_s": 0},
        {"self_test_response_timeout_s": 3601},
    ],
)
def test_a_way_that_there_is_not_is_refused(tmp_path: Path, signer: Signer, change: dict[str, Any]) -> None:
    directory, _ = make_device(tmp_path / "d", signer)
    directory.device_file.write_text(json.dumps(json.loads(directory.device_file.read_bytes()) | change))
    with pytest.raises(BadDeviceDirectory):
        read_settings(directory)


def test_an_update_that_names_no_file_is_refused_before_anything_is_fetched(tmp_path: Path, signer: Signer) -> None:
    machine, content = Machine(tmp_path / "device", signer), cached_image("2.0.0")
    execution = machine.cloud.ship("job", (signer.file(content, path=""), content))
    machine.run()
    assert (execution.details, machine.cloud.blocks_sent) == ({"reason": "0x000000e4: 0x00000000"}, 0)
