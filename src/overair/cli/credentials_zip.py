"""Reading a ``credentials.zip`` that somebody hands us (Uptane reference §10). With bounds; nothing is extracted."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from overair.basics.redacted import Redacted
from overair.wire.strict_json import MalformedJson, decode_object

ENTRY_SIZE_BYTES_MAX: Final = 1024 * 1024
ENTRIES_MAX: Final = 64


class BundleUnreadable(Exception):
    """``message`` says what of it, for people."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth2Client:
    """A right to ask by OAuth2 client credentials."""

    token_url: str
    client_id: str
    secret: Redacted[str]


def read_entries(path: Path, wanted: Iterable[str]) -> dict[str, bytes]:
    """Those of the wanted entries that are there, each of at most ``ENTRY_SIZE_BYTES_MAX``; the others aren't touched.

    Raises:
        BundleUnreadable: no zip, or one beyond these bounds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if len(archive.infolist()) > ENTRIES_MAX:
                raise BundleUnreadable(f"{path} has more than {ENTRIES_MAX} entries: no credentials.zip.")
            names = set(archive.namelist())
            return {name: _entry(archive, name) for name in wanted if name in names}
    except (OSError, zipfile.BadZipFile) as error:
        raise BundleUnreadable(f"{path} is no zip that can be read: {error}.") from None


def oauth2_client(treehub: bytes | None, path: Path) -> OAuth2Client | None:
    """What ``treehub.json`` allows; None where it says that nobody is asked for a right.

    Raises:
        BundleUnreadable: it can't be understood, or gives no right.
    """
    try:
        document: dict[str, Any] = decode_object(treehub or b"{}", size_bytes_max=ENTRY_SIZE_BYTES_MAX, depth_max=8)
        oauth2 = document.get("oauth2")
        if oauth2 is None:
            if document.get("no_auth") is True:
                return None
            raise BundleUnreadable(f"{path} holds no right to speak to the server: no oauth2 in treehub.json.")
        server = str(oauth2["server"]).rstrip("/")
        return OAuth2Client(
            token_url=server if server.endswith("/token") else f"{server}/token",
            client_id=str(oauth2["client_id"]),
            secret=Redacted(str(oauth2["client_secret"])),
        )
    except (MalformedJson, KeyError, TypeError, AttributeError):
        raise BundleUnreadable(f"The treehub.json in {path} can't be understood.") from None


def https_url(text: str | bytes, where: object) -> str:
    """An address without its last slash.

    Raises:
        BundleUnreadable: not https://, or without a host.
    """
    text = (text.decode("ascii", "replace") if isinstance(text, bytes) else text).strip().rstrip("/")
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname:
        raise BundleUnreadable(f"{where} names {text[:200]!r} as the server: only https:// is spoken.")
    return text


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        data = file.read(ENTRY_SIZE_BYTES_MAX + 1)
    if len(data) > ENTRY_SIZE_BYTES_MAX:
        raise BundleUnreadable(f"{name} in the zip is longer than {ENTRY_SIZE_BYTES_MAX} bytes.")
    return data
