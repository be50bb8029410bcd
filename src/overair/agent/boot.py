"""The boot loader: verifies the active slot, counts the boot, runs the image as a process of its own, and goes back if it must.

It stays small and is never updated over the air: what an image does wrong, this program must survive.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from overair.agent.device_directory import DeviceDirectory, DeviceSettings, read_settings
from overair.agent.device_lock import sole_holder
from overair.agent.durable import Disk
from overair.agent.platform import PlatformImageState
from overair.agent.settings import EXIT_STATUS_RESET, JSON_VARIABLE
from overair.agent.slots import SlotNotBootable, SlotState, SlotStore, verify_slot
from overair.wire.image import MAIN_FILE, InvalidImage, read_manifest

LOG = logging.getLogger("overair.boot")

STOP_TIMEOUT_S: Final = 8.0
RESTART_DELAY_S_MIN: Final = 0.1
RESTART_DELAY_S_MAX: Final = 2.0
QUICK_END_S: Final = 10.0
"""An image that ran at least this long isn't in a crash loop: the delay starts over."""

_LAUNCH_ENTRY: Final = (
    "import sys, zipimport; del sys.argv[0]; entry = sys.argv.pop(1); sys.path.insert(0, sys.argv[0]); "
    "exec(compile(zipimport.zipimporter(sys.argv[0]).get_data(entry), f'{sys.argv[0]}/{entry}', 'exec'))"
)


class NothingToBoot(Exception):
    """No slot holds an image that may run; the message says why and what to do."""


class Step(Enum):
    """What the state of the slots demands before anything runs."""

    BOOT = auto()
    FALL_BACK = auto()
    """The active image had its trial and didn't accept itself, or was rejected."""
    NOTHING = auto()


def next_step(state: SlotState) -> Step:
    """One image on trial boots once; without an acceptance it doesn't boot again."""
    if state.active is None:
        return Step.NOTHING
    if state.image_state is PlatformImageState.INVALID:
        return Step.FALL_BACK
    if state.image_state is PlatformImageState.PENDING_COMMIT and state.boots >= 1:
        return Step.FALL_BACK
    return Step.BOOT


