"""The catalogue: which image stands under which name, kept in step with what signed documents list."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from overair.basics.clock import Instant
from overair.basics.errors import AlreadyExists, Conflict, InvalidRequest, InvalidStateTransition, NotFound
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.image_repository.model import (
    CUSTOM_SIZE_BYTES_MAX,
    MAY_BECOME,
    RESERVED_CUSTOM,
    TARGETS,
    StoredTarget,
    TargetPlan,
    TargetStatus,
    check_name,
    custom_faults,
    custom_of,
)
from overair.server.image_repository.ports import InUse, TargetStore
from overair.server.objects.model import ContentId
from overair.wire.uptane.canonical import canonical
from overair.wire.uptane.metadata import TargetFile, Targets
from overair.wire.uptane.refusals import MetadataRefused


class Catalogue:
    """Rows of images. It signs nothing."""

    def __init__(self, *, store: TargetStore, in_use: InUse) -> None:
        self._store = store
        self.in_use = in_use

    def find(self, tx: Tx, account: AccountId, name: str) -> StoredTarget:
        """Whatever is known under this name.

        Raises:
            NotFound: with subject ``target``: nothing, or it was deleted.
        """
        found = self._store.find(tx, account, name)
        if found is None or found.status is TargetStatus.DELETED:
            raise NotFound(f"There is no target {name[:253]!r}.", subject="target", details={"field": "filename"})
        return found

    def uploaded(
        self, tx: Tx, account: AccountId, name: str, *, sha256: str, length: int, content_id: ContentId, now: Instant
    ) -> StoredTarget:
        """Bytes have come under a name. The same again are welcome: a tool that didn't hear our answer.

        Raises:
            InvalidRequest: with subject ``target-name``.
            AlreadyExists: with subject ``target``: the name stands for other bytes.
        """
        check_name(name)
        standing = self._store.find(tx, account, name)
        check_same_content(standing, name, {"sha256": sha256}, length)
        if standing is None or standing.status is TargetStatus.DELETED:
            target = StoredTarget(
                name=name,
                status=TargetStatus.UPLOADED,
                role="",
                length=length,
                hashes={"sha256": sha256},
                custom={},
                content_id=content_id,
                uri=None,
                created_at=now,
                updated_at=now,
            )
        else:
            target = replace(standing, content_id=content_id, updated_at=now)
        self._store.put(tx, account, target)
        return target

    def planned(self, tx: Tx, account: AccountId, plan: TargetPlan, *, now: Instant) -> StoredTarget:
        """What the plan's image would stand as: pending. Nothing is written yet.

        Raises:
            InvalidRequest: with subject ``target-name`` or ``target``: ``details["errors"]`` has every member.
            AlreadyExists: with subject ``target``: the name stands for other bytes.
        """
        check_name(plan.name)
        standing = self._store.find(tx, account, plan.name)
        hashes = {**plan.hashes, "sha256": plan.sha256.lower()}
        check_same_content(standing, plan.name, hashes, plan.length)
        alive = standing if standing is not None and standing.status is not TargetStatus.DELETED else None
        created_at = alive.created_at if alive is not None else now
        custom = custom_of(plan, created_at=created_at, now=now)
        check_custom(custom, extra=plan.extra)
        content_id = plan.content_id or (alive.content_id if alive is not None else None)
        target = StoredTarget(
            name=plan.name,
            status=TargetStatus.PENDING,
            role=TARGETS,
            length=plan.length,
            hashes=hashes,
            custom=custom,
            content_id=content_id,
            uri=plan.uri,
            created_at=created_at,
            updated_at=now,
        )
        if alive is not None and _says_the_same(alive, target):
            return replace(alive, content_id=content_id)
        return target

    def put(self, tx: Tx, account: AccountId, target: StoredTarget) -> None:
        self._store.put(tx, account, target)

    def pending(self, tx: Tx, account: AccountId) -> list[StoredTarget]:
        """What waits for a signature of offline keys, by name."""
        return list(self._store.with_status(tx, account, TargetStatus.PENDING))

    def with_pending(self, tx: Tx, account: AccountId, targets: Targets) -> Targets:
        """The same targets, and those that wait."""
        waiting = {target.name: target.file for target in self.pending(tx, account)}
        return replace(targets, targets={**targets.targets, **waiting}) if waiting else targets

    def check_not_in_use(self, tx: Tx, account: AccountId, names: Collection[str]) -> None:
        """Raises:
        Conflict: with subject ``target-in-use``.
        """
        used = self.in_use.targets_in_use(tx, account, names)
        for name, words in sorted(used.items()):
            raise Conflict(
                f"The target {name} is {words}: without it, these vehicles could neither be updated nor told to stay. "
                "Say force=true to delete it all the same.",
                subject="target-in-use",
                details={"field": "filename", "hint": "force=true"},
            )

    def reconcile(
        self,
        tx: Tx,
        account: AccountId,
        listing: Mapping[str, tuple[str, TargetFile]],
        *,
        in_force: Collection[str],
        now: Instant,
    ) -> None:
        """What signed documents list is listed. What the document of a role that is in force no longer lists is deleted with
        its bytes; what a delegation lists that was taken away stays as an upload.

        Args:
            listing: Name → (role, what it says).
        """
        standing = {target.name: target for target in self._store.with_status(tx, account, TargetStatus.LISTED)}
        known = {**self._store.find_all(tx, account, listing.keys() - standing.keys()), **standing}
        changed: list[StoredTarget] = []
        for name, (role, file) in listing.items():
            target = _listed(known.get(name), file, role, now)
            if target != known.get(name):
                changed.append(target)
        for name in sorted(standing.keys() - listing.keys()):
            gone = standing[name]
            changed.append(_deleted(gone, now) if gone.role in in_force else _unlisted(gone, now))
        self._store.put_all(tx, account, changed)

    def drop(self, tx: Tx, account: AccountId, target: StoredTarget, *, now: Instant) -> None:
        """Delete what no signed document lists. Raises InvalidStateTransition for what one does."""
        if TargetStatus.DELETED not in MAY_BECOME[target.status] or target.status is TargetStatus.LISTED:
            raise InvalidStateTransition(f"The target {target.name} is {target.status}.", subject="target")
        self._store.put(tx, account, _deleted(target, now))


def check_same_content(standing: StoredTarget | None, name: str, hashes: Mapping[str, str], length: int) -> None:
    """Raises:
    AlreadyExists: with subject ``target``: the name stands for other bytes, be it of a deleted image.
    """
    if standing is None:
        return
    differs = any(standing.hashes[each] != hashes[each] for each in standing.hashes.keys() & hashes.keys())
    if differs or standing.length != length:
        raise AlreadyExists(
            f"The name {name} stands for other bytes already ({standing.length} of them, SHA-256 {standing.sha256}"
            f"{', deleted since' if standing.status is TargetStatus.DELETED else ''}). Devices refuse new bytes under a name "
            "that they have installed: give the image a name of its own, such as one with its version in it.",
            subject="target",
            details={"field": "filename"},
        )


def check_custom(custom: Mapping[str, Any], *, extra: Iterable[str]) -> None:
    """Raises:
    InvalidRequest: with subject ``target``.
    """
    errors = [
        {"code": "invalid_custom", "field": member, "description": words, "hint": ""} for member, words in custom_faults(custom)
    ]
    taken = sorted(RESERVED_CUSTOM & set(extra))
    if taken:
        errors.append(
            {
                "code": "invalid_custom",
                "field": taken[0],
                "description": f"{', '.join(taken)} can't be given as members of your own.",
                "hint": "Put them under one name of your own.",
            }
        )
    try:
        if len(canonical(dict(custom))) > CUSTOM_SIZE_BYTES_MAX:
            text = f"What is said of one target has at most {CUSTOM_SIZE_BYTES_MAX} bytes."
            errors.append({"code": "invalid_custom", "field": "custom", "description": text, "hint": ""})
    except MetadataRefused as refusal:
        errors.append({"code": "invalid_custom", "field": refusal.field, "description": refusal.message, "hint": ""})
    if errors:
        raise InvalidRequest(
            f"The target can't be listed so. {errors[0]['description']}",
            subject="target",
            details={"errors": errors, "field": errors[0]["field"]},
        )


def _says_the_same(standing: StoredTarget, target: StoredTarget) -> bool:
    """But for the moment of the last change."""
    ours = {**standing.custom, "updatedAt": None}
    theirs = {**target.custom, "updatedAt": None, "cliUploaded": standing.custom.get("cliUploaded")}
    return (
        standing.status in (TargetStatus.LISTED, TargetStatus.PENDING)
        and ours == theirs
        and standing.hashes == target.hashes
        and standing.uri == target.uri
    )


def _listed(standing: StoredTarget | None, file: TargetFile, role: str, now: Instant) -> StoredTarget:
    created_at = now if standing is None or standing.status is TargetStatus.DELETED else standing.created_at
    target = StoredTarget(
        name=file.name,
        status=TargetStatus.LISTED,
        role=role,
        length=file.length,
        hashes=dict(file.hashes),
        custom=dict(file.custom),
        content_id=standing.content_id if standing is not None else None,
        uri=file.uri,
        created_at=created_at,
        updated_at=now,
    )
    # What is listed as it was hasn't changed now.
    if standing is not None and replace(target, updated_at=standing.updated_at) == standing:
        return standing
    return target


def _deleted(standing: StoredTarget, now: Instant) -> StoredTarget:
    return replace(standing, status=TargetStatus.DELETED, role="", content_id=None, updated_at=now)


def _unlisted(standing: StoredTarget, now: Instant) -> StoredTarget:
    return replace(standing, status=TargetStatus.UPLOADED, role="", updated_at=now)
