"""The signer's desk: the tree, the keys that are here, the server where one is needed; what the commands are made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from overair.basics.clock import Clock, Instant
from overair.basics.ids import IdSource
from overair.cli.sign import ceremony
from overair.cli.sign.draft import Draft, rebase
from overair.cli.sign.ends import SignEnded, SignExit, refused, usage
from overair.cli.sign.holders import open_elsewhere, open_key
from overair.cli.sign.items import ROOT, TARGETS, Body, Change, changes
from overair.cli.sign.key_records import KeyRecord
from overair.cli.sign.known import Known, Served, check_pin, fingerprint, verify
from overair.cli.sign.passphrases import Secrets
from overair.cli.sign.sealing import (
    Requirement,
    Sealed,
    check_content,
    check_signed,
    seal,
    sign_with,
    unmet,
    wanted_keys,
)
from overair.cli.sign.server import Server, Stale
from overair.cli.sign.tree import RepositoryFolder, Tree
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import MetadataSigner, Repository, Role, Targets, read_document, read_targets
from overair.wire.uptane.refusals import MetadataRefused, Reason

REBASES_MAX: Final = 5
"""How often a push starts anew because somebody was quicker, before it gives up."""
ROOTS_MAX: Final = 1000
FETCHES_MAX: Final = 3
_MIXED: Final = frozenset(
    {
        Reason.HASH_MISMATCH,
        Reason.VERSION_MISMATCH,
        Reason.DELEGATION_HASH_MISMATCH,
        Reason.UNMET_THRESHOLD,
        Reason.BAD_KEY_ID,
    }
)
"""What documents of two moments look like together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push came to."""

    versions: Mapping[str, int]
    warnings: tuple[str, ...] = ()
    changes: Mapping[str, list[Change]] = field(default_factory=dict)
    rebased_over: Mapping[str, list[Change]] = field(default_factory=dict)
    dry_run: bool = False


class Desk:
    """One command's view of one tree."""

    def __init__(
        self,
        tree: Tree,
        *,
        clock: Clock,
        ids: IdSource,
        secrets: Secrets,
        connect: Callable[[Tree], Server],
        tell: Callable[[str], None],
    ) -> None:
        self.tree = tree
        self.clock = clock
        self.ids = ids
        self.secrets = secrets
        self.tell = tell
        self._connect = connect
        self._server: Server | None = None

    @property
    def server(self) -> Server:
        if self._server is None:
            self._server = self._connect(self.tree)
        return self._server

    def folder(self, repository: Repository) -> RepositoryFolder:
        return self.tree.repository(repository)

    def named(self, key_id: str) -> str:
        """What people here call a key."""
        return next((record.name for record in self.tree.records().values() if record.id == key_id), f"{key_id[:12]}…")

    # Knowing --------------------------------------------------------------------------------------------------------------

    def known(self, repository: Repository) -> Known:
        """The repository as last pulled; verified again, so that nobody changed it on the disk.

        Raises:
            SignEnded: USAGE: never pulled; REFUSED: not what was pinned.
        """
        served = self.folder(repository).served()
        if served is None:
            raise usage(f"The {repository} repository was never pulled: `overair sign pull`.")
        check_pin(served.roots[0], self.tree.config.pins.get(repository.value, ""))
        return verify(served, repository, now=self.clock.now())

    def pull(self, repository: Repository) -> Known:
        """Fetch what the server serves, believe it or refuse it, keep it.

        Raises:
            SignEnded, MetadataRefused.
        """
        before = self.folder(repository).served()
        chain = [before.roots[0]] if before is not None else []
        if before is not None:
            check_pin(before.roots[0], self.tree.config.pins.get(repository.value, ""))
            chain = list(before.roots)
        served, known = self._whole(repository, chain)
        if before is not None:
            _check_no_step_back(verify(before, repository, now=self.clock.now()), known)
        self.folder(repository).save_served(served)
        return known

    def _whole(self, repository: Repository, chain: Sequence[bytes]) -> tuple[Served, Known]:
        """Documents of one moment. They come one by one, so a publication may fall in between: then they are fetched again."""
        tries = FETCHES_MAX
        while True:
            tries -= 1
            served = self.fetch(repository, chain)
            try:
                return served, verify(served, repository, now=self.clock.now())
            except MetadataRefused as error:
                if not tries or error.reason not in _MIXED:
                    raise

    def fetch(self, repository: Repository, chain: Sequence[bytes]) -> Served:
        """The documents as they are now; nothing of them is believed yet. ``chain``: roots that are known already."""
        roots = list(chain)
        if not roots:
            newest = self.server.document(repository, "root.json")
            if newest is None:
                raise refused(f"The server has no {repository} repository.")
            roots = [newest[0]]
        number = read_document(roots[-1], Role.ROOT).version
        while (found := self.server.document(repository, f"{number + 1}.root.json")) is not None:
            roots.append(found[0])
            number += 1
            if len(roots) > ROOTS_MAX:
                raise refused(f"The server goes on about roots after the {ROOTS_MAX}th.")
        online = self.server.online_key_ids(repository)
        if repository is Repository.DIRECTOR:
            return Served(roots=tuple(roots), online_key_ids=online, pulled_at=self.clock.now())
        timestamp, snapshot, targets = (
            self.server.document(repository, f"{role}.json") for role in (Role.TIMESTAMP, Role.SNAPSHOT, Role.TARGETS)
        )
        return Served(
            roots=tuple(roots),
            timestamp=timestamp[0] if timestamp else None,
            snapshot=snapshot[0] if snapshot else None,
            targets=targets[0] if targets else None,
            delegations=self._delegations(targets[0]) if targets else {},
            checksum=targets[1] if targets else None,
            online_key_ids=online,
            pulled_at=self.clock.now(),
        )

    def _delegations(self, targets: bytes) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        waiting = [each.name for each in read_targets(read_document(targets, Role.TARGETS)).delegations]
        while waiting:
            name = waiting.pop(0)
            if name in found:
                continue
            document = self.server.document(Repository.IMAGE, f"delegations/{name}.json")
            if document is not None:
                found[name] = document[0]
                waiting += [each.name for each in read_targets(read_document(document[0], Role.TARGETS)).delegations]
        return found

    # Wanting --------------------------------------------------------------------------------------------------------------

    def edit(self, repository: Repository, name: str, change: Callable[[Any], Body]) -> list[Change]:
        """Change what is wanted of a document; what this draft changes in it now. Signatures that were gathered over the draft
        as it was are void."""
        known, folder = self.known(repository), self.folder(repository)
        wanted = folder.draft()
        after = wanted.edit(name, known, change(wanted.body(name, known)))
        self.want(repository, after)
        return after.changes(known, named=self.named).get(name, [])

    def want(self, repository: Repository, wanted: Draft) -> None:
        folder = self.folder(repository)
        self.void(repository)
        folder.save_draft(wanted)

    def void(self, repository: Repository) -> None:
        """What was sealed counts no more."""
        folder = self.folder(repository)
        sealed = folder.sealed()
        if folder.level() is not None:
            raise usage("A change of level is on its way: finish it with the same command, or give it up with `sign discard`.")
        if sealed is not None:
            if any(document.signed_by() for document in sealed.documents):
                self.tell("Signatures that were gathered are void: what they signed has changed.")
            folder.save_sealed(None)

    # Keys -----------------------------------------------------------------------------------------------------------------

    def record(self, name: str) -> KeyRecord:
        """Raises:
        SignEnded: USAGE: no such key.
        """
        keys = self.tree.records()
        if name not in keys:
            raise usage(f"No key is called {name!r} here. There are: {', '.join(keys) or 'none'}.")
        return keys[name]

    def open(self, record: KeyRecord) -> MetadataSigner:
        """Raises:
        SignEnded: whatever keeps it from opening.
        """
        if record.holder.startswith("file:"):
            path = str(self.tree.path / "keys" / record.holder.removeprefix("file:"))
            return open_key(self.tree.key_box(record), record, self.secrets.passphrase(record.name), path=path)
        return open_elsewhere(record, self.secrets.pin)

    def holders(self, wanted: Iterable[str], *, names: Sequence[str] = ()) -> list[KeyRecord]:
        """Keys held here among those whose signature is wanted; or those that were named.

        Raises:
            SignEnded: USAGE: a key that was named isn't asked for.
        """
        asked = set(wanted)
        if names:
            records = [self.record(name) for name in names]
            for record in records:
                if record.id not in asked:
                    raise usage(f"Nothing here asks for a signature of {record.name}.")
            return records
        return [record for record in self.tree.records().values() if record.holder and record.id in asked]

    # Sealing and signing --------------------------------------------------------------------------------------------------

    def seal(self, repository: Repository, known: Known) -> Sealed | None:
        """What is sealed already, if it still follows what the server serves; else the draft, sealed and looked at."""
        folder = self.folder(repository)
        sealed, now = folder.sealed(), self.clock.now()
        if sealed is None or not sealed.fits(known):
            sealed = seal(folder.draft(), known, now=now)
            folder.save_sealed(sealed)
        if sealed is not None:
            check_content(sealed, known, now=now)
        return sealed

    def sign_here(
        self,
        repository: Repository,
        sealed: Sealed,
        known: Known,
        *,
        names: Sequence[str] = (),
        also: Sequence[MetadataSigner] = (),
    ) -> Sealed:
        """Everybody here who is asked and hasn't signed yet signs; what was signed is kept."""
        lacking = {
            key_id
            for name, keys in wanted_keys(sealed, known).items()
            for key_id in keys
            if (document := sealed.document(name)) is not None and key_id not in document.signed_by()
        }
        needed = {requirement.document for requirement in unmet(sealed, known)}
        records = self.holders(lacking, names=names) if needed else []
        sealed = sign_with(sealed, known, [*also, *(self.open(record) for record in records)])
        self.folder(repository).save_sealed(sealed)
        return sealed

    def request_missing(self, repository: Repository, sealed: Sealed, known: Known) -> None:
        """Write a request and end, if signatures are missing.

        Raises:
            SignEnded: SIGNATURE_MISSING.
        """
        missing = unmet(sealed, known)
        if not missing:
            return
        path = self.write_request(repository, sealed, known)
        lines = [self.missing_text(each, sealed, known) for each in missing]
        raise SignEnded(
            SignExit.SIGNATURE_MISSING,
            "Signatures are missing:\n  "
            + "\n  ".join(lines)
            + f"\nCarry {path} to them; they run `overair sign approve`, and you `overair sign collect` what comes back.",
            details={"request": str(path), "missing": lines},
        )

    def write_request(self, repository: Repository, sealed: Sealed, known: Known) -> Path:
        names = {record.id: record.name for record in self.tree.records().values()}
        data = ceremony.write_request(sealed, known, self.summary(sealed, known), names=names)
        return self.folder(repository).write_bytes(f"request-{sealed.id[:12]}.json", data)

    def missing_text(self, requirement: Requirement, sealed: Sealed, known: Known) -> str:
        document = sealed.document(requirement.document)
        assert document is not None
        waiting = [key_id for key_id in requirement.role_keys.key_ids if key_id not in document.signed_by()]
        text = (
            f"{requirement.document} ({requirement.why}): {requirement.missing(document)} more of "
            f"{', '.join(self.named(key_id) for key_id in waiting)}"
        )
        if any(key_id in known.served.online_key_ids for key_id in waiting):
            text += " (held by the server: `overair sign take-offline` comes first)"
        return text

    def summary(self, sealed: Sealed, known: Known) -> list[str]:
        """What these documents would change, for people."""
        lines = []
        for document in sealed.documents:
            found = changes(known.body(document.name), document.body, named=self.named)
            lines.append(
                f"{sealed.repository} {document.name}: version {known.version(document.name)} -> {document.body.version}, "
                f"until {_day(document.body.expires)}" + ("" if found else ", nothing else changes")
            )
            lines += [f"  {change.text}" for change in found]
        return lines

    # Pushing --------------------------------------------------------------------------------------------------------------

    def push(
        self, repository: Repository, *, names: Sequence[str] = (), take: str | None = None, dry_run: bool = False
    ) -> Pushed | None:
        """Pull, move the draft onto what is there, seal, sign, publish, read back. None when there is nothing to push.

        Raises:
            SignEnded: STALE when both changed the same; SIGNATURE_MISSING with a request; REFUSED; UNREACHABLE.
        """
        rebased_over: dict[str, list[Change]] = {}
        for _ in range(REBASES_MAX):
            known = self.pull(repository)
            if (done := self.finish_published(repository, known)) is not None:
                return done
            rebased_over |= self.rebase(repository, known, take=take)
            sealed = self.seal(repository, known)
            if sealed is None:
                self.folder(repository).save_draft(Draft())
                return None
            if dry_run:
                return self._rehearsed(repository, sealed, known, rebased_over)
            sealed = self.sign_here(repository, sealed, known, names=names)
            self.request_missing(repository, sealed, known)
            try:
                pushed = self.publish(repository, sealed, known)
            except Stale:
                self.tell("Somebody else has published in between; beginning again from what is there now.")
                continue
            return replace(pushed, rebased_over=rebased_over)
        raise SignEnded(
            SignExit.STALE, f"Somebody else published {REBASES_MAX} times in between. Your changes are kept; push again."
        )

    def rebase(self, repository: Repository, known: Known, *, take: str | None = None) -> dict[str, list[Change]]:
        """Move the draft onto what is there; what others changed in between.

        Raises:
            SignEnded: STALE: both changed the same.
        """
        folder = self.folder(repository)
        wanted = folder.draft()
        sealed = folder.sealed()
        if sealed is not None and sealed.fits(known):
            return {}
        rebased = rebase(wanted, known, take=take, named=self.named)
        for name, theirs in rebased.theirs.items():
            self.tell(f"{name} was changed by somebody else since you began:")
            for change in theirs:
                self.tell(f"  {change.text}")
        if rebased.conflicts:
            rows = [
                {
                    "document": name,
                    "item": list(item),
                    "theirs": next((change.text for change in rebased.theirs.get(name, []) if change.item == item), "gone"),
                }
                for name, found in rebased.conflicts.items()
                for item in found
            ]
            both = "\n  ".join(f"{row['document']}: {' '.join(row['item'])}; they: {row['theirs']}" for row in rows)
            raise SignEnded(
                SignExit.STALE,
                f"You and somebody else changed the same:\n  {both}\nPush with --take mine or --take theirs, or edit again.",
                details={"conflicts": rows},
            )
        if sealed is not None and any(document.signed_by() for document in sealed.documents):
            self.tell("Signatures that were gathered are void: they were over documents that no longer follow the server's.")
        folder.save_draft(rebased.draft)
        folder.save_sealed(None)
        return dict(rebased.theirs)

    def finish_published(self, repository: Repository, known: Known) -> Pushed | None:
        """A push that was cut after the server had taken it: what it serves is what was sealed here."""
        folder = self.folder(repository)
        sealed = folder.sealed()
        if sealed is None or not is_served(sealed, known):
            return None
        folder.save_draft(Draft())
        folder.save_sealed(None)
        return Pushed(versions={each.name: each.body.version for each in sealed.documents})

    def publish(self, repository: Repository, sealed: Sealed, known: Known) -> Pushed:
        """Upload what goes along, publish both flavours at once, and read back that the server serves just this.

        Raises:
            Stale, SignEnded.
        """
        folder = self.folder(repository)
        check_content(sealed, known, now=self.clock.now())
        check_signed(sealed, known)
        self._upload_along(folder, sealed)
        told = self.server.publish(
            repository,
            publication_of(sealed),
            checksum=sealed.checksum,
            dry_run=False,
            force=bool(sealed.forced),
            cosign=bool(sealed.server_signs),
        )
        found = {
            document.name: changes(known.body(document.name), document.body, named=self.named) for document in sealed.documents
        }
        if not is_served(sealed, self.pull(repository)):
            raise refused("The server took the push and serves other bytes. Don't go on before you know why.")
        folder.save_draft(Draft())
        folder.save_sealed(None)
        return Pushed(
            versions={each.name: each.body.version for each in sealed.documents}, warnings=told.warnings, changes=found
        )

    def _rehearsed(
        self, repository: Repository, sealed: Sealed, known: Known, rebased_over: Mapping[str, list[Change]]
    ) -> Pushed:
        """What a push would do; with every signature at hand, the server is asked as well."""
        warnings: tuple[str, ...] = ()
        if not unmet(sealed, known):
            check_signed(sealed, known)
            told = self.server.publish(
                repository,
                publication_of(sealed),
                checksum=sealed.checksum,
                dry_run=True,
                force=bool(sealed.forced),
                cosign=bool(sealed.server_signs),
            )
            warnings = told.warnings
        return Pushed(
            versions={each.name: each.body.version for each in sealed.documents},
            warnings=warnings,
            changes={each.name: changes(known.body(each.name), each.body, named=self.named) for each in sealed.documents},
            rebased_over=rebased_over,
            dry_run=True,
        )

    def _upload_along(self, folder: RepositoryFolder, sealed: Sealed) -> None:
        wanted = folder.draft()
        for name, path in wanted.uploads.items():
            bodies = [document.body for document in sealed.documents]
            targets = [body.targets[name] for body in bodies if isinstance(body, Targets) and name in body.targets]
            for target in targets[:1]:
                self.upload(name, Path(path), length=target.length, sha256=target.sha256)

    def upload(self, name: str, path: Path, *, length: int, sha256: str) -> bool:
        """Send a file to the server; whether it wasn't there yet.

        Raises:
            SignEnded: USAGE: the file isn't what it was; REFUSED.
        """
        if measure(path) != (length, sha256):
            raise usage(f"{path} isn't the file any more that {name} was made of.")
        return self.server.upload(name, path, length=length, sha256=sha256)


