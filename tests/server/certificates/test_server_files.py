"""The user's own server certificate: what is taken, what is refused and why, and when a file counts as changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from overair.basics.clock import Instant, from_datetime
from overair.basics.errors import InvalidRequest
from overair.server.certificates.server_files import ServerFiles
from tests.support import pki

NOW = Instant(from_datetime(datetime(2026, 11, 27, tzinfo=UTC)))
HOSTS = ("ota.example", "127.0.0.1")


def names(*dns: str, ip: str | None = "127.0.0.1") -> tuple[x509.ExtensionType, bool]:
    found: list[x509.GeneralName] = [x509.DNSName(name) for name in dns]
    if ip is not None:
        found.append(x509.IPAddress(ip_address(ip)))
    return x509.SubjectAlternativeName(found), False


def server(issuer: pki.Held, *dns: str, **more: Any) -> pki.Held:
    ip = more.pop("ip", "127.0.0.1")
    purposes = more.pop("purposes", pki.SERVER)
    return pki.device(issuer, "ota.example", purposes=purposes, more=[names(*(dns or ("ota.example",)), ip=ip)], **more)


@dataclass
class Folder:
    path: Path

    def put(self, leaf: pki.Held, root: pki.Held, *, chain_pem: str | None = None, key_pem: str | None = None) -> ServerFiles:
        (self.path / "server.pem").write_text(leaf.chain_pem if chain_pem is None else chain_pem)
        (self.path / "server.key").write_text(leaf.key_pem if key_pem is None else key_pem)
        (self.path / "root.pem").write_text(root.pem)
        return ServerFiles(
            certificate_file=self.path / "server.pem", key_file=self.path / "server.key", ca_file=self.path / "root.pem"
        )


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_chain_is_shown_from_the_leaf_up_and_its_root_is_who_clients_trust(folder: Folder) -> None:
    root = pki.authority("Root")
    leaf = server(pki.authority("Between", root))
    files = folder.put(leaf, root)
    identity = files.read(HOSTS, now=NOW)
    assert identity.certificate_pem == leaf.chain_pem
    assert (identity.authority_pem, files.anchors_pem) == (root.pem, root.pem)
    assert identity.not_after == from_datetime(pki.DIES)


@pytest.mark.parametrize("dns", ["ota.example", "OTA.example", "*.example"])
def test_a_name_is_compared_as_clients_do(folder: Folder, dns: str) -> None:
    root = pki.authority("Root")
    folder.put(server(root, dns), root).read(HOSTS, now=NOW)


def _refusals() -> dict[str, Any]:
    root, stranger = pki.authority("Root"), pki.authority("Stranger")
    between = pki.authority("Between", root)
    early, late = datetime(2020, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    leaf = server(between)
    return {
        "No authority in": (server(stranger), root, {}),
        "isn't the issuer": (leaf, root, {"chain_pem": leaf.pem + stranger.pem + between.pem}),
        "Add the certificates between": (leaf, root, {"chain_pem": leaf.pem}),
        "doesn't name ota.example": (server(root, "other.example"), root, {}),
        "doesn't name 127.0.0.1": (server(root, ip=None), root, {}),
        "not now": (server(root, born=early, dies=late), root, {}),
        "serverAuth": (server(root, purposes=pki.CLIENT), root, {}),
        "isn't that of the first certificate": (leaf, root, {"key_pem": stranger.key_pem}),
        "one unencrypted private key": (leaf, root, {"key_pem": "no key"}),
        "is not in PEM form": (leaf, root, {"chain_pem": "nothing"}),
    }


REFUSALS = _refusals()


@pytest.mark.parametrize("why", REFUSALS)
def test_what_clients_would_refuse_is_refused_by_name(folder: Folder, why: str) -> None:
    leaf, root, more = REFUSALS[why]
    with pytest.raises(InvalidRequest, match=why):
        folder.put(leaf, root, **more).read(HOSTS, now=NOW)


def test_a_file_that_is_missing_is_named(folder: Folder) -> None:
    root = pki.authority("Root")
    files = folder.put(server(root), root)
    (folder.path / "server.key").unlink()
    with pytest.raises(InvalidRequest, match=r"server\.key: It can't be read"):
        files.read(HOSTS, now=NOW)


def test_a_change_is_told_once(folder: Folder) -> None:
    root = pki.authority("Root")
    files = folder.put(server(root), root)
    files.read(HOSTS, now=NOW)
    assert not files.changed()
    (folder.path / "server.pem").write_text("half of it")
    assert files.changed()
    assert not files.changed()
    (folder.path / "server.pem").unlink()
    assert files.changed()
    assert not files.changed()
