"""The signer's desk: the tree, the keys that are here, and the server where one is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from overair.basics.clock import Clock
from overair.basics.ids import IdSource
from overair.cli.sign.draft import Draft
from overair.cli.sign.ends import refused, usage
from overair.cli.sign.holders import open_elsewhere, open_key
from overair.cli.sign.items import ROOT, TARGETS, Body, Change
from overair.cli.sign.key_records import KeyRecord
from overair.cli.sign.known import Known, Served, check_pin, verify
from overair.cli.sign.passphrases import Secrets
from overair.cli.sign.server import Server
from overair.cli.sign.tree import RepositoryFolder, Tree
from overair.wire.uptane.metadata import Repository, Role
from overair.wire.uptane.metadata_reading import read_document, read_targets
from overair.wire.uptane.metadata_writing import MetadataSigner
from overair.wire.uptane.refusals import MetadataRefused, Reason

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
        held = self.server.held_keys(repository)
        if repository is Repository.DIRECTOR:
            return Served(roots=tuple(roots), online_key_ids=held.in_use, kept_keys=held.kept, pulled_at=self.clock.now())
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
            online_key_ids=held.in_use,
            kept_keys=held.kept,
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
