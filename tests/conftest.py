"""Where tests keep their files: in memory, where there is enough of it. A suite that waits for thousands of fsyncs measures a
disk, and what is lost with the power is asked by tests that cut it by hand."""

from __future__ import annotations

import os
from pathlib import Path

MEMORY = Path("/dev/shm")
FREE_SIZE_BYTES_MIN = 6 * 1024**3
TEMPROOT = "PYTEST_DEBUG_TEMPROOT"


def pytest_configure() -> None:
    if TEMPROOT not in os.environ and _is_fit(MEMORY):
        os.environ[TEMPROOT] = str(MEMORY)


def _is_fit(folder: Path) -> bool:
    """Large enough for images of a gibibyte, and programs may be run from there."""
    if not os.access(folder, os.W_OK):
        return False
    told = os.statvfs(folder)
    return not told.f_flag & os.ST_NOEXEC and told.f_bavail * told.f_frsize >= FREE_SIZE_BYTES_MIN
