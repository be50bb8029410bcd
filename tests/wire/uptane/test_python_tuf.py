"""TUF's own client reads what we sign in its flavour, and we read what its library signs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from securesystemslib.signer import CryptoSigner
from tuf.api import metadata as tuf_api
from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.ngclient import FetcherInterface, Updater

from overair.basics.clock import WallClock
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role
from overair.wire.uptane.refusals import Reason
from overair.wire.uptane.search import FoundTarget, search
from overair.wire.uptane.trust import Accepted, TrustedSet
from tests.support.uptane_repository import KeyHolder, UptaneRepository, target_file
from tests.support.uptane_trust import NOW, reason_of

FIRMWARE = b"firmware, version two"
EXPIRES = datetime(2030, 1, 1, tzinfo=UTC)


class InMemory(FetcherInterface):
    """Serves a test repository's files, and images by name."""

    def __init__(self, repository: UptaneRepository, images: dict[str, bytes]) -> None:
        self.repository = repository
        self.images = images

    def _fetch(self, url: str) -> Iterator[bytes]:
        folder, _, name = unquote(urlsplit(url).path).lstrip("/").partition("/")
        document = self.repository.document
        data = document(name) or document(f"delegations/{name}") if folder == "metadata" else self.images.get(name)
        if data is None:
            raise DownloadHTTPError("not there", 404)
        yield data


def updater(repository: UptaneRepository, folder: Path, images: dict[str, bytes] | None = None) -> Updater:
    (folder / "images").mkdir(exist_ok=True)
    return Updater(
        metadata_dir=str(folder),
        metadata_base_url="https://test/metadata/",
        target_dir=str(folder / "images"),
        target_base_url="https://test/images/",
        fetcher=InMemory(repository, images or {}),
        bootstrap=repository.files["1.root.json"],
    )


def served(*, consistent_snapshot: bool = False) -> UptaneRepository:
    """Today's repository, since TUF's client asks the machine's own clock."""
    repository = UptaneRepository(now=WallClock().now, flavour=Flavour.TUF, consistent_snapshot=consistent_snapshot)
    repository.keys[Role.SNAPSHOT] = [KeyHolder(rsa.generate_private_key(65537, 2048))]
    repository.keys[Role.TIMESTAMP] = [KeyHolder(ec.generate_private_key(ec.SECP256R1()))]
    repository.publish_root()
    repository.publish()
    return repository


@pytest.mark.parametrize("consistent_snapshot", [False, True])
def test_tufs_client_finds_and_fetches_what_we_signed(tmp_path: Path, consistent_snapshot: bool) -> None:
    repository = served(consistent_snapshot=consistent_snapshot)
    target = target_file("vendor/app.bin", FIRMWARE, hardware_ids=["gw"])
    repository.delegate("vendor", ["vendor/*"], target, terminating=True)
    client = updater(repository, tmp_path, {"vendor/app.bin": FIRMWARE, f"vendor/{target.sha256}.app.bin": FIRMWARE})
    info = client.get_targetinfo("vendor/app.bin")
    assert info is not None
    assert (info.length, info.hashes, info.custom) == (len(FIRMWARE), target.hashes, {"hardwareIds": ["gw"]})
    assert Path(client.download_target(info)).read_bytes() == FIRMWARE
    assert client.get_targetinfo("other/app.bin") is None


def test_tufs_client_follows_our_roots_and_resists_what_it_should(tmp_path: Path) -> None:
    repository = served()
    updater(repository, tmp_path).refresh()
    repository.rotate(Role.ROOT, Role.TIMESTAMP, count=2)
    updater(repository, tmp_path).refresh()
    assert tuf_api.Metadata[tuf_api.Root].from_file(str(tmp_path / "root.json")).signed.version == 3
    repository.keys[Role.TARGETS] = [KeyHolder()]
    repository.publish()
    with pytest.raises(RepositoryError):
        updater(repository, tmp_path).refresh()


@pytest.mark.parametrize("role", Role)
def test_tufs_library_verifies_each_of_our_documents(role: Role) -> None:
    repository = served()
    root = tuf_api.Metadata[tuf_api.Root].from_bytes(repository.files["root.json"])
    document = tuf_api.Metadata[tuf_api.Signed].from_bytes(repository.files[f"{role.value}.json"])
    result = root.signed.get_verification_result(role.value, document.signed_bytes, document.signatures)
    assert result.verified
    assert len(result.signed) == 1
    assert document.signed.version == getattr(repository, role.value).version


# --- the other way ---

KEYS = {
    "ed25519": CryptoSigner.generate_ed25519,
    "rsa": CryptoSigner.generate_rsa,
    "ecdsa": CryptoSigner.generate_ecdsa,
}


def signed(body: tuf_api.Signed, *signers: CryptoSigner) -> bytes:
    document = tuf_api.Metadata(body)
    for signer in signers:
        document.sign(signer, append=True)
    return document.to_bytes()


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("by_hash", [False, True], ids=["by-path", "by-hash"])
def test_we_believe_what_tufs_library_signed(kind: str, by_hash: bool) -> None:
    signers = {role.value: KEYS[kind]() for role in Role}
    vendor = CryptoSigner.generate_ed25519()
    root = tuf_api.Root(expires=EXPIRES)
    for role, signer in signers.items():
        root.add_key(signer.public_key, role)
    found = tuf_api.TargetFile.from_data("app.bin", FIRMWARE, ["sha256", "sha512"])
    delegated = tuf_api.Targets(expires=EXPIRES, targets={"app.bin": found})
    role = tuf_api.DelegatedRole(
        "vendor",
        [vendor.public_key.keyid],
        1,
        True,
        None if by_hash else ["app.*"],
        [f"{digit:x}" for digit in range(16)] if by_hash else None,
    )
    delegations = tuf_api.Delegations({vendor.public_key.keyid: vendor.public_key}, {"vendor": role})
    targets = tuf_api.Targets(expires=EXPIRES, delegations=delegations)
    vendor_data, targets_data = signed(delegated, vendor), signed(targets, signers["targets"])
    meta = {
        "targets.json": tuf_api.MetaFile.from_data(1, targets_data, ["sha256"]),
        "vendor.json": tuf_api.MetaFile.from_data(1, vendor_data, ["sha512"]),
    }
    snapshot = signed(tuf_api.Snapshot(expires=EXPIRES, meta=meta), signers["snapshot"])
    timestamp = tuf_api.Timestamp(expires=EXPIRES, snapshot_meta=tuf_api.MetaFile.from_data(1, snapshot, ["sha256"]))
    first = signed(root, signers["root"])
    trusted = TrustedSet.begin(first, repository=Repository.IMAGE, flavour=Flavour.TUF)
    new = KEYS[kind]()
    root.add_key(new.public_key, "root")
    root.version = 2
    assert isinstance(trusted.update_root(signed(root, signers["root"], new)), Accepted)
    assert isinstance(trusted.update_timestamp(signed(timestamp, signers["timestamp"]), now=NOW), Accepted)
    assert isinstance(trusted.update_snapshot(snapshot, now=NOW), Accepted)
    assert isinstance(trusted.update_targets(targets_data, now=NOW), Accepted)
    walk = search("app.bin", trusted, now=NOW)
    assert next(walk).name == "vendor"
    with pytest.raises(StopIteration) as ended:
        walk.send(vendor_data)
    assert isinstance(ended.value.value, FoundTarget)
    assert ended.value.value.target.hashes == found.hashes
    forged = signed(timestamp, CryptoSigner.generate_ed25519())
    assert reason_of(trusted.update_timestamp(forged, now=NOW)) is Reason.BAD_KEY_ID
