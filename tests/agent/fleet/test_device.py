"""One virtual device, without a socket: what it says to each thing that it hears."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from overair.agent.fleet.device import ANSWER_TIMEOUT_S, MOMENTUM_MAX, Stage, VirtualDevice
from overair.agent.fleet.tally import Tally
from overair.wire.blocks import block_length
from overair.wire.image import ImageVersion
from overair.wire.image_signature import SignerCertificate
from overair.wire.job_document import (
    DocumentFile,
    FileSignature,
    HashAlgorithm,
    OtaDocument,
    SignatureAlgorithm,
    TransferProtocol,
    build,
)
from overair.wire.mqtt.decoder import Decoder, DecoderLimits, Receiver
from overair.wire.mqtt.packets import Publish
from overair.wire.stream_messages import BlockEncoder, Dialect, GetStreamRequest, decode_get_stream

IMAGE = os.urandom(10 * 256 + 1)
BLOCKS = 11
OWN = "$aws/things/dev-1"
KEY = ec.generate_private_key(ec.SECP256R1())


def small_image(version: str, **more: Any) -> bytes:
    """An image of the posix platform without a library in it."""
    manifest = {"name": "app", "version": version, "hardware_id": "posix", **more}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__main__.py", os.urandom(2_000))
        archive.writestr("image.json", json.dumps(manifest))
    return stream.getvalue()


class World:
    """A device, what it has said, and a server's side played by hand."""

    def __init__(self, *, primary: TransferProtocol = TransferProtocol.MQTT, fails: bool = False, **more: Any) -> None:
        self.now_s = 0.0
        self.size_bytes = len(IMAGE)
        self.tally = Tally()
        self.said: list[Publish] = []
        self.ranges: list[tuple[str, int, int, Callable[[bytes | None], None]]] = []
        signer = SignerCertificate(fingerprint="f" * 64, public_key=KEY.public_key())
        self.device = VirtualDevice(
            "dev-1",
            anchors={"signer": (signer,)},
            tally=self.tally,
            monotonic=lambda: self.now_s,
            ranges=self,
            block_size_bytes=256,
            window_blocks=4,
            primary=primary,
            fails=fails,
            **more,
        )
        self.connect()

    def connect(self) -> None:
        """A new connection, accepted."""
        self._decoder = Decoder(receiver=Receiver.SERVER, limits=DecoderLimits(packet_size_bytes_max=1 << 20))
        self._heard(self.device.wire.connect("dev-1"))
        self.device.connected(self._heard)

    def ask(self, url: str, first_byte: int, last_byte: int, deliver: Callable[[bytes | None], None]) -> None:
        self.ranges.append((url, first_byte, last_byte, deliver))

    def _heard(self, data: bytes) -> None:
        self._decoder.feed(data)
        while (packet := self._decoder.next_packet()) is not None:
            if isinstance(packet, Publish):
                self.said.append(packet)

    def last(self) -> Publish:
        return self.said[-1]

    def tell(self, topic: str, payload: bytes) -> None:
        self.device.received(Publish(topic=topic, payload=payload))

    def job(self, job: str = "j-1", *, number: int = 1, image: bytes = IMAGE, url: str | None = None, **more: Any) -> None:
        self.size_bytes = len(image)
        value = KEY.sign(image, ec.ECDSA(hashes.SHA256()))
        file = DocumentFile(
            path="fw",
            size_bytes=len(image),
            file_id=0,
            certificate_path="cert/signer.pem",
            signature=FileSignature(
                hash_algorithm=HashAlgorithm.SHA256, signature_algorithm=SignatureAlgorithm.ECDSA, value=value
            ),
            url=url,
            auth_scheme="aws.s3.presigned" if url else None,
        )
        protocols = (TransferProtocol.MQTT,) if url is None else (TransferProtocol.MQTT, TransferProtocol.HTTP)
        document = build(OtaDocument(protocols=protocols, files=(file,), stream_name="st"))
        self.tell_job({"jobId": job, "executionNumber": number, "jobDocument": json.loads(document), **more})

    def tell_job(self, execution: dict[str, Any] | None) -> None:
        times = {"queuedAt": 1, "lastUpdatedAt": 1, "versionNumber": 1, "status": "QUEUED"}
        members = {"timestamp": 1, **({} if execution is None else {"execution": times | execution})}
        self.tell(f"{OWN}/jobs/$next/get/accepted", json.dumps(members).encode())

    def blocks_asked(self) -> list[int]:
        assert self.last().topic == f"{OWN}/streams/st/get/cbor"
        request: GetStreamRequest = decode_get_stream(self.last().payload, Dialect.CBOR)
        return list(request.blocks_to_send(self.size_bytes))

    def send_blocks(self, numbers: list[int], image: bytes = IMAGE) -> None:
        encoder = BlockEncoder(dialect=Dialect.CBOR, file_id=0, block_size_bytes=256)
        for number in numbers:
            data = image[number * 256 :][: block_length(len(image), 256, number)]
            self.tell(f"{OWN}/streams/st/data/cbor", encoder.write(number, data))

    def download(self, image: bytes = IMAGE) -> None:
        while self.device.stage is Stage.RECEIVING:
            self.send_blocks(self.blocks_asked(), image)

    def acknowledge(self, word: str = "accepted") -> dict[str, Any]:
        """Answer the final report; its members."""
        report = next(packet for packet in reversed(self.said) if packet.topic.endswith("/update"))
        members = dict(json.loads(report.payload))
        more = {} if word == "accepted" else {"code": "TerminalStateReached", "message": "it has ended"}
        answer = {"timestamp": 1, "clientToken": members["clientToken"], **more}
        self.tell(f"{report.topic}/{word}", json.dumps(answer).encode())
        return members

    def reports(self) -> list[tuple[str, dict[str, str]]]:
        found = [json.loads(packet.payload) for packet in self.said if packet.topic.endswith("/update")]
        return [(each["status"], each["statusDetails"]) for each in found]


