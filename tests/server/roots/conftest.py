"""Root chains over real records, without a repository that keeps them: a root that is accepted is published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest

from overair.basics.arn import Place
from overair.basics.clock import Instant, SettableClock
from overair.basics.ids import RandomIds, SeededIds
from overair.basics.work import Tx
from overair.server.keyring.service import Keyring
from overair.server.keyring.store import SqlKeyStore
from overair.server.keyring.wrapping import open_secret_box
from overair.server.roots.model import RootPushed
from overair.server.roots.service import RootsService
from overair.server.roots.store import SqlRootStore
from overair.server.storage.work import SqlWork
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role, RoleKeys, Root
from overair.wire.uptane.metadata_writing import MetadataSigner
from tests.support.image_room import DAY_MS, OfflineKey

T = TypeVar("T")


@dataclass
class RootRoom:
    work: SqlWork
    clock: SettableClock
    place: Place
    roots: RootsService
    keyring: Keyring
    repository: Repository = Repository.IMAGE

    def run(self, unit: Callable[[Tx], T]) -> T:
        return self.work.run_blocking(unit)

    def read(self, query: Callable[[Tx], T]) -> T:
        return self.work.read_blocking(query)

    def create(self, **options: object) -> None:
        self.run(lambda tx: self.roots.create(tx, self.place, self.repository, **options))  # type: ignore[arg-type]

    def root(self) -> Root:
        return self.read(lambda tx: self.roots.current(tx, self.place.account, self.repository)).root

    def signers(self, role: Role = Role.ROOT) -> Sequence[MetadataSigner]:
        return self.read(lambda tx: self.roots.signers(tx, self.place.account, self.repository, role))

    def document(self, version: int | None, flavour: Flavour = Flavour.UPTANE) -> bytes:
        return self.read(lambda tx: self.roots.document(tx, self.place.account, self.repository, version, flavour))

    def held(self) -> set[str]:
        """The key ids of the private keys that are here."""
        return {key.key_id for key in self.read(lambda tx: self.roots.keys.all(tx, self.place.account, self.repository))}

    def push(self, documents: dict[Flavour, bytes], **options: bool) -> RootPushed:
        return self.run(lambda tx: self.roots.push(tx, self.place, self.repository, documents, **options))

    def next(self, **roles: tuple[Sequence[OfflineKey], int]) -> Root:
        """The root that follows, with these roles' keys and thresholds in place of the present ones."""
        standing = self.root()
        keys, role_keys = dict(standing.keys), dict(standing.roles)
        for name, (held, threshold) in roles.items():
            keys |= {key.public_key.id: key.public_key for key in held}
            role_keys[name] = RoleKeys(key_ids=tuple(key.public_key.id for key in held), threshold=threshold)
        named = {key_id for each in role_keys.values() for key_id in each.key_ids}
        return replace(
            standing,
            version=standing.version + 1,
            expires=self.in_days(300),
            keys={key_id: key for key_id, key in keys.items() if key_id in named},
            roles=role_keys,
        )

    def in_days(self, days: float) -> Instant:
        return Instant((self.clock.now() + int(days * DAY_MS)) // 1000 * 1000)


@pytest.fixture
def room(work: SqlWork, clock: SettableClock, ids: SeededIds, place: Place, tmp_path: Path) -> RootRoom:
    box = open_secret_box(tmp_path / "wrapping.key", passphrase=None, ids=RandomIds())
    keyring = Keyring(SqlKeyStore(), box, clock=clock, ids=RandomIds())
    return RootRoom(work, clock, place, RootsService(store=SqlRootStore(), keys=keyring, clock=clock, ids=ids), keyring)
