"""The production composition, driven by a test: ``server_main.py up FLAGS``.

Standard input takes one JSON command a line and answers each with one line:

- ``{"advance_ms": N}`` moves the schedule clock (jobs, windows, presign expiry), which otherwise runs with the wall clock;
- ``{"cut_after": STEP}`` makes the process end itself, as by a power cut, right after that named step has committed;
- ``{"cut_after_signatures": N}`` does so in the middle of a unit of work: after N more signatures by keys of Uptane roles.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
from typing import Any

from overair.basics.clock import Clock, Instant, WallClock
from overair.basics.ids import RandomIds
from overair.cli import up

CUT_STATUS = 86
"""What the process ends with when it was told to cut itself."""


class ShiftedClock:
    """The wall clock plus what a test has added."""

    def __init__(self, wall: Clock) -> None:
        self._wall = wall
        self._shift_ms = 0

    def now(self) -> Instant:
        return Instant(self._wall.now() + self._shift_ms)

    def advance(self, milliseconds: int) -> None:
        self._shift_ms += milliseconds


class Drive:
    """What the test's commands act on."""

    def __init__(self) -> None:
        self.schedule_clock = ShiftedClock(WallClock())
        self.cut_after: str | None = None
        self.signatures_left: int | None = None
        self.server: Any = None
        self.loop: asyncio.AbstractEventLoop | None = None

    def after_step(self, step: str) -> None:
        if step == self.cut_after:
            os._exit(CUT_STATUS)

    def after_signature(self) -> None:
        if self.signatures_left is None:
            return
        self.signatures_left -= 1
        if self.signatures_left == 0:
            os._exit(CUT_STATUS)

    def obey(self) -> None:
        for line in sys.stdin:
            command = json.loads(line)
            if "advance_ms" in command:
                self.schedule_clock.advance(command["advance_ms"])
                assert self.loop is not None
                self.loop.call_soon_threadsafe(self.server.wake_workers)
            if "cut_after" in command:
                self.cut_after = command["cut_after"]
            if "cut_after_signatures" in command:
                self.signatures_left = command["cut_after_signatures"]
            print(json.dumps({"done": command}), flush=True)


def main() -> None:
    gc.disable()  # as `overair up` imports the server
    from overair.server import app as composition
    from overair.server.roots.role_keys import KeyringSigner

    gc.freeze()
    gc.enable()
    drive = Drive()
    build = composition.build_server

    def build_driven(settings: Any, **_: Any) -> Any:
        drive.loop = asyncio.get_running_loop()
        drive.server = build(
            settings, clock=WallClock(), ids=RandomIds(), schedule_clock=drive.schedule_clock, after_step=drive.after_step
        )
        return drive.server

    sign = KeyringSigner.sign

    def sign_and_count(signer: KeyringSigner, data: bytes) -> bytes:
        signature = sign(signer, data)
        drive.after_signature()
        return signature

    KeyringSigner.sign = sign_and_count  # type: ignore[method-assign]
    composition.build_server = build_driven  # `up` composes through this name; production has no such switch
    threading.Thread(target=drive.obey, daemon=True).start()
    import typer

    application = typer.Typer()
    application.command()(up.up)
    application.callback()(lambda: None)
    application()


if __name__ == "__main__":
    main()
