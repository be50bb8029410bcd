"""Images of the old server, read into the directory: each once, by its hash, and on from where an earlier attempt stopped."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overair.cli.migrate.layout import ExportDirectory
from overair.cli.migrate.source import Source
from overair.cli.rest import RestRefused, RestUnreachable
from overair.wire.uptane.metadata import TargetFile

TRIES: Final = 5
_HASH: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What became of one image."""

    is_here: bool = False
    is_elsewhere: bool = False
    """Devices get it from somewhere else, or it is no file."""
    warning: str = ""


class ImageFetcher:
    """``after_step`` is told of each image that has come whole."""

    def __init__(self, source: Source, directory: ExportDirectory, after_step: Callable[[str], None]) -> None:
        self._source, self._directory, self._after_step = source, directory, after_step

    def fetch(self, target: TargetFile) -> Fetched:
        """Raises:
        RestRefused, RestUnreachable
        """
        if target.uri is not None:
            return Fetched(is_elsewhere=True)
        if target.custom.get("targetFormat", "BINARY") != "BINARY":
            return Fetched(is_elsewhere=True, warning=f"{target.name} is an OSTree commit: its objects stay in TreeHub.")
        if not _HASH.fullmatch(target.sha256):
            return Fetched(warning=f"{target.name} has no SHA-256: its bytes couldn't be checked, so they aren't taken.")
        path = self._directory.image_file(target.sha256)
        if path.exists() and path.stat().st_size == target.length:
            return Fetched(is_here=True)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._download(target, path)

    def _download(self, target: TargetFile, path: Path) -> Fetched:
        part = path.with_name(f"{path.name}.part")
        for attempt in range(1, TRIES + 1):
            try:
                status = self._read_on(target, part)
            except RestUnreachable:
                if attempt == TRIES:
                    raise
                continue
            if status in (404, 410):
                return Fetched(warning=f"{target.name}: the server lists it and has lost its bytes ({status}).")
            if status not in (200, 206, 416):
                raise RestRefused(f"{target.name} can't be had: the server answers {status}.")
            if status != 416 and sha256_of(part) == target.sha256:
                part.replace(path)
                self._after_step(f"image {target.name}")
                return Fetched(is_here=True)
            part.unlink(missing_ok=True)
        return Fetched(warning=f"{target.name}: what the server sends isn't what its targets say; it isn't taken.")

    def _read_on(self, target: TargetFile, part: Path) -> int:
        """Go on where an earlier attempt stopped; the answer's status."""
        begun = part.stat().st_size if part.exists() else 0
        if begun >= target.length:
            begun = 0
        with self._source.file(target.name, from_byte=begun) as opened:
            if opened.status not in (200, 206):
                return opened.status
            with part.open("ab" if opened.status == 206 and begun else "wb") as file:
                room = target.length - file.tell()
                for piece in opened.pieces:
                    room -= len(piece)
                    if room < 0:
                        break  # longer than targets say: it isn't that image, and nobody reads on
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            return opened.status


def sha256_of(path: Path) -> str:
    """Of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
