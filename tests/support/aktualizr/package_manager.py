"""The package manager ``none``: downloads and checks files; installing them changes nothing but what is remembered."""

from __future__ import annotations

import hashlib

from tests.support.aktualizr.curl import Http, RangeRefused, Sink, WriteRefused
from tests.support.aktualizr.metadata import Target
from tests.support.aktualizr.storage import InstallationResult, Storage

_UNESCAPED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")


def url_encoded(name: str) -> str:
    """Slashes stay; bytes beyond ASCII are escaped one by one, with capital digits."""
    return "".join(chr(byte) if byte in _UNESCAPED else f"%{byte:02X}" for byte in name.encode("utf-8"))


class PackageManagerNone:
    def __init__(self, storage: Storage, repo_url: str) -> None:
        self._storage, self._repo_url = storage, repo_url
        self.cut_after_bytes: list[int] = []
        """For tests: the connection of each next download goes away after so many bytes."""
        self.fails_with: str | None = None
        self.needs_reboot = False

    def file_of(self, target: Target) -> bytes:
        return bytes(self._storage.image_files.get(target.name, b""))

    def is_good(self, target: Target) -> bool:
        data = self._storage.image_files.get(target.name)
        return data is not None and len(data) == target.length and self._hash_agrees(target, data)

    def fetch_target(self, target: Target, curl: Http) -> bool:
        """One try. What is there already is gone on with, by Range; the bytes of an error's answer are kept as well."""
        if target.is_ostree or not target.hashes:
            return False
        if self.is_good(target):
            return True
        files = self._storage.image_files
        kept = files.get(target.name)
        if kept is None or len(kept) >= target.length:
            kept = files[target.name] = bytearray()
        cut = self.cut_after_bytes.pop(0) if self.cut_after_bytes else None
        while True:
            try:
                response = curl.download(self._url_of(target), self._sink(target, kept, cut), from_byte=len(kept))
            except RangeRefused:
                kept = files[target.name] = bytearray()
                continue
            except WriteRefused:
                return False  # more than the metadata says, or cut by the test
            break
        if not response.is_ok:
            return False
        if not self._hash_agrees(target, kept):
            del files[target.name]
            return False
        return True

    def install(self) -> InstallationResult:
        if self.fails_with is not None:
            code, self.fails_with = self.fails_with, None
            return InstallationResult.of(code)
        if self.needs_reboot:
            return InstallationResult.of("NEED_COMPLETION", "Application successful, need reboot")
        return InstallationResult.of("OK", "Installing package was successful")

    def _url_of(self, target: Target) -> str:
        return target.uri or f"{self._repo_url}/targets/{url_encoded(target.name)}"

    @staticmethod
    def _sink(target: Target, kept: bytearray, cut: int | None) -> Sink:
        def take(data: bytes) -> bool:
            if len(kept) + len(data) > target.length:
                return False
            kept.extend(data)
            return cut is None or len(kept) < cut

        return take

    @staticmethod
    def _hash_agrees(target: Target, data: bytes | bytearray) -> bool:
        kind = "sha256" if "sha256" in target.hashes else "sha512"
        return hashlib.new(kind, data).hexdigest().upper() == target.hashes[kind]