def publication_of(sealed: Sealed) -> dict[str, Any]:
    """The body of ``PUT …/publication``."""
    body: dict[str, Any] = {}
    for flavour in Flavour:
        documents = {document.name: json.loads(document.assembled(flavour)) for document in sealed.documents}
        part: dict[str, Any] = {name: documents.pop(name) for name in (ROOT, TARGETS) if name in documents}
        if documents:
            part["delegations"] = documents
        body[flavour.value] = part
    return body


def is_served(sealed: Sealed, known: Known) -> bool:
    """Whether the server serves what was sealed, to the byte; where the server adds its own signature, to what is signed."""
    for document in sealed.documents:
        raw = known.raw(document.name)
        if raw is None or document.body.version != known.version(document.name):
            return False
        if sealed.server_signs and document.name == ROOT:
            if read_document(raw, Role.ROOT).signed_bytes != document.to_sign(Flavour.UPTANE):
                return False
        elif raw != document.assembled(Flavour.UPTANE):
            return False
    return True


def measure(path: Path) -> tuple[int, str]:
    """Length and SHA-256 of a file.

    Raises:
        SignEnded: USAGE: it can't be read or is empty.
    """
    import hashlib

    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            length = file.tell()
    except OSError as error:
        raise usage(f"{path} can't be read: {error.strerror}.") from None
    if not length:
        raise usage(f"{path} is empty: a target of length 0 means an OSTree commit to clients.")
    return length, digest


def _check_no_step_back(before: Known, now: Known) -> None:
    """The server doesn't serve less than it did.

    Raises:
        SignEnded: REFUSED.
    """
    for name in (ROOT, TARGETS, *before.delegations):
        if (name in now.delegations or name in {ROOT, TARGETS}) and now.version(name) < before.version(name):
            raise refused(
                f"The server serves {name} version {now.version(name)}, and served {before.version(name)} before: it was "
                "set back, or "
                "somebody stands between. Nothing was taken over."
            )


def _day(moment: Instant) -> str:
    from overair.wire.uptane.metadata import expires_text

    return expires_text(moment)[:10]


def pinned(repository: Repository, served: Served) -> str:
    """The fingerprint to pin for what was pulled first."""
    return fingerprint(served.roots[0])
