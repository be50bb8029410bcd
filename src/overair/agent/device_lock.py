"""One program at a time has a device in its hands: its boot loader, or whoever flashes it; and one Uptane client at a time."""

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
    with _held(directory, "boot.lock", f"{directory.root} is already running under a boot loader. Stop that first."):
        yield


@contextmanager
def sole_client(directory: DeviceDirectory) -> Iterator[None]:
    """Be the device's one Uptane client: two would use each other's report counters.

    Raises:
        BadDeviceDirectory: another process is.
    """
    with _held(directory, "uptane.lock", f"{directory.root} is in the hands of another Uptane client. Stop that first."):
        yield


@contextmanager
def _held(directory: DeviceDirectory, name: str, refusal: str) -> Iterator[None]:
    directory.run.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(directory.run / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadDeviceDirectory(refusal) from None
        yield
    finally:
        os.close(descriptor)
