"""The roots that hand over: made here, signed by the old root keys, whoever holds them.

What is signed is settled once and kept in the directory (``import/``), so that signatures which come later are over the same
bytes. The ceremony is ``overair sign``'s: the same request files, the same signature files. Uptane reference §9.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from overair.basics.clock import Clock, Instant
from overair.basics.redacted import Redacted
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.migrate.layout import Documents, ExportDirectory
from overair.cli.sign import ceremony
from overair.cli.sign.acceptance import check_content
from overair.cli.sign.ends import SignEnded, SignExit, told_plainly
from overair.cli.sign.holders import CheckedSigner, MemoryKey
from overair.cli.sign.items import ROOT, TARGETS, changes
from overair.cli.sign.key_records import KEY_FILE_SIZE_BYTES_MAX, read_private
from overair.cli.sign.known import Known, Served, verify
from overair.cli.sign.sealing import (
    DAY_MS,
    DAYS,
    Requirement,
    Sealed,
    SealedDocument,
    sign_with,
    unmet,
    wanted_keys,
)
from overair.cli.sign.tree import read_file
from overair.wire.uptane.keys import Flavour, PublicKey
from overair.wire.uptane.metadata import Repository, Role, RoleKeys, Root
from overair.wire.uptane.metadata_writing import MetadataSigner
from overair.wire.uptane.refusals import MetadataRefused

STAYS_DAYS_MIN: Final = 1
"""Old targets whose keys stay elsewhere go on as they are if they count for so long at least; else they are signed anew."""
SEALED_SIZE_BYTES_MAX: Final = 64 * 1024 * 1024


class Level(StrEnum):
    """Who signs what devices install, once the fleet has moved."""

    DEFAULT = "default"
    """The new server: it takes over all four roles."""
    PRODUCTION = "production"
    """Whoever signs today: root, and the Image repository's targets, stay with them."""


