"""Which package versions a job brings, and what its document takes from them.

Placeholders are filled once, when the job is made: what they name can't change any more (only published versions are deployed,
and those keep their attributes and their artifact), and whatever becomes of the catalogue, devices get the document that the
operator was answered for. An artifact becomes a placeholder for a presigned URL, and that is signed when a device reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import msgspec

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import AccountId, JobId, ThingName
from overair.basics.work import Tx
from overair.server.jobs.documents import S3_URL_LENGTH_MAX
from overair.server.jobs.model import DOCUMENT_SIZE_BYTES_MAX, Job
from overair.server.jobs.ports import InstalledPackages, SoftwareCatalogue
from overair.server.packages.model import ABSENT, PackageVersion, parse_version_arn, version_arn
from overair.wire.strict_json import MalformedJson, decode

PACKAGE_VERSIONS_MAX: Final = 25
_BEGINNING: Final = "${aws:iot:package:"
_PLACEHOLDER: Final = re.compile(
    r"\$\{aws:iot:package:(?P<package>[a-zA-Z0-9\-_.]*):version:(?P<version>[a-zA-Z0-9\-_.$]*):"
    r"(?:attributes(?::(?P<attribute>[a-zA-Z0-9:_-]+))?|(?P<artifact>artifact|artifact-location):s3-presigned-url)\}"
)
_ALONE: Final = re.compile(f'"({_PLACEHOLDER.pattern})"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A job's document and its package versions with nothing left to look up."""

    document: str
    package_versions: tuple[str, ...]
    """ARNs; ``$default`` has become the version that it meant, ``$null`` stays."""


class JobPackages:
    """Between jobs and the catalogue."""

    def __init__(self) -> None:
        self.catalogue: SoftwareCatalogue = NoCatalogue()
        """``composition`` points both at the room ``packages``."""
        self.installed: InstalledPackages = NothingWritten()

    def fill(self, tx: Tx, place: Place, document: str, arns: Sequence[str], *, signed: bool) -> Filled:
        """Look everything up; ``signed`` tells whether the job has a role to sign URLs for.

        Raises:
            InvalidRequest: the document names what it mustn't or what isn't there, or a version can't be deployed. Subjects
                ``job-document``, ``package-version``.
            NotFound: there is no such package or version. Subjects ``package``, ``package-version``.
        """
        if not arns and _BEGINNING not in document:
            return Filled(document=document, package_versions=())
        named = _named(place, arns)
        versions: dict[tuple[str, str], PackageVersion | None] = {}
        for package, version in named:
            found = None if version == ABSENT else self.catalogue.deployable(tx, place.account, package, version)
            versions[package, version] = found
        check_placeholders(document, named)
        filled = _Filling(place, versions, signed=signed).fill(document)
        if len(filled.encode()) > DOCUMENT_SIZE_BYTES_MAX:
            raise InvalidRequest(
                f"With its placeholders filled, the job document has more than {DOCUMENT_SIZE_BYTES_MAX} bytes.",
                subject="job-document",
            )
        resolved = [
            version_arn(place, package, ABSENT) if found is None else found.arn for (package, _), found in versions.items()
        ]
        return Filled(document=filled, package_versions=tuple(resolved))

    def check(self, place: Place, document: str, arns: Sequence[str]) -> None:
        """What can be known of a template, whose jobs come later. Raises InvalidRequest, as ``fill``."""
        if arns or _BEGINNING in document:
            check_placeholders(document, _named(place, arns))

    def succeeded(self, tx: Tx, job: Job, thing: ThingName, *, now: Instant) -> None:
        """The job has put its versions on a thing."""
        if job.destination_package_versions:
            named = [parse_version_arn(job.place, arn) for arn in job.destination_package_versions]
            self.installed.succeeded(tx, job.place.account, thing, job.id, named, now=now)


class NoCatalogue:
    """``ports.SoftwareCatalogue`` where there is none."""

    def deployable(self, tx: Tx, account: AccountId, package: str, version: str) -> PackageVersion:
        raise NotFound(f"There is no package {package[:128]!r} in this account.", subject="package")


class NothingWritten:
    """``ports.InstalledPackages`` where nobody keeps a record."""

    def succeeded(
        self, tx: Tx, account: AccountId, thing: ThingName, job: JobId, versions: Sequence[tuple[str, str]], *, now: Instant
    ) -> None:
        """Nobody hears of it."""


def check_placeholders(document: str, named: Sequence[tuple[str, str]]) -> None:
    """Whether each placeholder of a document is whole, in a place where it can be filled, and names one of ``named``.

    Raises:
        InvalidRequest: subject ``job-document``.
    """
    try:
        value = decode(document.encode(), size_bytes_max=DOCUMENT_SIZE_BYTES_MAX)
    except (MalformedJson, UnicodeEncodeError) as error:
        raise _refused(f"it is not valid JSON: {error}") from None
    count = 0
    for text, is_name in _texts(value):
        count += text.count(_BEGINNING)
        _check_text(text, named, is_name=is_name)
    if count != document.count(_BEGINNING):
        raise _refused("it writes a placeholder with JSON's escapes. Write it plainly.")


