"""Sealing, signing and publishing at a desk: what is wanted becomes what the server serves.

A publication is sealed once, signed by whoever is here, completed by file where somebody else must sign, and read back when it
is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from overair.cli.sign import ceremony
from overair.cli.sign.acceptance import check_content, check_signed
from overair.cli.sign.desk import Desk, measure
from overair.cli.sign.draft import Draft, rebase
from overair.cli.sign.ends import SignEnded, SignExit, refused, usage
from overair.cli.sign.items import ROOT, TARGETS, Change, changes
from overair.cli.sign.known import Known
from overair.cli.sign.sealing import (
    Requirement,
    Sealed,
    seal,
    sign_with,
    unmet,
    wanted_keys,
)
from overair.cli.sign.server import Stale
from overair.cli.sign.tree import RepositoryFolder
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role, Targets
from overair.wire.uptane.metadata_reading import read_document
from overair.wire.uptane.metadata_writing import expires_text

REBASES_MAX: Final = 5
"""How often a push starts anew because somebody was quicker, before it gives up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push came to."""

    versions: Mapping[str, int]
    warnings: tuple[str, ...] = ()
    changes: Mapping[str, list[Change]] = field(default_factory=dict)
    rebased_over: Mapping[str, list[Change]] = field(default_factory=dict)
    dry_run: bool = False


# Sealing and signing ------------------------------------------------------------------------------------------------------


def sealed_now(desk: Desk, repository: Repository, known: Known) -> Sealed | None:
    """What is sealed already, if it still follows what the server serves; else the draft, sealed and looked at."""
    folder = desk.folder(repository)
    sealed, now = folder.sealed(), desk.clock.now()
    if sealed is None or not sealed.fits(known):
        sealed = seal(folder.draft(), known, now=now)
        folder.save_sealed(sealed)
    if sealed is not None:
        check_content(sealed, known, now=now)
    return sealed


def sign_here(
    desk: Desk,
    repository: Repository,
    sealed: Sealed,
    known: Known,
    *,
    names: Sequence[str] = (),
) -> Sealed:
    """Everybody here who is asked and hasn't signed yet signs; what was signed is kept."""
    lacking = {
        key_id
        for name, keys in wanted_keys(sealed, known).items()
        for key_id in keys
        if (document := sealed.document(name)) is not None and key_id not in document.signed_by()
    }
    needed = {requirement.document for requirement in unmet(sealed, known)}
    records = desk.holders(lacking, names=names) if needed else []
    sealed = sign_with(sealed, known, [desk.open(record) for record in records])
    desk.folder(repository).save_sealed(sealed)
    return sealed


def request_missing(desk: Desk, repository: Repository, sealed: Sealed, known: Known) -> None:
    """Write a request and end, if signatures are missing.

    Raises:
        SignEnded: SIGNATURE_MISSING.
    """
    missing = unmet(sealed, known)
    if not missing:
        return
    path = write_request(desk, repository, sealed, known)
    lines = [missing_text(desk, each, sealed, known) for each in missing]
    raise SignEnded(
        SignExit.SIGNATURE_MISSING,
        "Signatures are missing:\n  "
        + "\n  ".join(lines)
        + f"\nCarry {path} to them; they run `overair sign approve`, and you `overair sign collect` what comes back.",
        details={"request": str(path), "missing": lines},
    )


def write_request(desk: Desk, repository: Repository, sealed: Sealed, known: Known) -> Path:
    names = {record.id: record.name for record in desk.tree.records().values()}
    data = ceremony.write_request(sealed, known, summary(desk, sealed, known), names=names)
    return desk.folder(repository).write_bytes(f"request-{sealed.id[:12]}.json", data)


def missing_text(desk: Desk, requirement: Requirement, sealed: Sealed, known: Known) -> str:
    document = sealed.document(requirement.document)
    assert document is not None
    waiting = [key_id for key_id in requirement.role_keys.key_ids if key_id not in document.signed_by()]
    text = (
        f"{requirement.document} ({requirement.why}): {requirement.missing(document)} more of "
        f"{', '.join(desk.named(key_id) for key_id in waiting)}"
    )
    if any(key_id in known.served.online_key_ids for key_id in waiting):
        text += " (held by the server: `overair sign take-offline` comes first)"
    return text


def summary(desk: Desk, sealed: Sealed, known: Known) -> list[str]:
    """What these documents would change, for people."""
    lines = []
    for document in sealed.documents:
        found = changes(known.body(document.name), document.body, named=desk.named)
        lines.append(
            f"{sealed.repository} {document.name}: version {known.version(document.name)} -> {document.body.version}, "
            f"until {expires_text(document.body.expires)[:10]}" + ("" if found else ", nothing else changes")
        )
        lines += [f"  {change.text}" for change in found]
    return lines


# Pushing --------------------------------------------------------------------------------------------------------------


def push(
    desk: Desk, repository: Repository, *, names: Sequence[str] = (), take: str | None = None, dry_run: bool = False
) -> Pushed | None:
    """Pull, move the draft onto what is there, seal, sign, publish, read back. None when there is nothing to push.

    Raises:
        SignEnded: STALE when both changed the same; SIGNATURE_MISSING with a request; REFUSED; UNREACHABLE.
    """
    rebased_over: dict[str, list[Change]] = {}
    for _ in range(REBASES_MAX):
        known = desk.pull(repository)
        if (done := finish_published(desk, repository, known)) is not None:
            return done
        rebased_over |= rebase_draft(desk, repository, known, take=take)
        sealed = sealed_now(desk, repository, known)
        if sealed is None:
            desk.folder(repository).save_draft(Draft())
            return None
        if dry_run:
            return _rehearsed(desk, repository, sealed, known, rebased_over)
        sealed = sign_here(desk, repository, sealed, known, names=names)
        request_missing(desk, repository, sealed, known)
        try:
            pushed = publish(desk, repository, sealed, known)
        except Stale:
            desk.tell("Somebody else has published in between; beginning again from what is there now.")
            continue
        return replace(pushed, rebased_over=rebased_over)
    raise SignEnded(
        SignExit.STALE, f"Somebody else published {REBASES_MAX} times in between. Your changes are kept; push again."
    )