def test_a_job_is_followed_from_its_document_to_its_acknowledged_end_in_the_c_agents_words() -> None:
    world = World()
    assert world.last().topic == f"{OWN}/jobs/$next/get"
    world.job()
    assert world.blocks_asked() == [0, 1, 2, 3]
    world.download()
    assert world.reports() == [
        ("IN_PROGRESS", {"receive": "4/11"}),
        ("IN_PROGRESS", {"self_test": "ready", "updatedBy": "0x01000000"}),
        ("IN_PROGRESS", {"self_test": "active", "updatedBy": "0x01000000"}),
        ("SUCCEEDED", {"reason": "accepted  v1.0.1", "updatedBy": "  v1.0.0"}),
    ]
    assert world.tally.succeeded == 0, "not before the server has said so"
    world.acknowledge()
    assert (world.tally.succeeded, world.device.ended, world.tally.blocks) == (1, 1, BLOCKS)
    assert world.last().topic == f"{OWN}/jobs/$next/get", "and it asks for more"
    world.tell_job(None)
    world.now_s += 1e6
    said = len(world.said)
    world.device.tick()
    assert len(world.said) == said, "with nothing to do it is silent"


def test_blocks_in_any_order_and_twice_are_the_same_image() -> None:
    world = World()
    world.job()
    while world.device.stage is Stage.RECEIVING:
        numbers = world.blocks_asked()
        world.send_blocks([*reversed(numbers), *numbers])
    assert world.acknowledge()["status"] == "SUCCEEDED"
    assert world.tally.blocks == BLOCKS


def test_only_what_is_missing_is_asked_for_again_and_a_silent_server_is_given_up() -> None:
    world = World()
    world.job()
    world.send_blocks([0, 2])
    world.now_s += ANSWER_TIMEOUT_S
    world.device.tick()
    assert world.blocks_asked() == [1, 3]
    assert world.tally.repeated_requests == 1
    for _ in range(MOMENTUM_MAX + 1):
        world.now_s += 16 * ANSWER_TIMEOUT_S
        world.device.tick()
    assert world.acknowledge()["statusDetails"] == {"reason": "0x0000000e: 0x00000000"}
    assert world.tally.failures == {"requests for blocks stayed unanswered": 1}


