"""Another server's two repositories, as they are before they move: OTA Connect's, with a chain of several roots, images with
bytes and without, and a delegation. Nothing here knows how they are taken over."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from overair.basics.clock import Instant
from overair.wire.uptane.keys import Flavour, PublicKey
from overair.wire.uptane.metadata import Body, Repository, Role, RoleKeys, Root, TargetFile, Targets
from overair.wire.uptane.metadata_writing import MetadataSigner, payload, sign_payload
from tests.support.uptane_repository import DAY, UptaneRepository

ELSEWHERE = "https://images.example/dash-7"


def described(name: str, content: bytes, *hardware_ids: str, **custom: Any) -> TargetFile:
    """An image's entry as OTA Connect writes it."""
    return TargetFile(
        name=name,
        length=len(content),
        hashes={"sha256": hashlib.sha256(content).hexdigest()},
        custom={
            "name": name.rpartition("-")[0],
            "version": name.rpartition("-")[2],
            "hardwareIds": list(hardware_ids or ("gw-imx8",)),
            "targetFormat": "BINARY",
            "uri": None,
            "createdAt": "2025-05-01T10:00:00Z",
            "updatedAt": "2025-05-01T10:00:00Z",
            **custom,
        },
    )


@dataclass
class OldServer:
    """``image`` and ``director`` say what is served; ``contents`` the bytes by target name."""

    now: Instant
    image: UptaneRepository = field(init=False)
    director: UptaneRepository = field(init=False)
    contents: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.image = UptaneRepository(Repository.IMAGE, now=lambda: self.now)
        self.director = UptaneRepository(Repository.DIRECTOR, now=lambda: self.now)
        for repository in (self.image, self.director):
            repository.rotate(Role.ROOT)
            repository.rotate(Role.TARGETS, Role.TIMESTAMP)
        self.put("gateway-1", b"gateway one")
        self.put("gateway-2", b"gateway two")
        self.image.add_target(described("dash-7", b"dash seven", "cluster-s32", uri=ELSEWHERE))
        vendor = described("vendor-b/radio-3", b"radio three", "radio")
        self.contents[vendor.name] = b"radio three"
        self.image.delegate("vendor-b", ["vendor-b/*"], vendor)

    def put(self, name: str, content: bytes, *hardware_ids: str, **custom: Any) -> TargetFile:
        """An image with its bytes."""
        self.contents[name] = content
        return self.image.add_target(described(name, content, *hardware_ids, **custom))

    def of(self, repository: Repository) -> UptaneRepository:
        return self.image if repository is Repository.IMAGE else self.director

    def roots(self, repository: Repository) -> list[bytes]:
        old = self.of(repository)
        return [old.files[f"{version}.root.json"] for version in range(1, old.root.version + 1)]

    def root_keys(self, repository: Repository) -> Sequence[MetadataSigner]:
        """What the old server's ``root/private_keys`` would hand out."""
        return self.of(repository).keys[Role.ROOT]

    def next_root(self, repository: Repository, own: Mapping[Role, PublicKey], *, days: int = 365) -> Root:
        """The root that hands these roles over."""
        standing = self.of(repository).root
        roles = {**standing.roles, **{role.value: RoleKeys(key_ids=(key.id,), threshold=1) for role, key in own.items()}}
        named = {key_id for keys in roles.values() for key_id in keys.key_ids}
        keys = {**standing.keys, **{key.id: key for key in own.values()}}
        return replace(
            standing,
            version=standing.version + 1,
            expires=Instant(self.now + days * DAY),
            keys={key_id: key for key_id, key in keys.items() if key_id in named},
            roles=roles,
        )

    def next_targets(self, *, days: int = 31) -> Targets:
        """The same targets, signed anew."""
        return replace(self.image.targets, version=self.image.targets.version + 1, expires=Instant(self.now + days * DAY))


def in_both(body: Body, signers: Sequence[MetadataSigner]) -> dict[Flavour, bytes]:
    """In each flavour, as a signing tool writes it."""
    return {flavour: sign_payload(payload(body, flavour), signers, flavour) for flavour in Flavour}