def fallen_back(state: SlotState) -> SlotState:
    """The other slot active again, the failed image forgotten.

    Raises:
        NothingToBoot: the other slot holds nothing that ever accepted itself.
    """
    assert state.active is not None
    previous = state.inactive
    record = state.record(previous)
    if record is None or not record.accepted:
        raise NothingToBoot(
            f"Slot {state.active} failed and slot {previous} holds no accepted image. Flash one: overair-device flash DIR IMAGE"
        )
    return replace(state.with_record(state.active, None), active=previous, image_state=PlatformImageState.VALID, boots=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How an image's process ended: its exit status, negative for a signal."""

    status: int


class BootLoader:
    """Runs a device until it is told to stop."""

    def __init__(
        self,
        directory: DeviceDirectory,
        *,
        disk: Disk | None = None,
        monotonic: Callable[[], float],
        say: Callable[[str], None],
        json_lines: bool = False,
    ) -> None:
        """``json_lines``: standard output is one JSON object a line, and the image must hold to that."""
        self._directory = directory
        self._disk = disk or Disk()
        self._slots = SlotStore(directory, self._disk)
        self._monotonic = monotonic
        self._say = say
        self._environment = {**os.environ, JSON_VARIABLE: "json" if json_lines else ""}
        self._events: SimpleQueue[Ended | None] = SimpleQueue()
        self._stopping = False

    def stop(self) -> None:
        """Ask for the end; from any thread."""
        self._stopping = True
        self._events.put(None)

    def run(self) -> int:
        """Boot, again and again, until stopped or until an image ends itself with status 0.

        Raises:
            BadDeviceDirectory: the directory isn't a device's, or another boot loader runs it.
            NothingToBoot: no slot may run.
        """
        settings = read_settings(self._directory)
        with sole_holder(self._directory):
            try:
                self._boot_until_stopped(settings)
            finally:
                (self._directory.run / "boot.json").unlink(missing_ok=True)
        return 0

    def _boot_until_stopped(self, settings: DeviceSettings) -> None:
        delay = RESTART_DELAY_S_MIN
        while not self._stopping:
            started = self._monotonic()
            ended = self._boot_once(settings)
            if self._stopping or ended.status == 0:
                return
            if ended.status == EXIT_STATUS_RESET:
                continue
            self._say(f"the image ended with status {ended.status}")
            if self._monotonic() - started >= QUICK_END_S:
                delay = RESTART_DELAY_S_MIN
            self._pause(delay)
            delay = min(delay * 2, RESTART_DELAY_S_MAX)

    def choose(self) -> tuple[str, Path]:
        """Go back if the state demands it, verify, count the boot; (slot, file to run).

        Raises:
            NothingToBoot
        """
        state = self._slots.read()
        step = next_step(state)
        if step is Step.NOTHING:
            raise NothingToBoot("No image was ever flashed. Flash one: overair-device flash DIR IMAGE")
        if step is Step.FALL_BACK:
            self._say(f"slot {state.active} didn't accept itself: going back to slot {state.inactive}")
            state = fallen_back(state)
            self._slots.write(state)
        slot, path = self._verified(state)
        state = self._slots.read()
        try:
            self._slots.write(replace(state, boots=state.boots + 1))
        except OSError as error:
            # The boots of an accepted image are only for people. One on trial must be counted: it has one.
            if state.image_state is not PlatformImageState.VALID:
                raise NothingToBoot(
                    f"The boot of an image on trial can't be recorded: {error}. Make room on the disk."
                ) from None
            self._say(f"this boot can't be recorded: {error}")
        return slot, path

    def _verified(self, state: SlotState) -> tuple[str, Path]:
        while True:
            assert state.active is not None
            slot, record = state.active, state.record(state.active)
            try:
                if record is None:
                    raise SlotNotBootable(f"Slot {slot} is empty.")
                return slot, verify_slot(self._directory, slot, record)
            except SlotNotBootable as error:
                self._say(f"{error} Going back to slot {state.inactive}.")
                # Ends: the failed slot's record is gone, so a second failure finds nothing to go back to.
                state = fallen_back(state)
                self._slots.write(state)

    def _boot_once(self, settings: DeviceSettings) -> Ended:
        slot, path = self.choose()
        process = subprocess.Popen(command_for(self._directory, path), stdin=subprocess.PIPE, env=self._environment)
        self._write_pids(process.pid, slot)
        self._say(f"slot {slot} runs as process {process.pid}")
        threading.Thread(target=lambda: self._events.put(Ended(status=process.wait())), daemon=True).start()
        deadline = None
        if self._slots.read().image_state is PlatformImageState.PENDING_COMMIT:
            deadline = self._monotonic() + settings.self_test_timeout_s
        try:
            return self._supervise(process, deadline)
        finally:
            if process.stdin is not None:
                process.stdin.close()

    def _supervise(self, process: subprocess.Popen[bytes], trial_deadline: float | None) -> Ended:
        """Wait for the image's end; end it if it is told to stop, or still on trial at the deadline."""
        deadline = trial_deadline
        ended: Ended | None = None
        while ended is None:
            try:
                event = self._events.get(timeout=None if deadline is None else max(0.0, deadline - self._monotonic()))
            except Empty:
                if self._stopping:
                    process.kill()
                elif self._slots.read().image_state is not PlatformImageState.VALID:
                    self._say("the image on trial didn't accept itself in time: ending it")
                    process.kill()
                deadline = None
                continue
            if event is None:
                process.terminate()
                deadline = self._monotonic() + STOP_TIMEOUT_S
            else:
                ended = event
        return ended

    def _pause(self, seconds: float) -> None:
        """Wait before another start; a stop ends the wait."""
        try:
            self._events.get(timeout=seconds)
        except Empty:
            return

    def _write_pids(self, image_pid: int, slot: str) -> None:
        text = json.dumps({"pid": os.getpid(), "image_pid": image_pid, "slot": slot}) + "\n"
        temporary = self._directory.run / "boot.json.new"
        try:
            temporary.write_text(text)
            temporary.replace(self._directory.run / "boot.json")
        except OSError as error:
            self._say(f"what runs can't be shown: {error}")


def command_for(directory: DeviceDirectory, image: Path) -> list[str]:
    """How an image is run: by the device's interpreter, isolated, with the slot's file in the command line.

    Raises:
        NothingToBoot: the image can't be read.
    """
    try:
        with image.open("rb") as file:
            entry = read_manifest(file).entry
    except (OSError, InvalidImage) as error:
        raise NothingToBoot(f"{image} can't be run: {error}") from None
    flags = ["--device", str(directory.root), "--supervised"]
    if entry == MAIN_FILE:
        return [sys.executable, "-I", str(image), *flags]
    return [sys.executable, "-I", "-c", _LAUNCH_ENTRY, str(image), entry, *flags]
