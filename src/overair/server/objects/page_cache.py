"""Reading what the kernel holds in memory already, without a thread: it answers at once or says that the disk is needed."""

from __future__ import annotations

import os
from typing import Final

# Linux has it; elsewhere every read goes to a thread.
_WITHOUT_WAITING: Final = getattr(os, "RWF_NOWAIT", None)


def read_if_in_memory(descriptor: int, size_bytes: int, offset_bytes: int) -> bytes | None:
    """Exactly ``size_bytes`` from ``offset_bytes`` on; None where some of them would have to come from the disk, lie beyond
    the file's end, or where the system can't tell."""
    if _WITHOUT_WAITING is None:
        return None
    buffer = bytearray(size_bytes)
    try:
        read_bytes = os.preadv(descriptor, [buffer], offset_bytes, _WITHOUT_WAITING)
    except OSError:
        # EAGAIN, or a file system that doesn't have it: the thread's read tells what is wrong, if anything is.
        return None
    return bytes(buffer) if read_bytes == size_bytes else None
