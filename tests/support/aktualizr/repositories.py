"""The Director's and the Image repository's metadata, fetched, checked and kept in aktualizr's order (Uptane reference §5).

What aktualizr leaves out is left out here as well: no Director timestamp or snapshot; any failure ends the chain of roots; a
newer empty Director document doesn't take the place of an older one that named something.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Callable
from typing import Protocol

from tests.support.aktualizr import jsoncpp
from tests.support.aktualizr.errors import (
    DelegationHashMismatch,
    DelegationMissing,
    ExpiredMetadata,
    InvalidMetadata,
    MetadataFetchFailure,
    RootRotationError,
    SecurityException,
    UptaneError,
    VersionMismatch,
)
from tests.support.aktualizr.metadata import Root, Snapshot, Target, Targets, Timestamp, version_untrusted
from tests.support.aktualizr.storage import Repository

ROOT_SIZE_BYTES_MAX = 64 * 1024
DIRECTOR_TARGETS_SIZE_BYTES_MAX = 64 * 1024
TIMESTAMP_SIZE_BYTES_MAX = 64 * 1024
SNAPSHOT_SIZE_BYTES_MAX = 64 * 1024
IMAGE_TARGETS_SIZE_BYTES_MAX = 8 * 1024 * 1024
DELEGATIONS_DEPTH_MAX = 5


class Fetcher(Protocol):
    """Where documents come from: a server, or a Primary's storage for its Secondaries."""

    def fetch(self, file_name: str, *, size_bytes_max: int) -> bytes:
        """Raises: MetadataFetchFailure."""


class RepositoryCommon:
    """Roots of either repository."""

    def __init__(self, kept: Repository, now: Callable[[], str]) -> None:
        self.kept = kept
        self.root: Root | None = None
        self._now = now

    def _begin_with(self, data: bytes) -> None:
        root = Root(data)
        root.check_itself()
        self.root = root

    def check_next_root(self, data: bytes) -> None:
        assert self.root is not None
        following = Root(data)
        self.root.check_next(following)
        if following.version != self.root.version + 1:
            raise RootRotationError(f"version {following.version} after {self.root.version}")
        self.root = following

    def update_root(self, fetcher: Fetcher) -> None:
        latest = self.kept.latest_root
        if latest is None:
            latest = fetcher.fetch("1.root.json", size_bytes_max=ROOT_SIZE_BYTES_MAX)
            self._begin_with(latest)
            self.kept.roots[1] = latest
        else:
            self._begin_with(latest)
        assert self.root is not None
        while True:
            version = self.root.version + 1
            try:
                data = fetcher.fetch(f"{version}.root.json", size_bytes_max=ROOT_SIZE_BYTES_MAX)
            except UptaneError:
                break  # 404, 403, 424, 500: all of them mean that there is none
            self.take_next_root(data)
        self._check_root_expired()

    def take_next_root(self, data: bytes) -> None:
        self.check_next_root(data)
        assert self.root is not None
        self.kept.roots[self.root.version] = data
        self.kept.roles.clear()

    def _check_root_expired(self) -> None:
        assert self.root is not None
        if self.root.base.is_expired(self._now()):
            raise ExpiredMetadata("root")

    def _load_root(self) -> Root:
        latest = self.kept.latest_root
        if latest is None:
            raise SecurityException("Could not load latest root")
        self._begin_with(latest)
        self._check_root_expired()
        assert self.root is not None
        return self.root