def _check_text(text: str, named: Sequence[tuple[str, str]], *, is_name: bool) -> None:
    at = text.find(_BEGINNING)
    while at != -1:
        found = _PLACEHOLDER.match(text, at)
        if found is None:
            raise _refused(
                f"{text[at : at + 200]!r} is no placeholder. Write ${{aws:iot:package:NAME:version:VERSION:attributes:KEY}}, "
                "or attributes alone, or artifact:s3-presigned-url at its end."
            )
        nested = text.rfind("${", 0, at) > text.rfind("}", 0, at)
        if found["artifact"] is not None and nested:
            raise _refused(f"{found[0]} stands inside of another placeholder.")
        means_all = found["artifact"] is None and found["attribute"] is None
        if means_all and (is_name or found[0] != text):
            raise _refused(f"{found[0]} means all attributes: it must be a value by itself, with nothing before or after it.")
        _meant(found, named)
        at = text.find(_BEGINNING, found.end())


def _meant(found: re.Match[str], named: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Which of ``named`` a placeholder means."""
    package, version = found["package"], found["version"]
    if version == ABSENT:
        raise _refused(f"{found[0]} names {ABSENT}, which has no attributes: it stands in destinationPackageVersions only.")
    if bool(package) != bool(version):
        raise _refused(f"{found[0]} leaves out one of name and version: leave out both, or none.")
    if not package:
        if len(named) != 1 or named[0][1] == ABSENT:
            raise _refused(
                f"{found[0]} means the one version of destinationPackageVersions, and the job brings {len(named)}. Name it."
            )
        return named[0]
    if (package, version) not in named:
        raise _refused(
            f"{found[0]} names a package version that isn't in destinationPackageVersions. Add it there, written the same way."
        )
    return package, version


class _Filling:
    """Puts values where checked placeholders stand. Text, not a value that is read and written: a document's numbers stay as
    they were written."""

    def __init__(self, place: Place, versions: Mapping[tuple[str, str], PackageVersion | None], *, signed: bool) -> None:
        self._place = place
        self._versions = versions
        self._named = tuple(versions)
        self._signed = signed

    def fill(self, document: str) -> str:
        return _PLACEHOLDER.sub(self._one, _ALONE.sub(self._all, document))

    def _all(self, found: re.Match[str]) -> str:
        """All attributes, as an object in place of the string."""
        if found["artifact"] is not None or found["attribute"] is not None:
            return found[0]
        attributes = self._version(found).attributes
        for value in attributes.values():
            _refuse_second_layer(found[0], value)
        return msgspec.json.encode(attributes).decode()

    def _one(self, found: re.Match[str]) -> str:
        version = self._version(found)
        if found["artifact"] is not None:
            return self._artifact(version)
        key = found["attribute"]
        value = version.attributes.get(key)
        if value is None:
            raise _refused(f"version {version.name} of {version.package} has no attribute {key}.")
        _refuse_second_layer(found[0], value)
        return msgspec.json.encode(value).decode()[1:-1]

    def _artifact(self, version: PackageVersion) -> str:
        artifact = version.artifact
        if artifact is None:
            raise _refused(f"version {version.name} of {version.package} has no artifact to make a presigned URL for.")
        if not self._signed:
            raise _refused(
                f"it wants a presigned URL for the artifact of version {version.name} of {version.package}, but the job has no "
                "presignedUrlConfig with a role."
            )
        pinned = "" if artifact.version is None else f"?versionId={quote(artifact.version, safe='')}"
        named = f"{quote(artifact.bucket, safe='')}/{quote(artifact.key)}{pinned}"
        url = f"https://s3.{self._place.region}.amazonaws.com/{named}"
        if len(url) > S3_URL_LENGTH_MAX:
            raise _refused(f"the name of version {version.name}'s artifact of {version.package} is too long to be a URL.")
        return f"${{aws:iot:s3-presigned-url:{url}}}"

    def _version(self, found: re.Match[str]) -> PackageVersion:
        version = self._versions[_meant(found, self._named)]
        assert version is not None, "nothing stands for $null in a document"
        return version


def _named(place: Place, arns: Sequence[str]) -> list[tuple[str, str]]:
    """Raises InvalidRequest, subject ``package-version``."""
    if len(arns) > PACKAGE_VERSIONS_MAX:
        raise InvalidRequest(
            f"A job brings at most {PACKAGE_VERSIONS_MAX} package versions, not {len(arns)}.", subject="package-version"
        )
    named = [parse_version_arn(place, arn) for arn in dict.fromkeys(arns)]
    if len({package for package, _ in named}) != len(named):
        raise InvalidRequest(
            "destinationPackageVersions names one package twice: a device has one version of it.", subject="package-version"
        )
    return named


def _texts(value: object) -> Iterator[tuple[str, bool]]:
    """Every string of a JSON value, and whether it is the name of a member."""
    if isinstance(value, str):
        yield value, False
    elif isinstance(value, dict):
        for name, member in value.items():
            yield name, True
            yield from _texts(member)
    elif isinstance(value, list):
        for member in value:
            yield from _texts(member)


def _refuse_second_layer(placeholder: str, value: str) -> None:
    if "${aws:" in value:
        raise _refused(f"the value of {placeholder} holds a placeholder itself: those are not filled a second time.")


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(f"The job document can't be sent: {why}", subject="job-document")
