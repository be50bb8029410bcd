"""Who of other accounts may sign with a profile, or take back what it signed: the profile's own policy."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from overair.basics.errors import AccessDenied, AlreadyExists, InvalidRequest, LimitExceeded, NotFound, VersionConflict
from overair.basics.ids import AccountId, SigningProfileName
from overair.basics.work import Tx
from overair.server.access.service import as_principal
from overair.server.aws_protocol.operations import Caller
from overair.server.signing.model import Profile, ProfileStatus

ACTIONS: Final = ("signer:StartSigningJob", "signer:SignPayload", "signer:GetSigningProfile", "signer:RevokeSignature")
"""What can be granted to another account (Signer API reference, AddProfilePermission)."""
STATEMENTS_MAX: Final = 50
STATEMENT_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ACCOUNT: Final = re.compile(r"[0-9]{12}")
_PRINCIPAL: Final = re.compile(
    r"arn:aws:(?:iam::[0-9]{12}:(?:root|user/.{1,512}|role/.{1,512})|sts::[0-9]{12}:assumed-role/.{1,600})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """One statement."""

    statement_id: str
    action: str
    principal: str
    """An account, or the ARN of a user, a role or a session."""
    profile_version: str | None
    """None: of whatever version."""

    def allows(self, caller: Caller, action: str, version: str) -> bool:
        """Whether it grants a caller an action with a version of the profile."""
        if self.action != action or self.profile_version not in (None, version):
            return False
        whole_account = (caller.account, f"arn:aws:iam::{caller.account}:root")
        return self.principal in whole_account or self.principal in as_principal(caller).arns


class PermissionStore(Protocol):
    """This room's records (``store.SqlSigningStore``)."""

    def profile(self, tx: Tx, account: AccountId, name: SigningProfileName, version: str | None = None) -> Profile | None: ...
    def permissions(self, tx: Tx, account: AccountId, profile: SigningProfileName) -> Sequence[Permission]:
        """By statement id."""
        ...

    def add_permission(self, tx: Tx, account: AccountId, profile: SigningProfileName, permission: Permission) -> None: ...
    def remove_permission(self, tx: Tx, account: AccountId, profile: SigningProfileName, statement_id: str) -> None: ...


class ProfilePermissions:
    """The policies of an account's profiles."""

    def __init__(self, store: PermissionStore) -> None:
        self._store = store

    def of(self, tx: Tx, account: AccountId, name: SigningProfileName) -> Sequence[Permission]:
        """The statements of a profile's policy, by id.

        Raises:
            NotFound: no such profile, or it has no policy.
        """
        self._profile(tx, account, name)
        found = self._store.permissions(tx, account, name)
        if not found:
            raise NotFound(
                f"Signing profile {name} has no permissions. Add one with AddProfilePermission.", subject="permission"
            )
        return found

    def add(self, tx: Tx, account: AccountId, name: SigningProfileName, permission: Permission, *, revision: str | None) -> str:
        """Add a statement; the policy's new revision.

        Raises:
            NotFound: no such profile or version.
            InvalidRequest: the profile isn't active, or a word of the statement isn't one.
            AlreadyExists: there is a statement of that id.
            VersionConflict: ``revision`` isn't the policy's.
            LimitExceeded: the policy is full.
        """
        profile = self._profile(tx, account, name)
        if profile.status is not ProfileStatus.ACTIVE:
            raise InvalidRequest(
                f"Signing profile {name} is {profile.status}: nothing can be granted with it.", subject="permission"
            )
        _check(permission)
        version = permission.profile_version
        if version is not None and self._store.profile(tx, account, name, version) is None:
            raise NotFound(f"There is no version {version} of signing profile {name}.", subject="signing profile")
        present = self._store.permissions(tx, account, name)
        _check_revision(present, revision)
        if any(each.statement_id == permission.statement_id for each in present):
            raise AlreadyExists(
                f"Signing profile {name} has a statement {permission.statement_id} already. Remove that one first.",
                subject="permission",
            )
        if len(present) >= STATEMENTS_MAX:
            raise LimitExceeded(f"A signing profile's policy has at most {STATEMENTS_MAX} statements.", subject="permission")
        self._store.add_permission(tx, account, name, permission)
        return revision_of([*present, permission])

    def remove(self, tx: Tx, account: AccountId, name: SigningProfileName, statement_id: str, *, revision: str) -> str:
        """Take a statement away; the policy's new revision.

        Raises:
            NotFound: no such profile or statement.
            VersionConflict: ``revision`` isn't the policy's.
        """
        present = self.of(tx, account, name)
        if all(each.statement_id != statement_id for each in present):
            raise NotFound(f"Signing profile {name} has no statement {statement_id}.", subject="permission")
        _check_revision(present, revision)
        self._store.remove_permission(tx, account, name, statement_id)
        return revision_of([each for each in present if each.statement_id != statement_id])

    def require(
        self,
        tx: Tx,
        caller: Caller,
        action: str,
        *,
        owner: AccountId,
        profile: SigningProfileName,
        version: str | None = None,
    ) -> None:
        """Return if a caller may do this with a profile of this owner. Of the caller's own account, his own policies decide,
        which were asked before; of another, that account's profile must grant it too. ``version`` None: the current one.

        Raises:
            AccessDenied: it doesn't, or there is no such profile: a stranger isn't told which.
        """
        if owner == caller.account:
            return
        found = self._store.profile(tx, owner, profile, version)
        granted = () if found is None else self._store.permissions(tx, owner, profile)
        if found is None or not any(each.allows(caller, action, found.version) for each in granted):
            resource = f"arn:aws:signer:{caller.place.region}:{owner}:/signing-profiles/{profile}"
            raise AccessDenied(
                f"User: {caller.principal_arn} is not authorized to perform: {action} on resource: {resource} because no "
                f"resource-based policy allows the {action} action",
                subject="action",
                details={"action": action, "resource": resource},
            )

    def _profile(self, tx: Tx, account: AccountId, name: SigningProfileName) -> Profile:
        profile = self._store.profile(tx, account, name)
        if profile is None:
            raise NotFound(f"There is no signing profile {name}. Make one with PutSigningProfile.", subject="signing profile")
        return profile


def revision_of(permissions: Sequence[Permission]) -> str:
    """A policy's revision: another one for each content."""
    content = msgspec.json.encode(sorted(permissions, key=lambda each: each.statement_id))
    return hashlib.sha256(content).hexdigest()[:36]


def size_bytes_of(permissions: Sequence[Permission]) -> int:
    """How large the policy is as it is kept."""
    return len(msgspec.json.encode(permissions))


def _check_revision(present: Sequence[Permission], revision: str | None) -> None:
    if revision is not None and revision != revision_of(present):
        raise VersionConflict(
            "The profile's policy isn't at that revision any more. Read it again with ListProfilePermissions.",
            subject="revisionId",
        )


def _check(permission: Permission) -> None:
    if permission.action not in ACTIONS:
        raise InvalidRequest(
            f"{permission.action[:80]!r} can't be granted to another account. Possible: {', '.join(ACTIONS)}.", subject="action"
        )
    if not (_ACCOUNT.fullmatch(permission.principal) or _PRINCIPAL.fullmatch(permission.principal)):
        raise InvalidRequest(
            f"{permission.principal[:200]!r} is nobody: give an account's 12 digits or the ARN of a user, a role or a session.",
            subject="principal",
        )
    if STATEMENT_ID.fullmatch(permission.statement_id) is None:
        raise InvalidRequest("statementId has 1 to 64 letters, digits, '_' and '-'.", subject="statementId")
