"""Roots and the Image repository over one set of records, and a signing tool that knows nothing but wire/uptane."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import ed25519

from overair.basics.arn import Place
from overair.basics.clock import Instant, SettableClock
from overair.basics.ids import AccountId, IdSource, RandomIds
from overair.basics.work import Tx
from overair.server.image_repository.model import TargetFormat, TargetPlan
from overair.server.image_repository.publication import Publisher
from overair.server.image_repository.pushing import Push, Pushes
from overair.server.image_repository.service import ImageRepositoryService
from overair.server.image_repository.status import RepositoryStatuses
from overair.server.image_repository.store import SqlDocumentStore, SqlTargetStore
from overair.server.keyring.service import Keyring
from overair.server.keyring.store import SqlKeyStore
from overair.server.keyring.wrapping import open_secret_box
from overair.server.objects.model import ContentId
from overair.server.roots.probes import RootProbes
from overair.server.roots.service import BOTH, RootsService
from overair.server.roots.store import SqlRootStore
from overair.server.storage.work import SqlWork
from overair.wire.uptane.keys import Flavour, PublicKey, public_key_of
from overair.wire.uptane.metadata import Body, Delegation, Repository, Role, RoleKeys, Root, TargetFile, Targets
from overair.wire.uptane.metadata_writing import MetadataSigner, payload, sign_payload

T = TypeVar("T")

DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True)
class OfflineKey:
    """A key that the server never sees."""

    private: ed25519.Ed25519PrivateKey = field(default_factory=ed25519.Ed25519PrivateKey.generate)

    @property
    def public_key(self) -> PublicKey:
        return public_key_of(self.private.public_key())

    def sign(self, data: bytes) -> bytes:
        return self.private.sign(data)


class Use:
    """What vehicles are said to need: name → words."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def targets_in_use(self, tx: Tx, account: AccountId, names: object) -> Mapping[str, str]:
        assert isinstance(names, set | list | frozenset | tuple | type({}.keys()))
        return {name: words for name, words in self.names.items() if name in names}