class DirectorRepository(RepositoryCommon):
    def __init__(self, kept: Repository, now: Callable[[], str]) -> None:
        super().__init__(kept, now)
        self.targets: Targets | None = None
        """What is acted on."""
        self._latest: Targets | None = None
        self.correlation_id = ""

    def reset(self) -> None:
        self.root, self.targets, self._latest = None, None, None

    def update(self, fetcher: Fetcher) -> None:
        self.reset()
        self.update_root(fetcher)
        data = fetcher.fetch("targets.json", size_bytes_max=DIRECTOR_TARGETS_SIZE_BYTES_MAX)
        remote, local = version_untrusted(data), -1
        kept = self.kept.roles.get("targets")
        if kept is not None:
            local = version_untrusted(kept)
            try:
                self._check(kept)
            except UptaneError:
                self.targets = None
        self._check(data)
        if local > remote:
            raise SecurityException("Rollback attempt")
        if local < remote and not self._keeps_previous():
            self.kept.roles["targets"] = data
        self._check_expired_and_sane()

    def check_offline(self) -> None:
        self.reset()
        self._load_root()
        kept = self.kept.roles.get("targets")
        if kept is None:
            raise SecurityException("Could not load Targets role")
        self._check(kept)
        self._check_expired_and_sane()

    def drop_targets(self) -> None:
        """After a failure: the server is listened to again."""
        self.kept.roles.clear()
        self.reset()

    def _check(self, data: bytes) -> None:
        assert self.root is not None
        self._latest = Targets(data, self.root)
        if not self._keeps_previous():
            self.targets = self._latest
            self.correlation_id = self._latest.correlation_id

    def _keeps_previous(self) -> bool:
        assert self._latest is not None
        return self.targets is not None and bool(self.targets.targets) and not self._latest.targets

    def _check_expired_and_sane(self) -> None:
        assert self._latest is not None
        assert self.targets is not None
        if self._latest.base.is_expired(self._now()):
            raise ExpiredMetadata("targets")
        if self._latest.delegations:
            raise InvalidMetadata("Found unexpected delegation.")
        serials = [serial for target in self.targets.targets for serial in target.ecus]
        if len(serials) != len(set(serials)):
            raise InvalidMetadata("Found repeated ECU ID.")