HANDED_OVER: Final[Mapping[Level, Mapping[Repository, tuple[Role, ...]]]] = {
    Level.DEFAULT: {repository: tuple(Role) for repository in Repository},
    Level.PRODUCTION: {
        Repository.IMAGE: (Role.SNAPSHOT, Role.TIMESTAMP),
        Repository.DIRECTOR: (Role.TARGETS, Role.SNAPSHOT, Role.TIMESTAMP),
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Signatures that nobody has given yet."""

    repository: Repository
    document: str
    version: int
    why: str
    count: int
    key_ids: tuple[str, ...]
    """Of whom any ``count`` will do."""

    def to_json(self) -> dict[str, Any]:
        return {
            "repository": self.repository.value,
            "document": self.document,
            "version": self.version,
            "signatures_missing": self.count,
            "key_ids": list(self.key_ids),
        }

    @property
    def text(self) -> str:
        keys = ", ".join(f"{key_id[:16]}…" for key_id in self.key_ids)
        return f"{self.repository} {self.document} version {self.version}: {self.count} of {keys} ({self.why})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One repository's handover."""

    known: Known
    sealed: Sealed
    own: Mapping[Role, PublicKey]

    @property
    def repository(self) -> Repository:
        return self.sealed.repository

    @property
    def root(self) -> Root:
        document = self.sealed.document(ROOT)
        assert document is not None
        assert isinstance(document.body, Root)
        return document.body

    @property
    def missing(self) -> list[Missing]:
        return [self._missing(each) for each in unmet(self.sealed, self.known)]

    @property
    def needed(self) -> list[Missing]:
        """Every signature of somebody else's that was ever asked, given or not."""
        bare = replace(self.sealed, documents=tuple(replace(each, signatures={}) for each in self.sealed.documents))
        return [self._missing(each, bare) for each in unmet(bare, self.known)]

    def documents(self) -> dict[str, dict[str, str]]:
        """As the import sends them: root, and targets where they are signed anew."""
        return {
            each.name: {flavour.value: each.assembled(flavour).decode("utf-8") for flavour in Flavour}
            for each in self.sealed.documents
        }

    def summary(self) -> list[str]:
        """What changes, from the bytes themselves."""
        lines = [f"The {self.repository} repository moves to another server."]
        for document in self.sealed.documents:
            found = changes(self.known.body(document.name), document.body, named=self.named)
            lines += [f"{document.name} version {document.body.version}:", *(f"  {change.text}" for change in found)]
        return lines

    def named(self, key_id: str) -> str:
        role = next((role for role, key in self.own.items() if key.id == key_id), None)
        return f"{key_id[:16]}…" if role is None else f"the new server's {role} key {key_id[:16]}…"

    def _missing(self, requirement: Requirement, sealed: Sealed | None = None) -> Missing:
        document = (sealed or self.sealed).document(requirement.document)
        assert document is not None
        open_ids = [key_id for key_id in requirement.role_keys.key_ids if key_id not in document.signed_by()]
        return Missing(
            repository=self.repository,
            document=document.name,
            version=document.body.version,
            why=requirement.why,
            count=requirement.missing(document),
            key_ids=tuple(open_ids),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Both repositories'."""

    parts: tuple[Part, ...]
    fresh: tuple[Repository, ...] = ()
    """Of these the documents were settled anew: earlier requests and signatures no longer count."""
    requests: Mapping[Repository, Path] = field(default_factory=dict)

    @property
    def missing(self) -> list[Missing]:
        return [each for part in self.parts for each in part.missing]

    @property
    def needed(self) -> list[Missing]:
        return [each for part in self.parts for each in part.needed]


def known_of(documents: Documents, repository: Repository, *, now: Instant) -> Known:
    """What the directory's documents say, believed as a client of the old server believes it.

    Raises:
        CommandEnded: REFUSED.
    """
    served = Served(
        roots=documents.roots,
        timestamp=documents.roles.get("timestamp"),
        snapshot=documents.roles.get("snapshot"),
        targets=documents.roles.get(TARGETS),
        delegations=documents.delegations,
    )
    try:
        return verify(served, repository, now=now)
    except MetadataRefused as refusal:
        where = f" ({refusal.field})" if refusal.field else ""
        raise CommandEnded(
            ExitCode.REFUSED, f"Devices wouldn't believe the exported {repository} repository: {refusal.message}{where}"
        ) from None


class Handovers:
    """Settles, signs and keeps what hands over."""

    def __init__(self, directory: ExportDirectory, *, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock

    def settle(
        self,
        known: Mapping[Repository, Known],
        own: Mapping[Repository, Mapping[Role, PublicKey]],
        level: Level,
        *,
        sign_targets: bool,
    ) -> Handover:
        """What was settled before, while it still says what is wanted; else anew. Nothing is written."""
        parts: list[Part] = []
        fresh: list[Repository] = []
        for repository in Repository:
            wanted = self._wanted(known[repository], own[repository], level, sign_targets=sign_targets)
            kept = self._kept(repository)
            if kept is None or not _says_the_same(kept, wanted, now=self._clock.now()):
                kept, fresh = wanted, [*fresh, repository]
            parts.append(Part(known=known[repository], sealed=kept, own=own[repository]))
            with _as_usual():
                check_content(kept, known[repository], now=self._clock.now())
        return Handover(parts=tuple(parts), fresh=tuple(fresh))

    def sign(self, handover: Handover, key_files: Sequence[Path], signature_files: Sequence[Path]) -> Handover:
        """Add what keys and signature files give; a file that is of no use is refused.

        Raises:
            CommandEnded: USAGE, REFUSED.
        """
        parts = {part.repository: part for part in handover.parts}
        with _as_usual():
            for path in key_files:
                signer = _signer(path)
                asked = [repository for repository, part in parts.items() if signer.public_key.id in _wanted(part)]
                if not asked:
                    raise CommandEnded(
                        ExitCode.USAGE,
                        f"Nobody asks the key {signer.public_key.id} in {path} to sign. Asked are: "
                        f"{'; '.join(each.text for each in handover.needed)}.",
                    )
                for repository in asked:
                    part = parts[repository]
                    parts[repository] = replace(part, sealed=sign_with(part.sealed, part.known, [signer]))
            for path in signature_files:
                detached = ceremony.read_signatures(read_file(path, ceremony.SIGNATURE_SIZE_BYTES_MAX), path=str(path))
                found = next((part for part in parts.values() if part.sealed.id == detached.request), None)
                if found is None:
                    raise CommandEnded(
                        ExitCode.REFUSED,
                        f"{path} answers the request {detached.request[:16]}…, which doesn't wait here: something has changed "
                        "since. Send the new request.",
                    )
                sealed = ceremony.collect(found.sealed, found.known, detached, path=str(path))
                parts[found.repository] = replace(found, sealed=sealed)
        return replace(handover, parts=tuple(parts.values()))

    def keep(self, handover: Handover) -> Handover:
        """Write down what is settled with the signatures that there are, and requests for those that are missing."""
        requests = {}
        for part in handover.parts:
            repository = part.repository
            self._directory.write_json(f"import/{repository}.sealed.json", ceremony.sealed_to_json(part.sealed))
            name = f"import/{repository}-root-{part.root.version}.request.json"
            if not part.missing:
                self._directory.remove(name)
                continue
            names = {key.id: part.named(key.id) for key in part.own.values()}
            with _as_usual():
                data = ceremony.write_request(part.sealed, part.known, part.summary(), names=names)
            requests[repository] = self._directory.write(name, data)
        return replace(handover, requests=requests)

    # ----------------------------------------------------------------------------------------------------------------------

    def _kept(self, repository: Repository) -> Sealed | None:
        name = f"import/{repository}.sealed.json"
        if not (self._directory.path / name).exists():
            return None
        document = self._directory.read_json(name, SEALED_SIZE_BYTES_MAX)
        try:
            return ceremony.sealed_from_json(document)
        except (KeyError, TypeError, ValueError, AttributeError, MetadataRefused):
            raise CommandEnded(ExitCode.USAGE, f"{self._directory.path / name} can't be understood: remove it.") from None

    def _wanted(self, known: Known, own: Mapping[Role, PublicKey], level: Level, *, sign_targets: bool) -> Sealed:
        now = self._clock.now()
        roles = HANDED_OVER[level][known.repository]
        root = replace(
            _with_keys(known.root, {role: own[role] for role in roles}),
            version=known.root.version + 1,
            expires=Instant(now // 1000 * 1000 + DAYS[ROOT] * DAY_MS),
        )
        documents = [SealedDocument(name=ROOT, body=root)]
        targets = known.targets
        stays = Role.TARGETS not in roles and targets is not None
        if stays and targets is not None and (sign_targets or targets.expires - now < STAYS_DAYS_MIN * DAY_MS):
            end = Instant(now // 1000 * 1000 + DAYS[TARGETS] * DAY_MS)
            documents.append(SealedDocument(name=TARGETS, body=replace(targets, version=targets.version + 1, expires=end)))
        return Sealed(
            repository=known.repository,
            built_on={ROOT: known.root.version, TARGETS: known.version(TARGETS)},
            checksum=None,
            documents=tuple(documents),
            server_signs=frozenset({own[Role.ROOT].id}) if Role.ROOT in roles else frozenset(),
            moves=True,
        )


def _with_keys(root: Root, own: Mapping[Role, PublicKey]) -> Root:
    """Other keys for these roles, one signature each; keys that no role names any more go."""
    roles = {**root.roles, **{role.value: RoleKeys(key_ids=(key.id,), threshold=1) for role, key in own.items()}}
    named = {key_id for keys in roles.values() for key_id in keys.key_ids}
    keys = {**root.keys, **{key.id: key for key in own.values()}}
    return replace(root, keys={key_id: key for key_id, key in keys.items() if key_id in named}, roles=roles)


def _says_the_same(kept: Sealed, wanted: Sealed, *, now: Instant) -> bool:
    """But for ends, which the kept one has settled and which must lie ahead still."""

    def bare(sealed: Sealed) -> list[Any]:
        return [(each.name, replace(each.body, expires=Instant(0))) for each in sealed.documents]

    return (
        kept.moves
        and bare(kept) == bare(wanted)
        and kept.server_signs == wanted.server_signs
        and all(each.body.expires - now > STAYS_DAYS_MIN * DAY_MS for each in kept.documents)
    )


def _wanted(part: Part) -> frozenset[str]:
    return frozenset(key_id for keys in wanted_keys(part.sealed, part.known).values() for key_id in keys)


def _signer(path: Path) -> MetadataSigner:
    key = read_private(Redacted(read_file(path, KEY_FILE_SIZE_BYTES_MAX)), path=str(path))
    return CheckedSigner(MemoryKey(key), str(path))


@contextmanager
def _as_usual() -> Iterator[None]:
    """Ends of ``overair sign`` have codes of their own; here they are told with ours."""
    try:
        with told_plainly():
            yield
    except SignEnded as end:
        code = ExitCode.USAGE if end.code == SignExit.USAGE else ExitCode.REFUSED
        raise CommandEnded(code, end.message) from None
