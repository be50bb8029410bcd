"""What a virtual device runs, remembered beside its identity: it keeps no image, but a fleet that is started again goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from overair.wire.image import ImageVersion, InvalidImage

STARTED_WITH: Final = ImageVersion(major=1, minor=0, build=0)


class RunningVersion:
    """``run/virtual-version``. Not durable, and needn't be: a device that lost it is a device that was reset."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "virtual-version"

    def read(self) -> ImageVersion:
        """The version; that of the factory where none is noted, or it can't be read."""
        try:
            return ImageVersion.parse(self._path.read_text("ascii").strip())
        except (OSError, ValueError, InvalidImage):
            return STARTED_WITH

    def write(self, version: ImageVersion) -> None:
        """Raises OSError."""
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        self._path.write_text(f"{version}\n", "ascii")

    def forget(self) -> None:
        """As from the factory. Raises OSError."""
        self._path.unlink(missing_ok=True)
