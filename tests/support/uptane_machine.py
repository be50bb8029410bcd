"""A Uptane device with slots and without processes: ``boot`` does the boot loader's part, ``run`` the image's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from overair.agent.boot import Step, fallen_back, next_step
from overair.agent.durable import Disk
from overair.agent.flash import flash
from overair.agent.platform import ResetRequested
from overair.agent.platforms.posix import PosixPlatform
from overair.agent.slots import SlotStore, verify_slot
from overair.agent.uptane.outcomes import Outcome
from overair.wire.image import ImageManifest, read_manifest
from tests.support.device import HARDWARE, cached_image
from tests.support.uptane_vehicle import Vehicle


class UptaneMachine(Vehicle):
    """Flashed with version 1.0.0."""

    def __init__(self, root: Path, **members: Any) -> None:
        super().__init__(root, hardware_id=HARDWARE, **{"install": {"slot": True}, **members})
        self.boots: list[str] = []
        self._manifest: ImageManifest | None = None
        image = self.root / "first.zip"
        image.write_bytes(cached_image("1.0.0"))
        flash(self.directory, image, signature=None)

    def platform(self) -> PosixPlatform:
        assert self._manifest is not None, "boot first"
        return PosixPlatform(self.directory, self.settings, running_image=self._manifest, disk=self.disk)

    @property
    def slots(self) -> SlotStore:
        return SlotStore(self.directory, self.disk)

    @property
    def version(self) -> str | None:
        """Of the image that is active."""
        state = self.slots.read()
        record = state.record(state.active) if state.active else None
        return record.version if record else None

    def boot(self) -> UptaneMachine:
        """What the boot loader does; the next ``round`` is the image's."""
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
            self._manifest = read_manifest(file)
        self.boots.append(str(self._manifest.version))
        self.restart()
        return self

    def run(self) -> Outcome:
        """Boot, and boot again as long as the image asks for it; the outcome of the round that didn't."""
        for _ in range(10):
            self.boot()
            try:
                return self.round()
            except ResetRequested:
                continue
        raise AssertionError("the device restarts for ever")

    def with_power(self) -> UptaneMachine:
        """Nothing fails any more."""
        self.disk = Disk()
        return self
