"""Users, their groups, roles, access keys, sessions and the policies attached to them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccessKeyId, AccountId
from overair.basics.redacted import Redacted

ACCESS_KEYS_MAX: Final = 2
"""Of one user."""
POLICY_VERSIONS_MAX: Final = 5
ATTACHED_POLICIES_MAX: Final = 20
"""Managed policies attached to one user, group or role."""
INLINE_POLICIES_MAX: Final = 50
GROUPS_OF_USER_MAX: Final = 10
USERS_MAX: Final = 5000
GROUPS_MAX: Final = 300
ROLES_MAX: Final = 1000
POLICIES_MAX: Final = 1500
"""Managed policies of an account's own."""
SESSION_POLICIES_MAX: Final = 10
"""Managed policies that narrow one session."""
CHAINED_SESSION_S_MAX: Final = 3600
"""Of a role that a session of another role takes on."""
SESSION_S_MIN: Final = 900
SESSION_S_MAX: Final = 43_200
SESSION_S_DEFAULT: Final = 3600
USER_SESSION_S_MAX: Final = 129_600
USER_SESSION_S_DEFAULT: Final = 43_200
ROOT_SESSION_S_MAX: Final = 3600
"""Of GetSessionToken, for a user and for the root."""
IOT_SERVICE: Final = "iot.amazonaws.com"

_NAME: Final = re.compile(r"[\w+=,.@-]+", re.ASCII)
_PATH: Final = re.compile(r"/|/[\x21-\x7e]*/")


class OwnerKind(Enum):
    """What a policy can be put on."""

    USER = "user"
    ROLE = "role"
    GROUP = "group"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """One user, group or role as the holder of policies."""

    kind: OwnerKind
    name: str


class KeyStatus(Enum):
    """Of an access key."""

    ACTIVE = "Active"
    INACTIVE = "Inactive"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person or a program with keys of its own."""

    account: AccountId
    name: str
    path: str
    user_id: str
    """``AIDA`` and 17 characters."""
    created: Instant
    boundary_arn: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{self.account}:user{self.path}{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserGroup:
    """Users who share what its policies grant. It is nobody: it has no keys, and no policy can name it as a principal."""

    account: AccountId
    name: str
    path: str
    group_id: str
    """``AGPA`` and 17 characters."""
    created: Instant

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{self.account}:group{self.path}{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LastUse:
    """When and for what a key or a role was last used; known to the minute."""

    at: Instant
    service: str
    """The signing name, such as ``s3``."""
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """An identity without keys, taken on for a time by whom its trust policy names."""

    account: AccountId
    name: str
    path: str
    role_id: str
    """``AROA`` and 17 characters."""
    created: Instant
    trust_document: str
    description: str
    session_s_max: int
    boundary_arn: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    last_use: LastUse | None = None

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{self.account}:role{self.path}{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey:
    """A long-lived key of a user or of the account's root."""

    account: AccountId
    key_id: AccessKeyId
    user_name: str
    """Empty for the root."""
    status: KeyStatus
    created: Instant
    sealed_secret: bytes
    last_use: LastUse | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Temporary keys with a token: of a role that was taken on, or of a user (of the root) for a time."""

    account: AccountId
    key_id: AccessKeyId
    role_name: str
    """Empty for a user's own temporary keys."""
    session_name: str
    expires: Instant
    created: Instant
    sealed_secret: bytes
    token_sha256: str
    policy_document: str | None = None
    """Narrows what the role may do, where the caller gave one."""
    policy_arns: tuple[str, ...] = ()
    """Managed policies that narrow it, together with the document."""
    user_name: str = ""
    """Whose temporary keys these are where no role was taken on; empty for the root."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Given with the session, or by the session that took it on: they outweigh the role's."""
    transitive_keys: tuple[str, ...] = ()
    """Of the tags that go on to whatever role this session takes on, and that nobody sets anew there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedPolicy:
    """A policy with a name and versions of its own, attachable to many."""

    arn: str
    name: str
    path: str
    policy_id: str
    """``ANPA`` and 17 characters."""
    default_version: int
    newest_version: int
    created: Instant
    updated: Instant
    description: str
    is_ours: bool = False
    """True for those that every account finds ready (``arn:aws:iam::aws:policy/…``)."""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """One document of a managed policy. Versions read ``v1``, ``v2``, … and are never given twice."""

    number: int
    document: str
    created: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A key ready to verify with: the secret, and who holds it."""

    account: AccountId
    key_id: AccessKeyId
    secret: Redacted[str]
    is_active: bool
    principal_arn: str
    user_id: str
    user_name: str = ""
    is_root: bool = False
    session_name: str = ""
    role_arn: str = ""
    token_sha256: str | None = None
    expires: Instant | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    """Of the user, or of the role and its session (``aws:PrincipalTag/…``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKeys:
    """Freshly made keys: the only moment at which the secret is shown."""

    key_id: AccessKeyId
    secret: Redacted[str]
    created: Instant
    token: Redacted[str] | None = None
    expires: Instant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssumedRole:
    """A role that one of our own services took on to do a piece of work for an operator."""

    place: Place
    role_arn: str
    role_name: str
    role_id: str
    session_arn: str
    source_arn: str
    """The update, stream or job that the work is for (``aws:SourceArn``)."""


def check_name(name: str, *, what: str, length_max: int = 64) -> str:
    """A user's, role's or policy's name, if it can be one.

    Raises:
        InvalidRequest: it can't. Subject ``iam-name``.
    """
    if not _NAME.fullmatch(name) or len(name) > length_max:
        raise InvalidRequest(
            f"{name[:80]!r} can't name a {what}: 1 to {length_max} letters, digits and characters of +=,.@_-",
            subject="iam-name",
        )
    return name


def check_path(path: str) -> str:
    """A path, ``/`` or ``/…/``.

    Raises:
        InvalidRequest: it is no path. Subject ``iam-name``.
    """
    if not _PATH.fullmatch(path) or len(path) > 512 or "*" in path or "?" in path:
        raise InvalidRequest(
            f"{path[:80]!r} is no path: it begins and ends with a slash, 1 to 512 characters.", subject="iam-name"
        )
    return path
