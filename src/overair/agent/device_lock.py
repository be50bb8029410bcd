"""One program at a time has a device in its hands: its boot loader, or whoever flashes it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from overair.agent.device_directory import BadDeviceDirectory, DeviceDirectory


@contextmanager
def sole_holder(directory: DeviceDirectory) -> Iterator[None]:
    """Hold the device. The lock is the kernel's: it goes with the process, however that ends.

    Raises:
        BadDeviceDirectory: another process holds it.
    """
    directory.run.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(directory.run / "boot.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadDeviceDirectory(f"{directory.root} is already running under a boot loader. Stop that first.") from None
        yield
    finally:
        os.close(descriptor)
