"""What may be done with the catalogue, and what jobs ask of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import AlreadyExists, Conflict, InvalidRequest, NotFound
from overair.basics.ids import AccountId, BucketName, ObjectKey, VersionId
from overair.basics.work import Tx
from overair.server.packages.model import (
    ATTRIBUTES_SIZE_BYTES_MAX,
    CONTENT_CHANGEABLE,
    DEFAULT,
    DEPLOYABLE,
    MAY_BECOME,
    PACKAGE_NAME,
    RECIPE_CHANGEABLE,
    VERSION_NAME,
    Artifact,
    Configuration,
    Package,
    PackageVersion,
    VersionAction,
    VersionStatus,
)
from overair.server.packages.ports import ArtifactObjects, PackageStore, ServiceRoles, Tags


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionContent:
    """What an operator says of a version. None leaves what stands."""

    description: str | None = None
    attributes: Mapping[str, str] | None = None
    artifact: Artifact | None = None
    recipe: str | None = None


class PackagesService:
    """The catalogue of each account."""

    def __init__(
        self,
        *,
        store: PackageStore,
        roles: ServiceRoles,
        objects: ArtifactObjects,
        tags: Tags,
        clock: Clock,
    ) -> None:
        self._store = store
        self._roles = roles
        self._objects = objects
        self._tags = tags
        self._clock = clock
        tags.accept("package", self._is_there)

    # Packages -------------------------------------------------------------------------------------------------------------

    def create(
        self,
        tx: Tx,
        place: Place,
        name: str,
        *,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        client_token: str | None = None,
    ) -> Package:
        """Add a package. The same request again, by its token, finds the one that it made.

        Raises:
            AlreadyExists: the name is taken. Subject ``package``.
            InvalidRequest: it can be no name. Subject ``package``.
        """
        _require_name(name)
        standing = self._store.find(tx, place.account, name)
        if standing is not None:
            if _repeats(standing.client_token, client_token) and standing.description == description:
                return standing
            raise AlreadyExists(
                f"Package {name} already exists. Choose another name.", subject="package", details={"resourceId": name}
            )
        now = self._clock.now()
        package = Package(
            place=place,
            name=name,
            description=description,
            created_at=now,
            last_modified_at=now,
            client_token=client_token,
        )
        self._store.insert(tx, package)
        self._tags.set_new(tx, place, package.arn, tags)
        return package

    def find(self, tx: Tx, account: AccountId, name: str) -> Package:
        """Raises NotFound, subject ``package``."""
        found = self._store.find(tx, account, name) if PACKAGE_NAME.fullmatch(name) else None
        if found is None:
            raise NotFound(f"There is no package {name[:128]!r} in this account.", subject="package")
        return found

    def page(self, tx: Tx, account: AccountId, *, after: str | None = None, limit: int) -> Sequence[Package]:
        """By name."""
        return self._store.page(tx, account, after=after, limit=limit)

    def change(
        self,
        tx: Tx,
        account: AccountId,
        name: str,
        *,
        description: str | None = None,
        default_version: str | None = None,
        unset_default: bool = False,
        client_token: str | None = None,
    ) -> None:
        """Describe a package anew, or name another default version. None leaves what stands.

        Raises:
            NotFound: the package, or the version. Subjects ``package``, ``package-version``.
            InvalidRequest: a default is named and taken away at once. Subject ``package``.
            Conflict: the version is a draft. Subject ``package-version``.
        """
        if default_version is not None and unset_default:
            raise InvalidRequest("Name a default version or unset it, not both.", subject="package")
        package = self.find(tx, account, name)
        if default_version is not None:
            version = self.find_version(tx, account, name, default_version)
            if version.status not in DEPLOYABLE:
                raise Conflict(
                    f"Version {default_version} of {name} is {version.status}: publish it, then make it the default.",
                    subject="package-version",
                )
        default = None if unset_default else default_version or package.default_version
        self._store.save(
            tx,
            replace(
                package,
                description=package.description if description is None else description,
                default_version=default,
                client_token=client_token,
                last_modified_at=self._clock.now(),
            ),
        )

    def delete(self, tx: Tx, place: Place, name: str) -> None:
        """Take a package away; one that isn't there is fine.

        Raises:
            Conflict: it has versions. Subject ``package``.
        """
        package = self._store.find(tx, place.account, name)
        if package is None:
            return
        if self._store.page_of_versions(tx, place.account, name, limit=1):
            raise Conflict(f"Package {name} has versions. Delete them first.", subject="package")
        self._store.delete(tx, place.account, name)
        self._tags.forget(tx, place, package.arn)

    # Versions -------------------------------------------------------------------------------------------------------------

    def create_version(
        self,
        tx: Tx,
        place: Place,
        package: str,
        name: str,
        content: VersionContent,
        *,
        tags: Mapping[str, str] | None = None,
        client_token: str | None = None,
    ) -> PackageVersion:
        """Add a draft. The same request again, by its token, finds the one that it made.

        Raises:
            NotFound: the package. Subject ``package``.
            AlreadyExists: the name is taken. Subject ``package-version``.
            InvalidRequest: the name, the attributes or the artifact. Subjects ``package-version``, ``artifact``.
        """
        if not VERSION_NAME.fullmatch(name):
            raise InvalidRequest("A version's name has 1 to 64 of a-z, A-Z, 0-9, '-', '_' and '.'.", subject="package-version")
        self.find(tx, place.account, package)
        now = self._clock.now()
        version = PackageVersion(
            place=place,
            package=package,
            name=name,
            status=VersionStatus.DRAFT,
            description=content.description,
            attributes=content.attributes or {},
            artifact=content.artifact,
            recipe=content.recipe,
            created_at=now,
            last_modified_at=now,
            client_token=client_token,
        )
        standing = self._store.find_version(tx, place.account, package, name)
        if standing is not None:
            same = replace(version, created_at=standing.created_at, last_modified_at=standing.last_modified_at)
            if _repeats(standing.client_token, client_token) and standing == same:
                return standing
            raise AlreadyExists(
                f"Version {name} of {package} already exists. Choose another name.",
                subject="package-version",
                details={"resourceId": name},
            )
        self._check_content(tx, version)
        self._store.insert_version(tx, version)
        self._tags.set_new(tx, place, version.arn, tags)
        return version

    def find_version(self, tx: Tx, account: AccountId, package: str, name: str) -> PackageVersion:
        """Raises NotFound, subject ``package-version``."""
        found = None
        if PACKAGE_NAME.fullmatch(package) and VERSION_NAME.fullmatch(name):
            found = self._store.find_version(tx, account, package, name)
        if found is None:
            raise NotFound(f"Package {package[:128]!r} has no version {name[:64]!r}.", subject="package-version")
        return found

    def page_of_versions(
        self,
        tx: Tx,
        account: AccountId,
        package: str,
        *,
        status: VersionStatus | None = None,
        after: str | None = None,
        limit: int,
    ) -> Sequence[PackageVersion]:
        """By name. Raises NotFound, subject ``package``."""
        self.find(tx, account, package)
        return self._store.page_of_versions(tx, account, package, status=status, after=after, limit=limit)

    def change_version(
        self,
        tx: Tx,
        account: AccountId,
        package: str,
        name: str,
        content: VersionContent,
        *,
        action: VersionAction | None = None,
        client_token: str | None = None,
    ) -> None:
        """Change what a version says, then its status. A request that is repeated, by its token, changes nothing more.

        Raises:
            NotFound: subjects ``package``, ``package-version``.
            Conflict: the status forbids it. Subject ``package-version``.
            InvalidRequest: the attributes or the artifact. Subjects ``package-version``, ``artifact``.
        """
        self.find(tx, account, package)
        version = self.find_version(tx, account, package, name)
        if _repeats(version.client_token, client_token):
            return
        if (content.attributes is not None or content.artifact is not None) and version.status not in CONTENT_CHANGEABLE:
            raise Conflict(
                f"Version {name} of {package} is {version.status}: attributes and the artifact change only while it is a "
                "draft. Make a new version.",
                subject="package-version",
            )
        if content.recipe is not None and version.status not in RECIPE_CHANGEABLE:
            raise Conflict(
                f"Version {name} of {package} is {version.status}: its recipe can't change any more.", subject="package-version"
            )
        status = version.status
        if action is not None:
            becomes = MAY_BECOME.get((version.status, action))
            if becomes is None:
                raise Conflict(
                    f"Version {name} of {package} is {version.status}: {action} leads nowhere from there.",
                    subject="package-version",
                )
            status = becomes
        changed = replace(
            version,
            status=status,
            description=version.description if content.description is None else content.description,
            attributes=version.attributes if content.attributes is None else content.attributes,
            artifact=content.artifact or version.artifact,
            recipe=version.recipe if content.recipe is None else content.recipe,
            client_token=client_token,
            last_modified_at=self._clock.now(),
        )
        if content.attributes is not None or content.artifact is not None:
            self._check_content(tx, changed)
        self._store.save_version(tx, changed)

    def delete_version(self, tx: Tx, place: Place, package: str, name: str) -> None:
        """Take a version away; one that isn't there is fine. Jobs that were made with it go on: their documents are whole.

        Raises:
            Conflict: it is the package's default. Subject ``package-version``.
        """
        owner = self._store.find(tx, place.account, package)
        version = self._store.find_version(tx, place.account, package, name)
        if owner is None or version is None:
            return
        if owner.default_version == name:
            raise Conflict(
                f"Version {name} is the default of {package}. Name another one or unset it (UpdatePackage) first.",
                subject="package-version",
            )
        self._store.delete_version(tx, place.account, package, name)
        self._tags.forget(tx, place, version.arn)

    # Configuration --------------------------------------------------------------------------------------------------------

    def configuration(self, tx: Tx, account: AccountId) -> Configuration:
        return self._store.configuration(tx, account)

    def configure(self, tx: Tx, place: Place, *, enabled: bool | None = None, role_arn: str | None = None) -> None:
        """Say whether jobs that succeed are written down. None leaves what stands.

        Raises:
            InvalidRequest: on without a role, or one that doesn't trust the service. Subject ``role``.
        """
        standing = self._store.configuration(tx, place.account)
        configuration = Configuration(
            enabled=standing.enabled if enabled is None else enabled, role_arn=role_arn or standing.role_arn
        )
        if configuration.enabled and configuration.role_arn is None:
            raise InvalidRequest("Version updates by jobs need the roleArn that they are made for.", subject="role")
        if configuration.role_arn is not None:
            self._roles.assume_as_service(tx, place, configuration.role_arn, source_arn=place.iot("package", "*"))
        self._store.save_configuration(tx, place.account, configuration)

    # What jobs ask --------------------------------------------------------------------------------------------------------

    def deployable(self, tx: Tx, account: AccountId, package: str, version: str) -> PackageVersion:
        """The version that a job may bring; ``$default`` is the package's default version now.

        Raises:
            NotFound: there is no such package or version. Subjects ``package``, ``package-version``.
            InvalidRequest: it is a draft, or the package has no default. Subject ``package-version``.
        """
        owner = self.find(tx, account, package)
        named = version
        if version == DEFAULT:
            if owner.default_version is None:
                raise InvalidRequest(f"Package {package} has no default version. Name one.", subject="package-version")
            named = owner.default_version
        found = self.find_version(tx, account, package, named)
        if found.status not in DEPLOYABLE:
            raise InvalidRequest(
                f"Version {named} of {package} is {found.status}: publish it (UpdatePackageVersion, PUBLISH) before it is "
                "deployed.",
                subject="package-version",
            )
        return found

    # ----------------------------------------------------------------------------------------------------------------------

    def _check_content(self, tx: Tx, version: PackageVersion) -> None:
        size_bytes = sum(len(key.encode()) + len(value.encode()) for key, value in version.attributes.items())
        if size_bytes > ATTRIBUTES_SIZE_BYTES_MAX:
            raise InvalidRequest(
                f"The attributes have {size_bytes} bytes; {ATTRIBUTES_SIZE_BYTES_MAX} are allowed for a version's together.",
                subject="package-version",
            )
        if version.artifact is not None:
            named = version.artifact
            pinned = VersionId(named.version) if named.version is not None else None
            try:
                self._objects.find(tx, version.place, BucketName(named.bucket), ObjectKey(named.key), pinned)
            except NotFound as error:
                raise InvalidRequest(f"The artifact isn't there: {error.message}", subject="artifact") from None

    def _is_there(self, tx: Tx, account: AccountId, name: str) -> bool:
        package, word, version = name.partition("/version/")
        if word:
            return self._store.find_version(tx, account, package, version) is not None
        return self._store.find(tx, account, package) is not None


def _require_name(name: str) -> None:
    if not PACKAGE_NAME.fullmatch(name):
        raise InvalidRequest("A package's name has 1 to 128 of a-z, A-Z, 0-9, '-', '_' and '.'.", subject="package")


def _repeats(standing: str | None, token: str | None) -> bool:
    """Whether a request is the one again that was carried out last."""
    return token is not None and token == standing
