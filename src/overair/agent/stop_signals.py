"""SIGTERM and SIGINT, without the race that waiting threads have with signal handlers."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable


def call_on_stop_signals(action: Callable[[], None]) -> None:
    """Call ``action`` on a thread of its own at each SIGTERM or SIGINT. To be called once, from the main thread.

    A Python handler runs only when the main thread next executes bytecode. If that thread is just about to wait on a lock, a
    signal wouldn't wake it. The interpreter's wake-up descriptor is written the moment the signal arrives, whatever it does.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        with writer:  # held open as long as this thread lives
            while reader.recv(1):
                action()

    threading.Thread(target=watch, name="stop signals", daemon=True).start()
