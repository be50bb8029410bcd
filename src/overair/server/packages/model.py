"""Nouns of the catalogue, and what may become of a version. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.basics.ids import JobId

PACKAGE_NAME: Final = re.compile(r"[a-zA-Z0-9\-_.]{1,128}")
VERSION_NAME: Final = re.compile(r"[a-zA-Z0-9\-_.]{1,64}")
ATTRIBUTES_SIZE_BYTES_MAX: Final = 3072
"""Names and values of one version together."""
DEFAULT: Final = "$default"
"""In place of a version's name: whichever is the package's default version now."""
ABSENT: Final = "$null"
"""In place of a version's name: the package is taken off the device."""
SHADOW_NAME: Final = "$package"
"""What the cloud calls the record of a thing's packages."""
_KIND: Final = "package"


class VersionStatus(StrEnum):
    DRAFT = "DRAFT"
    PUBLISHED = "PUBLISHED"
    DEPRECATED = "DEPRECATED"


class VersionAction(StrEnum):
    """What an operator asks to be done to a version's status."""

    PUBLISH = "PUBLISH"
    DEPRECATE = "DEPRECATE"


MAY_BECOME: Final[Mapping[tuple[VersionStatus, VersionAction], VersionStatus]] = {
    (VersionStatus.DRAFT, VersionAction.PUBLISH): VersionStatus.PUBLISHED,
    (VersionStatus.PUBLISHED, VersionAction.DEPRECATE): VersionStatus.DEPRECATED,
    (VersionStatus.DEPRECATED, VersionAction.PUBLISH): VersionStatus.PUBLISHED,
}
"""Absent means never."""
DEPLOYABLE: Final = frozenset({VersionStatus.PUBLISHED, VersionStatus.DEPRECATED})
"""What a job may bring, and what may be a package's default version."""
CONTENT_CHANGEABLE: Final = frozenset({VersionStatus.DRAFT})
"""While attributes and the artifact may change: what was deployed stays what it was."""
RECIPE_CHANGEABLE: Final = frozenset({VersionStatus.DRAFT, VersionStatus.PUBLISHED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """The object that a version consists of."""

    bucket: str
    key: str
    version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A name that versions belong to."""

    place: Place
    name: str
    created_at: Instant
    last_modified_at: Instant
    description: str | None = None
    default_version: str | None = None
    client_token: str | None = None
    """Of the request that changed it last: the same one again is that request's repetition."""

    @property
    def arn(self) -> str:
        return self.place.iot(_KIND, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageVersion:
    """One version, with what a job's document may take from it."""

    place: Place
    package: str
    name: str
    status: VersionStatus
    created_at: Instant
    last_modified_at: Instant
    description: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    artifact: Artifact | None = None
    recipe: str | None = None
    client_token: str | None = None
    """See ``Package.client_token``."""

    @property
    def arn(self) -> str:
        return version_arn(self.place, self.package, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Whether jobs that succeed are written down in the record of the thing's packages."""

    enabled: bool = False
    role_arn: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What a job has said last of one package on one thing. ``version`` None: it was taken off."""

    package: str
    version: str | None
    job: JobId
    changed_at: Instant
    revision: int
    """Which change of the thing's record it was."""


def version_arn(place: Place, package: str, version: str) -> str:
    return place.iot(_KIND, f"{package}/version/{version}")


def parse_version_arn(place: Place, arn: str) -> tuple[str, str]:
    """(package, version) of a version's ARN in this account and region; the version may be ``$default`` or ``$null``.

    Raises:
        InvalidRequest: anything else. Subject ``package-version``.
    """
    prefix = place.iot(_KIND, "")
    package, word, version = arn.removeprefix(prefix).partition("/version/")
    known = bool(VERSION_NAME.fullmatch(version)) or version in (DEFAULT, ABSENT)
    if not arn.startswith(prefix) or not word or not PACKAGE_NAME.fullmatch(package) or not known:
        raise InvalidRequest(
            f"{arn[:200]!r} is no package version of this account. Expected {version_arn(place, 'PACKAGE', 'VERSION')}, with "
            f"{DEFAULT} or {ABSENT} in place of a version where that is meant.",
            subject="package-version",
        )
    return package, version