class ImageRepository(RepositoryCommon):
    def __init__(self, kept: Repository, now: Callable[[], str]) -> None:
        super().__init__(kept, now)
        self.targets: Targets | None = None
        self._timestamp: Timestamp | None = None
        self._snapshot: Snapshot | None = None

    def reset(self) -> None:
        self.root, self.targets, self._timestamp, self._snapshot = None, None, None, None

    def update(self, fetcher: Fetcher) -> None:
        self.reset()
        self.update_root(fetcher)
        self._update_timestamp(fetcher)
        self._update_snapshot(fetcher)
        self._update_targets(fetcher)

    def check_offline(self) -> None:
        self.reset()
        self._load_root()
        self._take_timestamp(self._kept("timestamp"))
        assert self._timestamp is not None
        self._check_expired(self._timestamp.base.expires, "timestamp")
        self._take_snapshot(self._kept("snapshot"))
        assert self._snapshot is not None
        self._check_expired(self._snapshot.base.expires, "snapshot")
        self._take_targets(self._kept("targets"))
        assert self.targets is not None
        self._check_expired(self.targets.base.expires, "targets")

    def find(self, wanted: Target, fetcher: Fetcher | None) -> Target | None:
        """The entry that agrees with the Director's, down the delegations; ``fetcher`` None for what is kept alone."""
        if self.targets is None:
            return None
        return self._find(self.targets, wanted, 0, is_terminating=False, fetcher=fetcher)

    def _update_timestamp(self, fetcher: Fetcher) -> None:
        data = fetcher.fetch("timestamp.json", size_bytes_max=TIMESTAMP_SIZE_BYTES_MAX)
        kept = self.kept.roles.get("timestamp")
        local = version_untrusted(kept) if kept is not None else -1
        self._take_timestamp(data)
        assert self._timestamp is not None
        if local > self._timestamp.base.version:
            raise SecurityException("Rollback attempt")
        self.kept.roles["timestamp"] = data
        self._check_expired(self._timestamp.base.expires, "timestamp")

    def _update_snapshot(self, fetcher: Fetcher) -> None:
        assert self._timestamp is not None
        local = -1
        kept = self.kept.roles.get("snapshot")
        is_current = False
        if kept is not None:
            try:
                self._take_snapshot(kept)
                is_current = True
            except UptaneError:
                pass
            # Known only when the kept one's hash agreed: a new hash finds no version to compare with.
            local = self._snapshot.base.version if self._snapshot is not None else -1
        if not is_current:
            size = self._timestamp.snapshot_length
            data = fetcher.fetch("snapshot.json", size_bytes_max=size if size > 0 else SNAPSHOT_SIZE_BYTES_MAX)
            self._take_snapshot(data)
            assert self._snapshot is not None
            if local > self._snapshot.base.version:
                raise SecurityException("Rollback attempt")
            self.kept.roles["snapshot"] = data
        assert self._snapshot is not None
        self._check_expired(self._snapshot.base.expires, "snapshot")

    def _update_targets(self, fetcher: Fetcher) -> None:
        local = -1
        kept = self.kept.roles.get("targets")
        is_current = False
        if kept is not None:
            try:
                self._take_targets(kept)
                is_current = True
            except UptaneError:
                pass
            local = self.targets.version if self.targets is not None else -1
        if not is_current:
            data = fetcher.fetch("targets.json", size_bytes_max=IMAGE_TARGETS_SIZE_BYTES_MAX)
            self._take_targets(data)
            assert self.targets is not None
            if local > self.targets.version:
                raise SecurityException("Rollback attempt")
            self.kept.roles["targets"] = data
        assert self.targets is not None
        self._check_expired(self.targets.base.expires, "targets")

    def _kept(self, role: str) -> bytes:
        data = self.kept.roles.get(role)
        if data is None:
            raise SecurityException(f"Could not load {role} role")
        return data

    def _take_timestamp(self, data: bytes) -> None:
        assert self.root is not None
        self._timestamp = Timestamp(data, self.root)

    def _take_snapshot(self, data: bytes) -> None:
        assert self.root is not None
        assert self._timestamp is not None
        known = {kind: digest for kind, digest in self._timestamp.snapshot_hashes.items() if kind in ("sha256", "sha512")}
        if not known or not _hashes_agree(data, known):
            raise SecurityException("Snapshot metadata hash verification failed")
        self._snapshot = Snapshot(data, self.root)
        if self._snapshot.base.version != self._timestamp.snapshot_version:
            raise VersionMismatch("snapshot")

    def _take_targets(self, data: bytes) -> None:
        assert self.root is not None
        assert self._snapshot is not None
        if not _hashes_agree(data, self._snapshot.hashes.get("targets", {})):
            raise SecurityException("Snapshot hash mismatch for targets metadata")
        self.targets = Targets(data, self.root)
        if self.targets.version != self._snapshot.versions.get("targets", -1):
            raise VersionMismatch("targets")

    def _check_expired(self, expires: str, role: str) -> None:
        if expires < self._now():
            raise ExpiredMetadata(role)

    def _find(
        self, within: Targets, wanted: Target, level: int, *, is_terminating: bool, fetcher: Fetcher | None
    ) -> Target | None:
        for target in within.targets:
            if target.matches(wanted):
                return target
        if is_terminating or level >= DELEGATIONS_DEPTH_MAX:
            return None
        for role in within.delegations:
            if not any(fnmatch.fnmatchcase(wanted.name, pattern) for pattern in role.paths):
                continue
            delegated = self._delegated(role.name, within, fetcher)
            if delegated.base.is_expired(self._now()):
                continue
            found = self._find(delegated, wanted, level + 1, is_terminating=role.is_terminating, fetcher=fetcher)
            if found is not None:
                return found
        return None

    def _delegated(self, name: str, parent: Targets, fetcher: Fetcher | None) -> Targets:
        assert self._snapshot is not None
        expected = self._snapshot.versions.get(name, -1)
        data = self.kept.delegations.get(name)
        if data is not None:
            if version_untrusted(data) > expected:
                raise SecurityException("Rollback attempt on delegated targets")
            if version_untrusted(data) < expected:
                del self.kept.delegations[name]
                data = None
        is_remote = data is None
        if data is None:
            if fetcher is None:
                raise DelegationMissing(name)
            try:
                data = fetcher.fetch(f"delegations/{name}.json", size_bytes_max=IMAGE_TARGETS_SIZE_BYTES_MAX)
            except MetadataFetchFailure as error:
                raise DelegationMissing(name) from error
        if not _hashes_agree(data, self._snapshot.hashes.get(name, {})):
            raise DelegationHashMismatch(name)
        delegated = Targets(data, parent, role=name)
        if is_remote:
            if delegated.version != expected:
                raise VersionMismatch(name)
            self.kept.delegations[name] = data
        return delegated


def _hashes_agree(data: bytes, named: dict[str, str]) -> bool:
    """Over the canonical form of the whole document, not over the bytes that came."""
    canonical = jsoncpp.bytes_of(jsoncpp.parse(data))
    return all(
        hashlib.new(kind, canonical).hexdigest().upper() == digest
        for kind, digest in named.items()
        if kind in ("sha256", "sha512")
    )
