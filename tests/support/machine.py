"""A device without processes, for tests of the agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from overair.agent.agent import Agent
from overair.agent.boot import Step, fallen_back, next_step
from overair.agent.decryption_keys import declared_of
from overair.agent.durable import Disk
from overair.agent.flash import flash
from overair.agent.platform import ResetRequested
from overair.agent.platforms.posix import PosixPlatform
from overair.agent.settings import AgentSettings
from overair.agent.slots import SlotStore, verify_slot
from overair.agent.states import Event, State
from overair.wire.image import read_manifest
from tests.support.device import Signer, cached_image, make_device
from tests.support.fake_cloud import THING, FakeCloud


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Machine:
    """A device without processes: ``boot`` does the boot loader's part, ``run`` the image's, each on the same directory."""

    def __init__(self, root: Path, signer: Signer, **changes: Any) -> None:
        self.signer = signer
        self.directory, self.settings = make_device(root, signer, **changes)
        self.cloud = FakeCloud()
        self.clock = Clock()
        self.self_test: Callable[[], bool] = lambda: True
        self.disk = Disk()
        self.boots: list[str] = []
        self.ranges: Any = None
        self.chance = Random(1)
        self.permission: Any = None
        self.on_job: Any = None
        image = root / "first.zip"
        image.write_bytes(cached_image("1.0.0"))
        flash(self.directory, image, signature=None)

    @property
    def slots(self) -> SlotStore:
        return SlotStore(self.directory, self.disk)

    @property
    def version(self) -> str | None:
        state = self.slots.read()
        record = state.record(state.active) if state.active else None
        return record.version if record else None

    def platform_report(self) -> bytes | None:
        """A final report that the server hasn't acknowledged yet."""
        path = self.directory.slots / "report.json"
        return path.read_bytes() if path.exists() else None

    def boot(self) -> Agent:
        """What the boot loader does, then an agent of the image in the active slot."""
        state = self.slots.read()
        if next_step(state) is Step.FALL_BACK:
            state = fallen_back(state)
            self.slots.write(state)
        assert state.active is not None
        record = state.record(state.active)
        assert record is not None
        path = verify_slot(self.directory, state.active, record)
        self.slots.write(replace(state, boots=state.boots + 1))
        with path.open("rb") as file:
            manifest = read_manifest(file)
        self.boots.append(str(manifest.version))
        platform = PosixPlatform(self.directory, self.settings, running_image=manifest, disk=self.disk)
        settings = AgentSettings(thing_name=THING, block_size_bytes=self.settings.block_size_bytes)
        agent = Agent(
            platform=platform,
            transport=self.cloud,
            application=self,
            settings=settings,
            monotonic=self.clock,
            chance=self.chance,
            ranges=self.ranges,
            permission=self.permission,
            declaration=declared_of(self.directory),
        )  # type: ignore[arg-type]
        if self.on_job is not None:
            agent.on_job(self.on_job)
        return agent

    def run(self) -> Agent:
        """Boot until an agent has nothing more to do."""
        for _ in range(10):
            agent = self.boot()
            agent.signal(Event.START)
            try:
                self.settle(agent)
            except ResetRequested:
                continue
            return agent
        raise AssertionError("the device restarts for ever")

    def settle(self, agent: Agent) -> None:
        """Step until only timers remain; those of waiting for blocks are let run out."""
        for _ in range(100_000):
            if agent.step():
                continue
            if agent.state is not State.WAITING_FOR_FILE_BLOCK:
                return
            self.clock.now_s += 10
        raise AssertionError("the agent doesn't come to rest")