@pytest.mark.parametrize("fails", [False, True])
def test_an_image_that_is_not_the_signed_one_is_refused(fails: bool) -> None:
    world = World(fails=fails)
    world.job()
    world.download(IMAGE if fails else bytes([IMAGE[0] ^ 1]) + IMAGE[1:])
    assert world.acknowledge()["statusDetails"] == {"reason": "0x000000e3: 0x00000000"}
    assert world.tally.failures == {"the signature does not verify": 1}


def test_a_download_goes_on_where_it_stood_after_a_lost_connection() -> None:
    world = World()
    world.job()
    world.send_blocks([0, 1, 2, 3])
    world.device.lost()
    assert world.device.stage is Stage.AWAY
    world.connect()
    world.job()
    assert world.blocks_asked() == [4, 5, 6, 7]
    world.download()
    assert world.acknowledge()["status"] == "SUCCEEDED"


def test_a_final_report_whose_answer_was_lost_is_sent_again_and_one_that_came_too_late_is_let_go() -> None:
    world = World()
    world.job()
    world.download()
    world.now_s += ANSWER_TIMEOUT_S
    world.device.tick()
    assert [status for status, _ in world.reports()][-2:] == ["SUCCEEDED", "SUCCEEDED"]
    world.acknowledge("rejected")
    assert world.tally.failures == {"the server took the final report no more": 1}
    assert world.device.stage is Stage.IDLE


def test_a_job_of_another_kind_is_rejected_and_a_broken_document_failed() -> None:
    world = World()
    world.tell_job({"jobId": "other", "executionNumber": 1, "jobDocument": {"do": "it"}})
    assert world.acknowledge()["status"] == "REJECTED"
    world.tell_job({"jobId": "broken", "executionNumber": 1, "jobDocument": {"afr_ota": {"files": []}}})
    assert world.acknowledge()["statusDetails"]["reason"].startswith("0x0000000c: ")
    assert world.tally.ended == 2


def test_ranges_bring_a_window_at_a_time_and_one_that_fails_has_the_job_read_again() -> None:
    world = World(primary=TransferProtocol.HTTP)
    world.job(url="https://host/o?sig=1")
    url, first, last, deliver = world.ranges.pop()
    assert (url, first, last) == ("https://host/o?sig=1", 0, 1023)
    deliver(IMAGE[first : last + 1])
    _, first, last, deliver = world.ranges.pop()
    assert (first, last) == (1024, 2047)
    deliver(None)
    world.now_s += 1.0
    world.device.tick()
    assert world.last().topic == f"{OWN}/jobs/$next/get"
    world.job(url="https://host/o?sig=2")
    while world.ranges:
        url, first, last, deliver = world.ranges.pop()
        assert url.endswith("sig=2")
        deliver(IMAGE[first : last + 1])
    assert world.acknowledge()["status"] == "SUCCEEDED"


def test_it_runs_the_version_that_its_image_says_and_begins_there_next_time() -> None:
    remembered: list[ImageVersion] = []
    world = World(remember=remembered.append)
    for version, before in (("2.0.0", "1.0.0"), ("3.1.4", "2.0.0")):
        image = small_image(version)
        world.job(f"j-{version[0]}", image=image)
        world.download(image)
        told = world.acknowledge()
        assert told["statusDetails"] == {"reason": f"accepted  v{version}", "updatedBy": f"  v{before}"}
        world.tell_job(None)
    assert [str(version) for version in remembered] == ["2.0.0", "3.1.4"]


@pytest.mark.parametrize(("version", "code"), [("2.0.0", "0x00000010"), ("1.9.9", "0x0000000f")])
def test_a_version_that_is_not_newer_is_rejected_unless_the_image_allows_it(version: str, code: str) -> None:
    world = World(running=ImageVersion.parse("2.0.0"))
    image = small_image(version)
    world.job(image=image)
    world.download(image)
    assert world.acknowledge()["statusDetails"] == {"reason": f"rejected: {code}"}
    image = small_image(version, allow_downgrade=True)
    world.job("j-2", image=image)
    world.download(image)
    assert world.acknowledge()["statusDetails"]["reason"] == f"accepted  v{version}"
