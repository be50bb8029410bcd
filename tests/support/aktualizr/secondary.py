"""A virtual Secondary: an ECU that aktualizr plays itself, with a key, an image and metadata of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from tests.support.aktualizr.errors import MetadataFetchFailure, UptaneError
from tests.support.aktualizr.keys import EcuKey, PublicKey
from tests.support.aktualizr.manifests import SHA256_OF_NOTHING, version_report
from tests.support.aktualizr.metadata import Target, version_untrusted
from tests.support.aktualizr.repositories import DirectorRepository, ImageRepository
from tests.support.aktualizr.storage import InstallationResult, Repository

NO_IMAGE = "noimage"


class _FromPrimary:
    """What the Primary has stored, as the source of a Secondary's metadata."""

    def __init__(self, kept: Repository) -> None:
        self._kept = kept

    def fetch(self, file_name: str, *, size_bytes_max: int) -> bytes:
        if file_name.endswith(".root.json"):
            data = self._kept.roots.get(int(file_name.partition(".")[0]))
        else:
            data = self._kept.roles.get(file_name.removesuffix(".json"))
        if data is None:
            raise MetadataFetchFailure(file_name)
        return data


class VirtualSecondary:
    """RSA-2048 whatever the Primary's key is. It knows no delegations."""

    def __init__(self, serial: str, hardware_id: str, now: Callable[[], str], *, key: EcuKey | None = None) -> None:
        self.serial, self.hardware_id = serial, hardware_id
        self._key = key or EcuKey.generate("RSA2048")
        self._director = DirectorRepository(Repository(), now)
        self._image_repository = ImageRepository(Repository(), now)
        self._installed_name = NO_IMAGE
        self._installed_bytes = b""
        self._detected_attack = ""
        self.is_reachable = True
        self.fails_with: str | None = None
        """A result code that the next installation ends with."""

    @property
    def public_key(self) -> PublicKey:
        return self._key.public

    @property
    def image(self) -> bytes:
        return self._installed_bytes

    def manifest(self) -> dict[str, Any] | None:
        if not self.is_reachable:
            return None
        sha256 = hashlib.sha256(self._installed_bytes).hexdigest() if self._installed_bytes else SHA256_OF_NOTHING
        report = version_report(
            self.serial, self._installed_name, len(self._installed_bytes), sha256, attacks_detected=self._detected_attack
        )
        return self._key.signed(report)

    def put_metadata(self, director: Repository, image: Repository) -> InstallationResult:
        """Checks everything for itself, with a first root of its own."""
        self._detected_attack = ""
        for name, repository, kept in (
            ("Director", self._director, director),
            ("Image repo", self._image_repository, image),
        ):
            try:
                self._catch_up(repository, kept)
                repository.update(_FromPrimary(kept))
            except UptaneError as error:
                self._detected_attack = f"Failed to update {name} metadata: {error}"
                return InstallationResult.of("VERIFICATION_FAILED", self._detected_attack)
        assert self._director.targets is not None
        top_level = self._image_repository.targets
        assert top_level is not None
        for wanted in self._director.targets.targets:
            if not any(wanted.matches(each) for each in top_level.targets):
                self._detected_attack = "Targets metadata from the Director and Image repositories do not match"
                return InstallationResult.of("VERIFICATION_FAILED", self._detected_attack)
        return InstallationResult.of("OK")

    def install(self, target: Target, data: bytes) -> InstallationResult:
        if self.fails_with is not None:
            code, self.fails_with = self.fails_with, None
            return InstallationResult.of(code)
        self._installed_bytes, self._installed_name = data, target.name
        return InstallationResult.of("OK")

    @staticmethod
    def _catch_up(repository: DirectorRepository | ImageRepository, kept: Repository) -> None:
        """A Secondary that has no root takes the Primary's latest, as a first root; one that has walks the chain."""
        latest = kept.latest_root
        if not repository.kept.roots and latest is not None:
            repository.kept.roots[version_untrusted(latest)] = latest
