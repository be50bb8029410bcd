from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overair.agent.platform import ResetRequested
from overair.agent.settings import EXIT_STATUS_RESET
from overair.agent.sources import RangeUnavailable, UrlNoLongerGood
from overair.agent.states import Event, State
from overair.wire.blocks import ANSWER_SIZE_BYTES_MAX
from overair.wire.job_document import TransferProtocol
from overair.wire.job_messages import ExecutionStatus
from tests.support.device import Signer, cached_image
from tests.support.fake_cloud import STREAM, THING, Execution
from tests.support.machine import Machine


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture
def machine(tmp_path: Path, signer: Signer) -> Machine:
    return Machine(tmp_path / "device", signer)


def reasons(execution: Any) -> list[tuple[str, dict[str, str]]]:
    return [(update.status.value, dict(update.status_details)) for update in execution.history]


def test_an_image_is_received_verified_installed_tested_and_reported_as_the_c_agent_does(machine: Machine) -> None:
    image = cached_image("2.0.0", size_bytes=100_000)
    execution = machine.cloud.ship("AFR_OTA-1", (machine.signer.file(image), image))
    agent = machine.run()
    assert machine.boots == ["1.0.0", "2.0.0"]
    assert machine.version == "2.0.0"
    assert agent.state is State.WAITING_FOR_JOB
    total = -(-len(image) // 1024)
    told = reasons(execution)
    assert told[0] == ("IN_PROGRESS", {"receive": f"1/{total}"})
    assert ("IN_PROGRESS", {"receive": f"64/{total}"}) in told
    assert told[-3:] == [
        ("IN_PROGRESS", {"self_test": "ready", "updatedBy": "0x01000000"}),
        ("IN_PROGRESS", {"self_test": "active", "updatedBy": "0x02000000"}),
        ("SUCCEEDED", {"reason": "accepted  v2.0.0", "updatedBy": "  v1.0.0"}),
    ]
    state = machine.slots.read()
    assert state.active == "b"
    assert machine.directory.slot_file("b").read_bytes() == image


def test_a_file_that_is_not_firmware_is_stored_and_nothing_restarts(machine: Machine) -> None:
    data = b"hello\n" * 2000
    execution = machine.cloud.ship("job", (machine.signer.file(data, path="etc/motd", file_type=7, file_id=3), data))
    machine.run()
    assert machine.boots == ["1.0.0"]
    assert (machine.directory.files / "etc/motd").read_bytes() == data
    assert reasons(execution)[-1] == ("SUCCEEDED", {"reason": "accepted  v0.0.7", "updatedBy": "  v0.0.0"})


def test_of_several_files_the_firmware_comes_last(machine: Machine) -> None:
    image, data = cached_image("2.0.0"), b"settings" * 500
    execution = machine.cloud.ship(
        "job",
        (machine.signer.file(image), image),
        (machine.signer.file(data, path="settings", file_type=1, file_id=1), data),
    )
    machine.run()
    assert (machine.version, (machine.directory.files / "settings").read_bytes()) == ("2.0.0", data)
    assert execution.status is ExecutionStatus.SUCCEEDED
    assert [status for status, _ in reasons(execution)].count("SUCCEEDED") == 1


@pytest.mark.parametrize(
    ("version", "allow_downgrade", "reason"),
    [("1.0.0", False, "rejected: 0x00000010"), ("0.9.0", False, "rejected: 0x0000000f"), ("0.9.0", True, "accepted  v0.9.0")],
)
def test_the_version_must_rise_unless_the_signed_image_allows_less(
    machine: Machine, version: str, allow_downgrade: bool, reason: str
) -> None:
    image = cached_image(version, allow_downgrade=allow_downgrade)
    execution = machine.cloud.ship("job", (machine.signer.file(image), image))
    machine.run()
    assert execution.details["reason"] == reason
    assert machine.version == (version if allow_downgrade else "1.0.0")


def test_a_flipped_byte_is_refused_and_the_reason_is_told(machine: Machine) -> None:
    image = cached_image("2.0.0")
    tampered = bytearray(image)
    tampered[5000] ^= 1
    execution = machine.cloud.ship("job", (machine.signer.file(bytes(tampered), signed=image), bytes(tampered)))
    machine.run()
    assert reasons(execution)[-1] == ("FAILED", {"reason": "0x000000e3: 0x00000000"})
    assert machine.boots == ["1.0.0"]
    assert not list(machine.directory.slots.glob("receiving.*"))


def test_an_unknown_signer_and_no_signature_are_refused(machine: Machine) -> None:
    image = cached_image("2.0.0")
    one = machine.cloud.ship("one", (machine.signer.file(image, certificate_path="/certificates/stranger"), image))
    two = machine.cloud.ship("two", (machine.signer.file(image, signature=None), image))
    machine.run()
    assert one.details["reason"] == "0x000000e7: 0x00000000"
    assert two.details["reason"] == "0x000000e3: 0x00000000"
    assert machine.boots == ["1.0.0"]


def test_an_image_that_fails_its_self_test_is_rolled_back_and_says_so(machine: Machine) -> None:
    image = cached_image("2.0.0")
    execution = machine.cloud.ship("job", (machine.signer.file(image), image))
    machine.self_test = lambda: False
    machine.run()
    assert machine.boots == ["1.0.0", "2.0.0", "1.0.0"]
    assert reasons(execution)[-1] == ("FAILED", {"reason": "rejected: 0x00000000"})


def test_an_image_that_raises_in_its_self_test_is_rolled_back(machine: Machine) -> None:
    image = cached_image("2.0.0")
    execution = machine.cloud.ship("job", (machine.signer.file(image), image))
    machine.self_test = lambda: 1 / 0 > 0
    machine.run()
    assert (machine.version, execution.status) == ("1.0.0", ExecutionStatus.FAILED)


def test_an_image_that_dies_in_its_self_test_is_rolled_back_and_the_old_one_tells(machine: Machine) -> None:
    image = cached_image("3.0.0")
    execution = machine.cloud.ship("job", (machine.signer.file(image), image))

    class Died(BaseException):
        pass

    def die() -> bool:
        raise Died

    machine.self_test = die
    with pytest.raises(Died):
        machine.run()
    machine.run()
    assert machine.boots == ["1.0.0", "3.0.0", "1.0.0", "1.0.0"]
    assert reasons(execution)[-2:] == [
        ("IN_PROGRESS", {"self_test": "active", "updatedBy": "0x01000000"}),
        ("FAILED", {"reason": "rejected: 0x00000011"}),
    ]


def test_an_image_on_trial_that_hears_nothing_of_its_self_test_goes_back(machine: Machine) -> None:
    image = cached_image("2.0.0")
    execution = machine.cloud.ship("job", (machine.signer.file(image), image))
    agent = machine.boot()
    agent.signal(Event.START)
    with pytest.raises(ResetRequested):
        machine.settle(agent)
    machine.cloud.online = False
    trial = machine.boot()
    trial.signal(Event.START)
    machine.settle(trial)
    machine.clock.now_s += 16
    with pytest.raises(ResetRequested):
        machine.settle(trial)
    machine.cloud.online = True
    machine.run()
    assert machine.boots == ["1.0.0", "2.0.0", "1.0.0", "1.0.0"]
    assert execution.details == {"reason": "rejected: 0x00000011"}


def test_an_image_on_trial_whose_job_is_gone_goes_back(machine: Machine) -> None:
    image = cached_image("2.0.0")
    machine.cloud.ship("job", (machine.signer.file(image), image))
    agent = machine.boot()
    agent.signal(Event.START)
    with pytest.raises(ResetRequested):
        machine.settle(agent)
    machine.cloud.executions.clear()
    machine.run()
    assert machine.boots == ["1.0.0", "2.0.0", "1.0.0"]


def test_lost_doubled_and_disordered_blocks_do_no_harm(machine: Machine) -> None:
    machine.cloud.chance = Random(7)
    image = cached_image("2.0.0", size_bytes=300_000)
    execution = machine.cloud.ship("job", (machine.signer.file(image), image))
    machine.run()
    assert (machine.version, execution.status) == ("2.0.0", ExecutionStatus.SUCCEEDED)


def test_an_agent_killed_twenty_times_fetches_no_window_twice(machine: Machine) -> None:
    class Killed(BaseException):
        pass

    image = cached_image("2.0.0", size_bytes=3_000_000)
    execution = machine.cloud.ship("job", (machine.signer.file(image), image))
    total = -(-len(image) // 1024)
    window = 128
    kills = set(range(100, total, total // 20))
    assert len(kills) >= 20

    def kill(sent: int) -> None:
        if sent in kills:
            kills.discard(sent)
            raise Killed

    machine.cloud.block_hook = kill
    killed = 0
    while True:
        try:
            machine.run()
            break
        except Killed:
            killed += 1
    assert killed >= 20
    assert (machine.version, execution.status) == ("2.0.0", ExecutionStatus.SUCCEEDED)
    assert machine.cloud.blocks_sent <= total + killed * window


def test_a_job_that_is_withdrawn_during_its_download_leaves_nothing_behind(machine: Machine) -> None:
    image = cached_image("2.0.0", size_bytes=300_000)
    execution = machine.cloud.ship("job", (machine.signer.file(image), image))

    def cancel(sent: int) -> None:
        if sent == 150:
            execution.status = ExecutionStatus.CANCELED
            machine.cloud.notify_next()

    machine.cloud.block_hook = cancel
    agent = machine.run()
    assert agent.state is State.WAITING_FOR_JOB
    assert machine.boots == ["1.0.0"]
    assert not list(machine.directory.slots.glob("receiving.*"))


def test_a_superfluous_notice_of_the_same_job_does_not_disturb_its_download(machine: Machine) -> None:
    image = cached_image("2.0.0", size_bytes=300_000)
    machine.cloud.ship("job", (machine.signer.file(image), image))
    machine.cloud.block_hook = lambda sent: machine.cloud.notify_next() if sent % 100 == 0 else None
    machine.run()
    assert machine.version == "2.0.0"
    assert machine.cloud.blocks_sent == -(-len(image) // 1024)


def test_a_reconnection_during_a_download_goes_on_where_the_disk_stood(machine: Machine) -> None:
    image = cached_image("2.0.0", size_bytes=300_000)
    machine.cloud.ship("job", (machine.signer.file(image), image))

    def reconnect(sent: int) -> None:
        if sent == 200:
            assert machine.cloud.listener is not None
            machine.cloud.listener.connected()

    machine.cloud.block_hook = reconnect
    machine.run()
    assert machine.version == "2.0.0"
    assert machine.cloud.blocks_sent <= -(-len(image) // 1024) + 128


def test_a_silent_stream_is_given_up_after_32_requests(machine: Machine) -> None:
    image = cached_image("2.0.0")
    execution = machine.cloud.ship("job", (machine.signer.file(image), image))
    machine.cloud.files[0] = image
    machine.cloud.chance = type("Never", (Random,), {"choice": lambda self, options: 0})()
    machine.run()
    assert execution.details["reason"] == "aborted: 0x0000000e"
    assert sum(topic.endswith("/get/cbor") for topic, _ in machine.cloud.published) == 32


def test_a_stream_that_is_gone_fails_the_job_at_once(machine: Machine) -> None:
    image = cached_image("2.0.0")
    execution = machine.cloud.ship("job", (machine.signer.file(image), image))
    machine.cloud.files.clear()
    machine.run()
    assert execution.details["reason"] == "0x00000008: 0x00000000"


@pytest.mark.parametrize("document", ['{"afr_ota":{}}', '{"afr_ota":7}', '{"afr_ota":{"protocols":["MQTT"],"files":[]}}'])
def test_an_update_that_says_nothing_is_refused_as_the_c_agent_refuses_it(machine: Machine, document: str) -> None:
    execution = machine.cloud.queue("job", document)
    machine.run()
    assert reasons(execution) == [("FAILED", {"reason": "0x0000000c: 0x00000004"})]


def ship_by_url(machine: Machine, image: bytes, url: str = "https://server/1") -> Execution:
    entry = machine.signer.file(image, url=url, auth_scheme="aws.s3.presigned")
    return machine.cloud.ship("job", (entry, image), protocols=(TransferProtocol.HTTP,))


class FakeRanges:
    """Serves one image under one URL at a time."""

    def __init__(self, image: bytes, good_url: str) -> None:
        self.image = image
        self.good_url = good_url
        self.fetched: list[tuple[int, int]] = []
        self.failures = 0
        self.hook: Callable[[], None] = lambda: None

    def fetch(self, url: str, first_byte: int, last_byte: int) -> bytes:
        self.hook()
        if url != self.good_url:
            raise UrlNoLongerGood("status 403")
        if self.failures:
            self.failures -= 1
            raise RangeUnavailable("cut")
        self.fetched.append((first_byte, last_byte))
        return self.image[first_byte : last_byte + 1]


def test_a_job_over_http_is_refused_where_nothing_fetches_by_url(machine: Machine) -> None:
    execution = ship_by_url(machine, cached_image("2.0.0"))
    machine.run()
    assert execution.details["reason"] == "0x0000000d: 0x00000000"


def test_an_image_is_fetched_by_url_each_byte_once_and_without_gaps(machine: Machine) -> None:
    image = cached_image("2.0.0", size_bytes=300_000)
    execution = ship_by_url(machine, image)
    machine.ranges = FakeRanges(image, "https://server/1")
    machine.ranges.failures = 3
    machine.run()
    assert (machine.version, execution.status) == ("2.0.0", ExecutionStatus.SUCCEEDED)
    assert b"".join(image[first : last + 1] for first, last in machine.ranges.fetched) == image
    assert not [topic for topic, _ in machine.cloud.published if "/streams/" in topic]


@pytest.mark.parametrize("protocols", [("MQTT", "HTTP"), ("HTTP", "MQTT")])
def test_with_both_protocols_the_stream_is_taken_whichever_comes_first(machine: Machine, protocols: tuple[str, ...]) -> None:
    image = cached_image("2.0.0")
    entry = machine.signer.file(image, url="https://server/1", auth_scheme="aws.s3.presigned")
    execution = machine.cloud.ship("job", (entry, image), protocols=tuple(TransferProtocol(each) for each in protocols))
    machine.ranges = FakeRanges(image, "https://server/1")
    machine.run()
    assert (machine.version, execution.status, machine.ranges.fetched) == ("2.0.0", ExecutionStatus.SUCCEEDED, [])


def test_an_expired_url_is_asked_for_again_and_the_download_goes_on_where_it_stood(machine: Machine) -> None:
    image = cached_image("2.0.0", size_bytes=300_000)
    execution = ship_by_url(machine, image)
    ranges = machine.ranges = FakeRanges(image, "https://server/1")

    def expire() -> None:
        if len(ranges.fetched) == 2:
            ranges.good_url = "https://server/2"
            execution.document = execution.document.replace("server/1", "server/2")

    ranges.hook = expire
    machine.run()
    assert (machine.version, execution.status) == ("2.0.0", ExecutionStatus.SUCCEEDED)
    assert b"".join(image[first : last + 1] for first, last in ranges.fetched) == image


def test_a_url_that_is_never_good_is_given_up(machine: Machine) -> None:
    image = cached_image("2.0.0")
    execution = ship_by_url(machine, image)
    machine.ranges = FakeRanges(image, "https://elsewhere")
    machine.run()
    assert execution.details["reason"] == "aborted: 0x0000000e"


def test_a_wrong_block_fails_the_job(machine: Machine) -> None:
    image = cached_image("2.0.0")
    execution = machine.cloud.ship("job", (machine.signer.file(image), image))
    machine.cloud.files[0] = image + bytes(5000)  # the stream serves more than the job says
    machine.run()
    assert execution.details["reason"] == "0x000000e0: 0x00000000"


def test_one_job_after_the_other_is_done(machine: Machine) -> None:
    first, second = cached_image("2.0.0"), cached_image("2.1.0")
    one = machine.cloud.ship("one", (machine.signer.file(first), first))
    machine.run()
    two = machine.cloud.ship("two", (machine.signer.file(second), second))
    machine.run()
    assert (one.status, two.status, machine.version) == (ExecutionStatus.SUCCEEDED, ExecutionStatus.SUCCEEDED, "2.1.0")


def test_a_final_word_that_was_not_acknowledged_is_said_again_after_a_restart(machine: Machine) -> None:
    image = cached_image("2.0.0")
    execution = machine.cloud.ship("job", (machine.signer.file(image), image))
    agent = machine.boot()
    agent.signal(Event.START)
    with pytest.raises(ResetRequested):
        machine.settle(agent)

    def lose_the_line() -> bool:
        machine.cloud.online = False
        return True

    machine.self_test = lose_the_line
    trial = machine.boot()
    trial.signal(Event.START)
    machine.settle(trial)
    assert execution.status is ExecutionStatus.IN_PROGRESS
    machine.cloud.online = True
    machine.run()
    assert machine.boots == ["1.0.0", "2.0.0", "2.0.0"]
    assert reasons(execution)[-1] == ("SUCCEEDED", {"reason": "accepted  v2.0.0", "updatedBy": "  v1.0.0"})


def test_a_final_word_that_is_said_again_never_ends_a_retry_of_its_job(machine: Machine) -> None:
    image = cached_image("2.0.0")
    first = machine.cloud.ship("job", (machine.signer.file(image, signed=b"other bytes"), image))
    machine.cloud.acknowledging = False
    machine.run()
    assert (first.status, machine.version) == (ExecutionStatus.FAILED, "1.0.0")
    machine.cloud.acknowledging = True
    retry = machine.cloud.ship("job", (machine.signer.file(image), image))
    machine.run()
    assert (retry.number, retry.status, machine.version) == (2, ExecutionStatus.SUCCEEDED, "2.0.0")


def test_suspending_stops_the_download_and_resuming_goes_on(machine: Machine) -> None:
    image = cached_image("2.0.0", size_bytes=300_000)
    machine.cloud.ship("job", (machine.signer.file(image), image))
    agent = machine.boot()
    agent.signal(Event.START)
    machine.cloud.block_hook = lambda sent: agent.signal(Event.SUSPEND) if sent == 200 else None
    machine.settle(agent)
    assert agent.state is State.SUSPENDED
    agent.signal(Event.RESUME)
    with pytest.raises(ResetRequested):
        machine.settle(agent)


def test_a_user_aborts(machine: Machine) -> None:
    image = cached_image("2.0.0", size_bytes=300_000)
    execution = machine.cloud.ship("job", (machine.signer.file(image), image))
    agent = machine.boot()
    agent.signal(Event.START)
    machine.cloud.block_hook = lambda sent: agent.signal(Event.USER_ABORT) if sent == 200 else None
    machine.settle(agent)
    assert execution.details == {"reason": "aborted: 0x00000013"}


def test_shutting_down_ends_with_status_0_and_a_restart_with_75(machine: Machine) -> None:
    agent = machine.boot()
    agent.signal(Event.SHUTDOWN)
    assert agent.run() == 0
    image = cached_image("2.0.0")
    machine.cloud.ship("job", (machine.signer.file(image), image))
    assert machine.boot().run() == EXIT_STATUS_RESET


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_order_of_events_breaks_the_agent_or_boots_what_was_not_shipped(signer: Signer, data: st.DataObject) -> None:
    image = cached_image("2.0.0")
    junk = [b"", b"{", b"\xa0", b'{"timestamp":1}', b'{"timestamp":1,"execution":{"jobId":"x"}}']
    with tempfile.TemporaryDirectory() as root:
        machine = Machine(Path(root) / "d", signer)
        machine.cloud.ship("job", (signer.file(image), image))
        agent = machine.boot()
        agent.signal(Event.START)
        topics = [
            "jobs/$next/get/accepted",
            "jobs/notify-next",
            f"streams/{STREAM}/data/cbor",
            f"streams/{STREAM}/rejected/cbor",
        ]
        steps = st.one_of(
            st.sampled_from([Event.CONNECTED, Event.SUSPEND, Event.RESUME, Event.USER_ABORT, Event.SHUTDOWN]),
            st.tuples(st.sampled_from(topics), st.sampled_from(junk) | st.binary(max_size=30)),
            st.integers(1, 20),
        )
        try:
            for step in data.draw(st.lists(steps, max_size=12)):
                for _ in range(data.draw(st.integers(0, 6))):
                    agent.step()
                if isinstance(step, Event):
                    agent.signal(step)
                elif isinstance(step, int):
                    machine.clock.now_s += step
                else:
                    agent.received(f"$aws/things/{THING}/{step[0]}", step[1])
            machine.settle(agent)
        except ResetRequested:
            assert machine.directory.slot_file("b").read_bytes() == image


def test_an_image_that_could_not_be_announced_is_not_activated_and_not_fetched_twice(machine: Machine) -> None:
    image = cached_image("2.0.0", size_bytes=50_000)
    execution = machine.cloud.ship("job", (machine.signer.file(image), image))
    total = -(-len(image) // 1024)

    def lose_the_line(sent: int) -> None:
        machine.cloud.online = sent != total

    machine.cloud.block_hook = lose_the_line
    agent = machine.run()
    assert (agent.state, machine.boots) == (State.WAITING_FOR_JOB, ["1.0.0"])
    machine.cloud.online = True
    agent.connected()
    with pytest.raises(ResetRequested):
        machine.settle(agent)
    machine.run()
    assert (machine.version, execution.status) == ("2.0.0", ExecutionStatus.SUCCEEDED)
    assert machine.cloud.blocks_sent == total


def test_its_messages_are_those_of_the_c_agent_byte_for_byte(machine: Machine) -> None:
    image = cached_image("2.0.0")
    machine.cloud.ship("AFR_OTA-1", (machine.signer.file(image), image))
    machine.run()
    published = [(topic.removeprefix(f"$aws/things/{THING}/"), payload) for topic, payload in machine.cloud.published]
    topics = [topic for topic, _ in published]
    assert published[0] == ("jobs/$next/get", b'{"clientToken":"0:dev-1"}')
    blocks = -(-len(image) // 1024)
    first = min(blocks, ANSWER_SIZE_BYTES_MAX // 1024)
    bitmap = ((1 << first) - 1).to_bytes((first + 7) // 8, "little")
    head = bytes.fromhex("a6 6163 63726479 6166 00 616c 190400 616f 00 6162") + cbor2.dumps(bitmap)
    assert published[1] == (f"streams/{STREAM}/get/cbor", head + b"\x61n" + cbor2.dumps(first))
    updates = [payload for topic, payload in published if topic == "jobs/AFR_OTA-1/update"]
    assert updates[0] == f'{{"status":"IN_PROGRESS","statusDetails":{{"receive":"1/{blocks}"}}}}'.encode()
    assert updates[-3:] == [
        b'{"status":"IN_PROGRESS","statusDetails":{"self_test":"ready","updatedBy":"0x01000000"}}',
        b'{"status":"IN_PROGRESS","statusDetails":{"self_test":"active","updatedBy":"0x02000000"}}',
        b'{"status":"SUCCEEDED","statusDetails":{"reason":"accepted  v2.0.0","updatedBy":"  v1.0.0"}}',
    ]
    assert topics.count("jobs/$next/get") == 2
    assert machine.cloud.subscriptions == {f"$aws/things/{THING}/jobs/notify-next"}
