"""``credentials.zip``: what a signing tool is given to begin with (Uptane reference §10).

Ours for signing, and the combined one that OTA Connect's tools know. Device secrets and foreign keys in it aren't touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overair.cli.credentials_zip import BundleUnreadable, OAuth2Client, https_url, oauth2_client, read_entries
from overair.cli.sign.ends import usage
from overair.cli.sign.tree import Access


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


_WANTED: Final = (
    "tufrepo.url",
    "api_gateway.url",
    "treehub.json",
    "server_ca.pem",
    "root.json",
    "director_root.json",
    "client_auth.p12",
)


def read_bundle(path: Path) -> Bundle:
    """Raises:
    SignEnded: USAGE: no such zip, or nothing in it says where the server is.
    """
    try:
        entries = read_entries(path, _WANTED)
        if "tufrepo.url" not in entries:
            raise usage(f"{path} doesn't say where the repository is (no tufrepo.url in it): ask for a bundle for signing.")
        operator = https_url(entries["tufrepo.url"], path).removesuffix("/api/v1/user_repo")
        director = https_url(entries["api_gateway.url"], path) if "api_gateway.url" in entries else operator
        if "client_auth.p12" in entries and "treehub.json" not in entries:
            raise usage(
                f"{path} proves itself by a client certificate, which this server doesn't take: ask for an OAuth2 bundle."
            )
        access = _access(oauth2_client(entries.get("treehub.json"), path))
    except BundleUnreadable as error:
        raise usage(f"{error.message} Ask for a bundle for signing.") from None
    return Bundle(
        operator_url=operator,
        director_url=director.removesuffix("/api/v1/director/admin/repo"),
        access=access,
        server_ca=entries.get("server_ca.pem"),
        root=entries.get("root.json"),
        director_root=entries.get("director_root.json"),
    )


def _access(client: OAuth2Client | None) -> Access:
    if client is None:
        return Access(kind="open")
    return Access(kind="oauth2", key_id=client.client_id, secret=client.secret.reveal(), token_url=client.token_url)
