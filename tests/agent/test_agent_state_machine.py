"""Whatever happens to a device in whatever order: it runs verified images alone, says nothing untrue, and comes to an end."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from overair.agent.agent import Agent
from overair.agent.deferral import Deferral
from overair.agent.other_jobs import JobOutcome
from overair.agent.platform import ResetRequested
from overair.agent.states import Event, State
from overair.wire.job_messages import ExecutionStatus
from tests.agent.test_crash_states import QuickDisk
from tests.support.device import Signer, cached_image, image_of_size
from tests.support.fake_cloud import STREAM, THING, Execution
from tests.support.machine import Machine

SIGNER = Signer()
SIZE_BYTES = 30_000
BLOCK_SIZE_BYTES = 4096
TOPICS = ("jobs/$next/get/accepted", "jobs/notify-next", f"streams/{STREAM}/data/cbor", f"streams/{STREAM}/rejected/cbor")


class ADeviceLives(RuleBasedStateMachine):
    """One device, its job service and its network; each rule is something that happens to them."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.machine = Machine(self.root / "d", SIGNER, block_size_bytes=BLOCK_SIZE_BYTES)
        self.machine.disk = QuickDisk()
        self.machine.on_job = lambda job: JobOutcome.accepted()
        self.minor = 0
        self.images: dict[str, bytes] = {"1.0.0": cached_image("1.0.0")}
        self.updates: dict[str, str] = {}
        """Job → version, of updates whose image is good."""
        self.tampered: list[Execution] = []
        self.files: dict[str, bytes] = {}
        self.agent: Agent

    @initialize()
    def switch_on(self) -> None:
        self.agent = self.machine.boot()
        self.agent.signal(Event.START)

    def steps(self, count: int) -> bool:
        """Let the agent work; whether it had as much to do. A restart is followed by a boot."""
        for _ in range(count):
            try:
                if not self.agent.step():
                    return False
            except ResetRequested:
                self.switch_on()
        return True

    # --- what an operator does ---

    @rule(good=st.booleans(), with_file=st.booleans())
    def ship_an_image(self, good: bool, with_file: bool) -> None:
        self.minor += 1
        version, job = f"1.{self.minor}.0", f"update-{self.minor}"
        image = image_of_size(version, SIZE_BYTES)
        served = image if good else image[:-1] + bytes((image[-1] ^ 1,))
        # Each job has file ids of its own: the cloud has one stream for all.
        number = 2 * self.minor % 250
        entries = [(SIGNER.file(served, signed=image, file_id=number), served)]
        if with_file:
            data = f"settings of {version}".encode() * 100
            entries.append((SIGNER.file(data, path=f"settings/{job}", file_type=1, file_id=number + 1), data))
            self.files[job] = data
        execution = self.machine.cloud.ship(job, *entries)
        if good:
            self.images[version] = image
            self.updates[job] = version
        else:
            self.tampered.append(execution)

    @rule()
    def send_another_job(self) -> None:
        self.minor += 1
        self.machine.cloud.queue(f"other-{self.minor}", '{"operation":"count"}')

    @precondition(lambda self: self.machine.cloud.next is not None)
    @rule()
    def cancel_the_first(self) -> None:
        execution = self.machine.cloud.next
        assert execution is not None
        execution.status = ExecutionStatus.CANCELED
        self.machine.cloud.notify_next()

    # --- what the world does ---

    @rule(count=st.integers(1, 30))
    def time_for_steps(self, count: int) -> None:
        self.steps(count)

    @rule(seconds=st.sampled_from((1, 10, 20, 70, 400)))
    def time_passes(self, seconds: int) -> None:
        self.machine.clock.now_s += seconds
        self.steps(3)

    @rule(online=st.booleans())
    def the_line(self, online: bool) -> None:
        self.machine.cloud.online = online
        if online:
            self.agent.connected()

    @rule(seed=st.integers(0, 3), loss=st.sampled_from((0.0, 0.05, 0.5)))
    def messages_are_lost(self, seed: int, loss: float) -> None:
        chance = Random(seed)
        self.machine.cloud.lost = lambda: chance.random() < loss

    @rule(
        topic=st.sampled_from(TOPICS),
        payload=st.sampled_from((b"", b"{", b"\xa0", b'{"timestamp":1}')) | st.binary(max_size=20),
    )
    def nonsense_comes(self, topic: str, payload: bytes) -> None:
        self.agent.received(f"$aws/things/{THING}/{topic}", payload)

    @rule()
    def the_process_dies(self) -> None:
        self.switch_on()

    # --- what the device's own application does ---

    @rule(event=st.sampled_from((Event.SUSPEND, Event.RESUME, Event.USER_ABORT)))
    def the_application_asks(self, event: Event) -> None:
        self.agent.signal(event)
        self.steps(2)

    @rule(passes=st.booleans())
    def the_next_self_test(self, passes: bool) -> None:
        self.machine.self_test = lambda: passes

    @rule(busy=st.booleans())
    def is_busy(self, busy: bool) -> None:
        self.machine.permission = (lambda offer: Deferral(reason="busy", seconds=60)) if busy else None

    # --- what must always hold ---

    @invariant()
    def what_boots_next_is_an_image_that_was_signed(self) -> None:
        state = self.machine.slots.read()
        assert state.active is not None
        assert self.machine.directory.slot_file(state.active).read_bytes() == self.images[self.machine.version or ""]

    @invariant()
    def only_what_ran_has_succeeded(self) -> None:
        for execution in self.machine.cloud.executions:
            if execution.status is ExecutionStatus.SUCCEEDED and execution.job_id in self.updates:
                assert self.updates[execution.job_id] in self.machine.boots

    @invariant()
    def what_was_tampered_with_has_not_succeeded(self) -> None:
        assert all(execution.status is not ExecutionStatus.SUCCEEDED for execution in self.tampered)

    @invariant()
    def stored_files_are_those_that_were_signed(self) -> None:
        for path in self.machine.directory.files.rglob("*"):
            if path.is_file():
                assert path.read_bytes() == self.files[path.name]

    def teardown(self) -> None:
        if hasattr(self, "agent"):
            self._peace_brings_every_job_to_an_end()
        shutil.rmtree(self.root)

    def _peace_brings_every_job_to_an_end(self) -> None:
        cloud = self.machine.cloud
        cloud.online, cloud.lost = True, lambda: False
        self.machine.self_test = lambda: True
        self.machine.permission = None
        self.the_process_dies()
        for _ in range(3000):
            if self.steps(50):
                continue
            if all(execution.final for execution in cloud.executions):
                break
            self.machine.clock.now_s += 30
        assert all(execution.final for execution in cloud.executions), cloud.executions
        assert self.agent.state is State.WAITING_FOR_JOB
        for execution in cloud.executions:
            if execution.status in (ExecutionStatus.FAILED, ExecutionStatus.REJECTED):
                assert execution.details["reason"]
        assert self.machine.platform_report() is None


TestADeviceLives = ADeviceLives.TestCase
TestADeviceLives.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)


class ADeviceLivesLong(ADeviceLives):
    """The same, at length."""


TestADeviceLivesLong = pytest.mark.long(ADeviceLivesLong.TestCase)
TestADeviceLivesLong.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
