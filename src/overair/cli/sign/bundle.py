"""``credentials.zip``: what a signing tool is given to begin with (Uptane reference §10). Read with bounds, nothing extracted.

Ours for signing, and the combined one that OTA Connect's tools know. Device secrets and foreign keys in it aren't touched.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from overair.cli.sign.ends import usage
from overair.cli.sign.tree import Access
from overair.wire.strict_json import MalformedJson, decode_object

ENTRY_SIZE_BYTES_MAX: Final = 1024 * 1024
ENTRIES_MAX: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What of it concerns signing."""

    operator_url: str
    director_url: str
    access: Access
    server_ca: bytes | None
    root: bytes | None
    """The Image repository's root to trust first."""
    director_root: bytes | None


def read_bundle(path: Path) -> Bundle:
    """Raises:
    SignEnded: USAGE: no such zip, or nothing in it says where the server is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if len(archive.infolist()) > ENTRIES_MAX:
                raise usage(f"{path} has more than {ENTRIES_MAX} entries: no credentials.zip.")
            entries = {name: _entry(archive, name) for name in _WANTED if name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise usage(f"{path} is no zip that can be read: {error}.") from None
    if "tufrepo.url" not in entries:
        raise usage(f"{path} doesn't say where the repository is (no tufrepo.url in it): ask for a bundle for signing.")
    operator = _url(entries["tufrepo.url"], path).removesuffix("/api/v1/user_repo")
    director = _url(entries["api_gateway.url"], path) if "api_gateway.url" in entries else operator
    return Bundle(
        operator_url=operator,
        director_url=director.removesuffix("/api/v1/director/admin/repo"),
        access=_access(entries.get("treehub.json"), path, has_client_certificate="client_auth.p12" in entries),
        server_ca=entries.get("server_ca.pem"),
        root=entries.get("root.json"),
        director_root=entries.get("director_root.json"),
    )


_WANTED: Final = (
    "tufrepo.url",
    "api_gateway.url",
    "treehub.json",
    "server_ca.pem",
    "root.json",
    "director_root.json",
    "client_auth.p12",
)


def _access(treehub: bytes | None, path: Path, *, has_client_certificate: bool) -> Access:
    try:
        document: dict[str, Any] = decode_object(treehub or b"{}", size_bytes_max=ENTRY_SIZE_BYTES_MAX, depth_max=8)
        oauth2 = document.get("oauth2")
        if oauth2 is not None:
            server = str(oauth2["server"]).rstrip("/")
            return Access(
                kind="oauth2",
                key_id=str(oauth2["client_id"]),
                secret=str(oauth2["client_secret"]),
                token_url=server if server.endswith("/token") else f"{server}/token",
            )
        if document.get("no_auth") is True:
            return Access(kind="open")
    except (MalformedJson, KeyError, TypeError, AttributeError):
        raise usage(f"The treehub.json in {path} can't be understood.") from None
    if has_client_certificate:
        raise usage(f"{path} proves itself by a client certificate, which this server doesn't take: ask for an OAuth2 bundle.")
    raise usage(f"{path} holds no right to speak to the server (no oauth2 in treehub.json): ask for a bundle for signing.")


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        data = file.read(ENTRY_SIZE_BYTES_MAX + 1)
    if len(data) > ENTRY_SIZE_BYTES_MAX:
        raise usage(f"{name} in the zip is longer than {ENTRY_SIZE_BYTES_MAX} bytes.")
    return data


def _url(data: bytes, path: Path) -> str:
    text = data.decode("ascii", "replace").strip().rstrip("/")
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname:
        raise usage(f"{path} names {text[:200]!r} as the server: only https:// is spoken.")
    return text
