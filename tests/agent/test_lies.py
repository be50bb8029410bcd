"""The other side lies: every lie ends in FAILED with a reason, nothing is installed or stored, and the next job is done."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overair.agent.http_ranges import HttpRanges
from overair.wire.job_document import TransferProtocol
from overair.wire.job_messages import ExecutionStatus
from tests.support.device import Signer, cached_image
from tests.support.fake_cloud import STREAM, THING, Execution, FakeCloud
from tests.support.machine import Machine

SIGNER = Signer()
IMAGE = cached_image("2.0.0", size_bytes=20_000)
BLOCK = 1024


def truth() -> dict[str, Any]:
    """The document of an honest update, as members."""
    machine_less = FakeCloud()
    execution = machine_less.ship("job", (SIGNER.file(IMAGE), IMAGE))
    return dict(json.loads(execution.document))


def check_nothing_happened_and_life_goes_on(machine: Machine, execution: Execution) -> None:
    assert execution.status is ExecutionStatus.FAILED, execution.history
    assert execution.details["reason"]
    assert machine.boots == ["1.0.0"], "it neither restarted nor installed anything"
    assert not [path for path in machine.directory.files.rglob("*") if path.is_file()]
    assert not list(machine.directory.slots.glob("receiving.*"))
    machine.cloud = FakeCloud()
    honest = machine.cloud.ship("honest", (SIGNER.file(IMAGE), IMAGE))
    machine.run()
    assert (machine.version, honest.status) == ("2.0.0", ExecutionStatus.SUCCEEDED)


def changed(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> str:
    document = truth()
    change(document["afr_ota"], document["afr_ota"]["files"][0])
    return json.dumps(document)


PARSER = "0x0000000c: 0x0000000"
DOCUMENTS: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], object], str]] = {
    "size 0": (lambda ota, file: file.update(filesize=0), PARSER + "3"),
    "size 2^63": (lambda ota, file: file.update(filesize=2**63), PARSER + "4"),
    "size -1": (lambda ota, file: file.update(filesize=-1), PARSER + "4"),
    "size 600.0": (lambda ota, file: file.update(filesize=600.0), PARSER + "4"),
    "size text": (lambda ota, file: file.update(filesize="600"), PARSER + "4"),
    "size true": (lambda ota, file: file.update(filesize=True), PARSER + "4"),
    "size 4 GiB": (lambda ota, file: file.update(filesize=2**32 - 4096), "0x000000e5: 0x00000000"),
    "size one less": (lambda ota, file: file.update(filesize=len(IMAGE) - 1), "0x000000e0: 0x00000000"),
    "size one more": (lambda ota, file: file.update(filesize=len(IMAGE) + 1), "0x000000e0: 0x00000000"),
    "size a block less": (lambda ota, file: file.update(filesize=len(IMAGE) - BLOCK), "0x000000e0: 0x00000000"),
    "size ten blocks more": (lambda ota, file: file.update(filesize=len(IMAGE) + 10 * BLOCK), "0x000000e0: 0x00000000"),
    "path climbs": (lambda ota, file: file.update(filepath="../../etc/passwd"), "0x000000e4: 0x00000000"),
    "path climbs, stored": (lambda ota, file: file.update(filepath="a/../../b", fileType=3), "0x000000e4: 0x00000000"),
    "path is the folder": (lambda ota, file: file.update(filepath="./.", fileType=3), "0x000000e4: 0x00000000"),
    "path with NUL": (lambda ota, file: file.update(filepath="a\x00b", fileType=3), "0x000000e4: 0x00000000"),
    "path of a long name": (lambda ota, file: file.update(filepath="n" * 256, fileType=3), "0x000000e4: 0x00000000"),
    "path too long": (lambda ota, file: file.update(filepath="p/" * 600, fileType=3), PARSER + "4"),
    "path is a number": (lambda ota, file: file.update(filepath=7), PARSER + "4"),
    "certificate climbs": (
        lambda ota, file: file.update(certfile="../identity/certificate.pem"),
        "0x000000e7: 0x00000000",
    ),
    "certificate is dots": (lambda ota, file: file.update(certfile="../.."), "0x000000e7: 0x00000000"),
    "certificate absent": (lambda ota, file: file.pop("certfile"), "0x000000e7: 0x00000000"),
    "another file's id": (lambda ota, file: file.update(fileid=9), "0x00000008: 0x00000000"),
    "id 256": (lambda ota, file: file.update(fileid=256), PARSER + "4"),
    "signature of nothing": (lambda ota, file: file.update({"sig-sha256-ecdsa": ""}), PARSER + "4"),
    "signature not Base64": (lambda ota, file: file.update({"sig-sha256-ecdsa": "%"}), PARSER + "4"),
    "signature under SHA-1": (
        lambda ota, file: file.update({"sig-sha1-ecdsa": file.pop("sig-sha256-ecdsa")}),
        "0x000000e3: 0x00000000",
    ),
    "two signatures": (lambda ota, file: file.update({"sig-sha256-rsa": "AAAA"}), PARSER + "4"),
    "no signature": (lambda ota, file: file.pop("sig-sha256-ecdsa"), "0x000000e3: 0x00000000"),
    "stream is a wildcard": (lambda ota, file: ota.update(streamname="#"), PARSER + "4"),
    "stream climbs": (lambda ota, file: ota.update(streamname="../x"), PARSER + "4"),
    "stream absent": (lambda ota, file: ota.pop("streamname"), PARSER + "5"),
    "protocols unknown": (lambda ota, file: ota.update(protocols=["FTP", 7]), PARSER + "4"),
    "protocols text": (lambda ota, file: ota.update(protocols="MQTT"), PARSER + "4"),
    "protocols nested": (lambda ota, file: ota.update(protocols=[["MQTT"], {"a": 1}]), PARSER + "4"),
    "no files": (lambda ota, file: ota.update(files=[]), PARSER + "4"),
    "files text": (lambda ota, file: ota.update(files="x"), PARSER + "4"),
    "two images": (lambda ota, file: ota["files"].append(file), PARSER + "5"),
}


@pytest.mark.parametrize("lie", DOCUMENTS)
def test_a_document_that_lies_fails_with_the_reason(tmp_path: Path, lie: str) -> None:
    change, reason = DOCUMENTS[lie]
    machine = Machine(tmp_path / "d", SIGNER, block_size_bytes=BLOCK)
    machine.cloud.files[0] = IMAGE
    execution = machine.cloud.queue("job", changed(change))
    machine.run()
    assert execution.details == {"reason": reason}
    check_nothing_happened_and_life_goes_on(machine, execution)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PLACES = (
    ("afr_ota",),
    *((("afr_ota", name)) for name in ("protocols", "streamname", "files")),
    *(
        ("afr_ota", "files", 0, name)
        for name in ("filepath", "filesize", "fileid", "certfile", "fileType", "sig-sha256-ecdsa", "update_data_url")
    ),
)


@settings(max_examples=30, deadline=None)
@given(place=st.sampled_from(PLACES), value=JSON, absent=st.booleans())
def test_whatever_stands_in_a_member_of_the_document_the_device_boots_what_it_should(
    place: tuple[Any, ...], value: Any, absent: bool
) -> None:
    document: dict[str, Any] = truth()
    holder: Any = document
    for step in place[:-1]:
        holder = holder[step]
    if absent:
        holder.pop(place[-1], None)
    else:
        holder[place[-1]] = value
    with tempfile.TemporaryDirectory() as root:
        machine = Machine(Path(root) / "d", SIGNER, block_size_bytes=4096)
        machine.cloud.files[0] = IMAGE
        execution = machine.cloud.queue("job", json.dumps(document))
        machine.run()
        assert execution.final
        assert (machine.version == "2.0.0") <= (execution.status is ExecutionStatus.SUCCEEDED)


@settings(max_examples=30, deadline=None)
@given(
    place=st.sampled_from(("jobId", "status", "queuedAt", "executionNumber", "versionNumber", "statusDetails", "jobDocument")),
    value=JSON,
    absent=st.booleans(),
)
def test_whatever_stands_in_a_member_of_the_reply_the_agent_lives_and_never_installs_the_unverified(
    place: str, value: Any, absent: bool
) -> None:
    with tempfile.TemporaryDirectory() as root:
        machine = Machine(Path(root) / "d", SIGNER, block_size_bytes=4096)
        agent = machine.run()
        machine.cloud.files[0] = IMAGE
        view: dict[str, Any] = {
            "jobId": "job",
            "status": "QUEUED",
            "queuedAt": 1,
            "lastUpdatedAt": 1,
            "executionNumber": 1,
            "versionNumber": 1,
            "jobDocument": {"operation": "x"},
        }
        view |= {place: value}
        if absent:
            del view[place]
        agent.received(f"$aws/things/{THING}/jobs/notify-next", json.dumps({"timestamp": 1, "execution": view}).encode())
        machine.settle(agent)
        assert machine.boots == ["1.0.0"]
        topics = [topic for topic, _ in machine.cloud.published]
        assert all(set(topic) & set("#+\x00") == set() and ".." not in topic for topic in topics)


@pytest.mark.parametrize(
    ("execution", "reason"),
    [
        ({"jobId": "j"}, PARSER + "4"),
        ({"jobId": "j", "executionNumber": "x", "jobDocument": 7}, PARSER + "4"),
        ({"status": "QUEUED", "queuedAt": 1, "lastUpdatedAt": 1, "executionNumber": 1, "versionNumber": 1}, PARSER + "1"),
    ],
)
def test_an_execution_of_which_only_the_name_can_be_read_fails_by_that_name(
    tmp_path: Path, execution: dict[str, Any], reason: str
) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    agent = machine.run()
    message = {"timestamp": 1, "execution": {"jobId": "j"} | execution}
    agent.received(f"$aws/things/{THING}/jobs/notify-next", json.dumps(message).encode())
    machine.settle(agent)
    topic, payload = machine.cloud.published[-1]
    assert topic == f"$aws/things/{THING}/jobs/j/update"
    assert json.loads(payload) == {"status": "FAILED", "statusDetails": {"reason": reason}}


def block(number: int, data: bytes, file_id: int = 0, **changes: object) -> bytes:
    return cbor2.dumps({"f": file_id, "i": number, "l": len(data), "p": data} | changes)


BLOCKS: dict[str, tuple[Callable[[int, bytes], list[bytes]], str]] = {
    "beyond the end": (lambda i, p: [block(i + 100_000, p)], "0x000000e0: 0x00000000"),
    "number 2^31": (lambda i, p: [block(2**31, p)], "0x000000e0: 0x00000000"),
    "number -1": (lambda i, p: [block(-1, p)], "0x000000e0: 0x00000000"),
    "number of the next block": (lambda i, p: [block(i + 1, p)], "0x000000e0: 0x00000000"),
    "truncated": (lambda i, p: [block(i, p[:-1])], "0x000000e0: 0x00000000"),
    "truncated, with the full length told": (lambda i, p: [block(i, p[:-1], l=len(p))], "0x000000e0: 0x00000000"),
    "one byte more": (lambda i, p: [block(i, p + b"x")], "0x000000e0: 0x00000000"),
    "text for bytes": (lambda i, p: [block(i, p, p="x" * len(p))], "0x000000e0: 0x00000000"),
    "cut off": (lambda i, p: [block(i, p)[:-5]], "0x000000e0: 0x00000000"),
    "with something behind": (lambda i, p: [block(i, p) + b"\x00"], "0x000000e0: 0x00000000"),
    "another file's": (lambda i, p: [block(i, p, file_id=1)], "aborted: 0x0000000e"),
    "the same bytes everywhere": (lambda i, p: [block(i, bytes(len(p)))], "0x000000e3: 0x00000000"),
    "nothing": (lambda i, p: [], "aborted: 0x0000000e"),
}


class LyingCloud(FakeCloud):
    """Sends what ``lie`` makes of each block."""

    lie: Callable[[int, bytes], list[bytes]]
    backwards = False

    def _send_blocks(self, payload: bytes) -> None:
        answers: list[tuple[int, bytes]] = []
        deliver, self._deliver = self._deliver, lambda topic, payload: answers.append((0, payload))  # type: ignore[method-assign]
        try:
            super()._send_blocks(payload)
        finally:
            self._deliver = deliver  # type: ignore[method-assign]
        for _, answer in reversed(answers) if self.backwards else answers:
            members = cbor2.loads(answer)
            for message in self.lie(members["i"], members["p"]):
                self._deliver(f"$aws/things/{THING}/streams/{STREAM}/data/cbor", message)


@pytest.mark.parametrize("lie", BLOCKS)
def test_a_stream_that_lies_fails_with_the_reason(tmp_path: Path, lie: str) -> None:
    machine = Machine(tmp_path / "d", SIGNER, block_size_bytes=BLOCK)
    machine.cloud = cloud = LyingCloud()
    cloud.lie, reason = BLOCKS[lie]
    execution = cloud.ship("job", (SIGNER.file(IMAGE), IMAGE))
    machine.run()
    assert execution.details == {"reason": reason}
    check_nothing_happened_and_life_goes_on(machine, execution)


@pytest.mark.parametrize("backwards", [False, True])
def test_doubled_reordered_and_strangers_blocks_do_no_harm(tmp_path: Path, backwards: bool) -> None:
    machine = Machine(tmp_path / "d", SIGNER, block_size_bytes=BLOCK)
    machine.cloud = cloud = LyingCloud()
    cloud.backwards = backwards
    cloud.lie = lambda i, p: [block(i, bytes(len(p)), file_id=3), block(i, p), block(i, p), block(0, IMAGE[:BLOCK])]
    execution = cloud.ship("job", (SIGNER.file(IMAGE), IMAGE))
    machine.run()
    assert (machine.version, execution.status) == ("2.0.0", ExecutionStatus.SUCCEEDED)


@settings(max_examples=25, deadline=None)
@given(payloads=st.lists(st.binary(max_size=80), min_size=1, max_size=4), seed=st.integers(0, 5))
def test_arbitrary_bytes_for_blocks_fail_the_job_or_change_nothing(payloads: list[bytes], seed: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        machine = Machine(Path(root) / "d", SIGNER, block_size_bytes=BLOCK)
        machine.cloud = cloud = LyingCloud()
        chance = Random(seed)
        cloud.lie = lambda i, p: payloads if chance.random() < 0.1 else [block(i, p)]
        execution = cloud.ship("job", (SIGNER.file(IMAGE), IMAGE))
        machine.run()
        assert execution.final
        assert (machine.version == "2.0.0") == (execution.status is ExecutionStatus.SUCCEEDED)


@pytest.mark.parametrize(
    "url", ["http://server/1", "ftp://x", "https://[::1", "https://", "\r\nHost: x", "https://a b/", "x" * 8000]
)
def test_an_address_that_leads_nowhere_ends_the_job_and_not_the_agent(tmp_path: Path, url: str) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    machine.ranges = HttpRanges(machine.directory.ca_file(machine.settings))
    entry = SIGNER.file(IMAGE, url="https://server/1", auth_scheme="aws.s3.presigned")
    execution = machine.cloud.ship("job", (entry, IMAGE), protocols=(TransferProtocol.HTTP,))
    execution.document = execution.document.replace('"https://server/1"', json.dumps(url))
    machine.run()
    assert execution.status is ExecutionStatus.FAILED
    assert execution.details["reason"] == "aborted: 0x0000000e"