def rebase_draft(desk: Desk, repository: Repository, known: Known, *, take: str | None = None) -> dict[str, list[Change]]:
    """Move the draft onto what is there; what others changed in between.

    Raises:
        SignEnded: STALE: both changed the same.
    """
    folder = desk.folder(repository)
    wanted = folder.draft()
    sealed = folder.sealed()
    if sealed is not None and sealed.fits(known):
        return {}
    rebased = rebase(wanted, known, take=take, named=desk.named)
    for name, theirs in rebased.theirs.items():
        desk.tell(f"{name} was changed by somebody else since you began:")
        for change in theirs:
            desk.tell(f"  {change.text}")
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
        desk.tell("Signatures that were gathered are void: they were over documents that no longer follow the server's.")
    folder.save_draft(rebased.draft)
    folder.save_sealed(None)
    return dict(rebased.theirs)


def finish_published(desk: Desk, repository: Repository, known: Known) -> Pushed | None:
    """A push that was cut after the server had taken it: what it serves is what was sealed here."""
    folder = desk.folder(repository)
    sealed = folder.sealed()
    if sealed is None or not is_served(sealed, known):
        return None
    folder.save_draft(Draft())
    folder.save_sealed(None)
    return Pushed(versions={each.name: each.body.version for each in sealed.documents})


def publish(desk: Desk, repository: Repository, sealed: Sealed, known: Known, *, keep_keys: bool = False) -> Pushed:
    """Upload what goes along, publish both flavours at once, and read back that the server serves just this.

    Args:
        keep_keys: The server keeps private keys that the new root doesn't name, until it is told to delete them.

    Raises:
        Stale, SignEnded.
    """
    folder = desk.folder(repository)
    check_content(sealed, known, now=desk.clock.now())
    check_signed(sealed, known)
    _upload_along(desk, folder, sealed)
    told = desk.server.publish(
        repository,
        publication_of(sealed),
        checksum=sealed.checksum,
        dry_run=False,
        force=force_of(sealed, known),
        cosign=bool(sealed.server_signs),
        keep_keys=keep_keys,
    )
    found = {
        document.name: changes(known.body(document.name), document.body, named=desk.named) for document in sealed.documents
    }
    if not is_served(sealed, desk.pull(repository)):
        raise refused("The server took the push and serves other bytes. Don't go on before you know why.")
    folder.save_draft(Draft())
    folder.save_sealed(None)
    return Pushed(versions={each.name: each.body.version for each in sealed.documents}, warnings=told.warnings, changes=found)


def _rehearsed(
    desk: Desk, repository: Repository, sealed: Sealed, known: Known, rebased_over: Mapping[str, list[Change]]
) -> Pushed:
    """What a push would do; with every signature at hand, the server is asked as well."""
    warnings: tuple[str, ...] = ()
    if not unmet(sealed, known):
        check_signed(sealed, known)
        told = desk.server.publish(
            repository,
            publication_of(sealed),
            checksum=sealed.checksum,
            dry_run=True,
            force=force_of(sealed, known),
            cosign=bool(sealed.server_signs),
        )
        warnings = told.warnings
    return Pushed(
        versions={each.name: each.body.version for each in sealed.documents},
        warnings=warnings,
        changes={each.name: changes(known.body(each.name), each.body, named=desk.named) for each in sealed.documents},
        rebased_over=rebased_over,
        dry_run=True,
    )


def _upload_along(desk: Desk, folder: RepositoryFolder, sealed: Sealed) -> None:
    wanted = folder.draft()
    for name, path in wanted.uploads.items():
        bodies = [document.body for document in sealed.documents]
        targets = [body.targets[name] for body in bodies if isinstance(body, Targets) and name in body.targets]
        for target in targets[:1]:
            upload(desk, name, Path(path), length=target.length, sha256=target.sha256)


def upload(desk: Desk, name: str, path: Path, *, length: int, sha256: str) -> bool:
    """Send a file to the server; whether it wasn't there yet.

    Raises:
        SignEnded: USAGE: the file isn't what it was; REFUSED.
    """
    if measure(path) != (length, sha256):
        raise usage(f"{path} isn't the file any more that {name} was made of.")
    return desk.server.upload(name, path, length=length, sha256=sha256)


def force_of(sealed: Sealed, known: Known) -> bool:
    """Whether targets may go though a device needs them.

    Raises:
        SignEnded: REFUSED: some were forced and others weren't; a push is forced as a whole.
    """
    gone: set[str] = set()
    for document in sealed.documents:
        before = known.body(document.name)
        if isinstance(before, Targets) and isinstance(document.body, Targets):
            gone |= before.targets.keys() - document.body.targets.keys()
    if sealed.forced and gone - sealed.forced:
        raise refused(
            f"{', '.join(sorted(sealed.forced))} would go by force and {', '.join(sorted(gone - sealed.forced))} wouldn't, "
            "and a push is "
            "forced as a whole. Push one after the other."
        )
    return bool(sealed.forced & gone)


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