@dataclass
class ImageRoom:
    """The rooms joined as the composition root joins them, with the blocking ways of tests."""

    work: SqlWork
    clock: SettableClock
    place: Place
    roots: RootsService
    images: ImageRepositoryService
    pushes: Pushes
    keyring: Keyring
    in_use: Use
    published: list[AccountId]
    statuses: RepositoryStatuses
    probes: RootProbes
    when_published: Callable[[AccountId], None] = lambda _account: None

    @classmethod
    def open(cls, work: SqlWork, clock: SettableClock, ids: IdSource, place: Place, folder: Path) -> ImageRoom:
        box = open_secret_box(folder / "wrapping.key", passphrase=None, ids=RandomIds())
        keyring = Keyring(SqlKeyStore(), box, clock=clock, ids=RandomIds())
        roots = RootsService(store=SqlRootStore(), keys=keyring, clock=clock, ids=ids)
        documents, targets = SqlDocumentStore(), SqlTargetStore()
        publisher = Publisher(roots=roots, documents=documents, published=lambda account: room.told(account))
        in_use = Use()
        images = ImageRepositoryService(
            roots=roots, documents=documents, targets=targets, publisher=publisher, in_use=in_use, clock=clock
        )
        roots.kept_by(Repository.IMAGE, images)
        pushes = Pushes(roots=roots, images=images, publisher=publisher, targets=targets, clock=clock)
        probes = RootProbes(work=work, store=SqlRootStore(), clock=clock)
        statuses = RepositoryStatuses(roots=roots, images=images, targets=targets, probes=probes)
        room = cls(work, clock, place, roots, images, pushes, keyring, in_use, [], statuses, probes)
        return room

    def told(self, account: AccountId) -> None:
        """What the publisher says after each commit."""
        self.published.append(account)
        self.when_published(account)

    @property
    def account(self) -> AccountId:
        return self.place.account

    def run(self, unit: Callable[[Tx], T]) -> T:
        return self.work.run_blocking(unit)

    def read(self, query: Callable[[Tx], T]) -> T:
        return self.work.read_blocking(query)

    def create(self) -> ImageRoom:
        self.run(lambda tx: self.roots.create(tx, self.place, Repository.IMAGE))
        return self

    def push(self, push: Push) -> object:
        return self.run(lambda tx: self.pushes.push(tx, self.place, push))

    def root(self) -> Root:
        """The newest accepted."""
        return self.read(lambda tx: self.roots.accepted(tx, self.account, Repository.IMAGE)).root

    def targets(self) -> Targets:
        return self.read(lambda tx: self.images.current(tx, self.account)).targets

    def checksum(self) -> str:
        return self.read(lambda tx: self.images.checksum(tx, self.account))

    def document(self, role: str, flavour: Flavour = Flavour.UPTANE) -> bytes:
        return self.read(lambda tx: self.images.document(tx, self.account, role, flavour)).document

    def server_signers(self, role: Role) -> Sequence[MetadataSigner]:
        return self.read(lambda tx: self.roots.signers(tx, self.account, Repository.IMAGE, role))

    def next_root(self, **roles: tuple[Sequence[OfflineKey], int]) -> Root:
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
            expires=self.in_days(365),
            keys={key_id: key for key_id, key in keys.items() if key_id in named},
            roles=role_keys,
        )

    def next_targets(self, files: Mapping[str, TargetFile] | None = None, **changes: object) -> Targets:
        standing = self.targets()
        return replace(
            standing,
            version=standing.version + 1,
            expires=self.in_days(31),
            targets=standing.targets if files is None else files,
            **changes,  # type: ignore[arg-type]
        )

    def in_days(self, days: float) -> Instant:
        return Instant((self.clock.now() + int(days * DAY_MS)) // 1000 * 1000)

    def take_offline(self, root_key: OfflineKey, targets_key: OfflineKey) -> None:
        """Both roles of the Image repository, in one publication."""
        root = self.next_root(root=([root_key], 1), targets=([targets_key], 1))
        targets = self.next_targets()
        self.push(
            Push(
                root=signed(root, [root_key, *self.server_signers(Role.ROOT)]),
                targets=signed(targets, [targets_key]),
                checksum=self.checksum(),
            )
        )


def signed(body: Body, signers: Sequence[MetadataSigner], flavours: Sequence[Flavour] = BOTH) -> dict[Flavour, bytes]:
    """A document in both flavours, as a signing tool writes it."""
    return {flavour: sign_payload(payload(body, flavour), signers, flavour) for flavour in flavours}


def plan(name: str, content: bytes = b"image", **changes: object) -> TargetPlan:
    """An image whose bytes lie in the store."""
    digest = hashlib.sha256(content).hexdigest()
    described = TargetPlan(
        name=name,
        length=len(content),
        sha256=digest,
        display_name=name.split("-")[0],
        version="1.0",
        hardware_ids=("gw-imx8",),
        format=TargetFormat.BINARY,
        content_id=ContentId(digest),
    )
    return replace(described, **changes)  # type: ignore[arg-type]


def target_file(name: str, content: bytes = b"image", **custom: object) -> TargetFile:
    """A target as a signing tool describes it."""
    return TargetFile(
        name=name,
        length=len(content),
        hashes={"sha256": hashlib.sha256(content).hexdigest()},
        custom={
            "name": name.split("-")[0],
            "version": "1.0",
            "hardwareIds": ["gw-imx8"],
            "targetFormat": "BINARY",
            "uri": "https://images.example/" + name,
            "createdAt": "2026-01-01T00:00:00Z",
            "updatedAt": "2026-01-01T00:00:00Z",
            **custom,
        },
    )


def delegation(name: str, keys: Sequence[OfflineKey], paths: Sequence[str], threshold: int = 1) -> Delegation:
    return Delegation(
        name=name, keys=RoleKeys(key_ids=tuple(key.public_key.id for key in keys), threshold=threshold), paths=tuple(paths)
    )
