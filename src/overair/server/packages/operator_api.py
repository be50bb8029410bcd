"""Operations of the software package catalogue: services ``iot``, and ``iot-data`` for what is on a thing."""

from __future__ import annotations

import msgspec

from overair.basics.clock import epoch_seconds
from overair.basics.errors import InvalidRequest, Unsupported
from overair.basics.ids import ThingName
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.packages.installed import InstalledPackages
from overair.server.packages.model import SHADOW_NAME, Artifact, PackageVersion, VersionAction, VersionStatus
from overair.server.packages.ports import CallerRights
from overair.server.packages.service import PackagesService, VersionContent


class PackageOperations:
    """The operator's door to the catalogue. ``work`` is the audited one."""

    def __init__(self, *, work: Work, packages: PackagesService, installed: InstalledPackages, rights: CallerRights) -> None:
        self._work = work
        self._packages = packages
        self._installed = installed
        self._rights = rights

    @operation("iot", "CreatePackage")
    async def create_package(self, caller: Caller, request: Request) -> Members:
        package = await self._work.run(
            lambda tx: self._packages.create(
                tx,
                caller.place,
                request["packageName"],
                description=request.get("description"),
                tags=request.get("tags"),
                client_token=request.get("clientToken"),
            )
        )
        return {"packageName": package.name, "packageArn": package.arn, "description": package.description}

    @operation("iot", "GetPackage")
    async def get_package(self, caller: Caller, request: Request) -> Members:
        package = await self._work.read(lambda tx: self._packages.find(tx, caller.account, request["packageName"]))
        return {
            "packageName": package.name,
            "packageArn": package.arn,
            "description": package.description,
            "defaultVersionName": package.default_version,
            "creationDate": package.created_at,
            "lastModifiedDate": package.last_modified_at,
        }

    @operation("iot", "UpdatePackage")
    async def update_package(self, caller: Caller, request: Request) -> Members:
        await self._work.run(
            lambda tx: self._packages.change(
                tx,
                caller.account,
                request["packageName"],
                description=request.get("description"),
                default_version=request.get("defaultVersionName"),
                unset_default=request.get("unsetDefaultVersion", False),
                client_token=request.get("clientToken"),
            )
        )
        return {}

    @operation("iot", "DeletePackage")
    async def delete_package(self, caller: Caller, request: Request) -> Members:
        await self._work.run(lambda tx: self._packages.delete(tx, caller.place, request["packageName"]))
        return {}

    @operation("iot", "ListPackages")
    async def list_packages(self, caller: Caller, request: Request) -> Members:
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        position = read_page_token(request.get("nextToken"), tuple[str])
        after = None if position is None else position[0]
        found = await self._work.read(lambda tx: self._packages.page(tx, caller.account, after=after, limit=limit + 1))
        page, token = cut(found, limit, lambda package: (package.name,))
        summaries = [
            {
                "packageName": package.name,
                "defaultVersionName": package.default_version,
                "creationDate": package.created_at,
                "lastModifiedDate": package.last_modified_at,
            }
            for package in page
        ]
        return {"packageSummaries": summaries, "nextToken": token}

    # Versions -------------------------------------------------------------------------------------------------------------

    @operation("iot", "CreatePackageVersion")
    async def create_package_version(self, caller: Caller, request: Request) -> Members:
        content = _content(request)

        def create(tx: Tx) -> PackageVersion:
            self._require_artifact(tx, caller, content.artifact)
            return self._packages.create_version(
                tx,
                caller.place,
                request["packageName"],
                request["versionName"],
                content,
                tags=request.get("tags"),
                client_token=request.get("clientToken"),
            )

        version = await self._work.run(create)
        return {
            "packageVersionArn": version.arn,
            "packageName": version.package,
            "versionName": version.name,
            "description": version.description,
            "attributes": dict(version.attributes),
            "status": version.status.value,
        }

    @operation("iot", "GetPackageVersion")
    async def get_package_version(self, caller: Caller, request: Request) -> Members:
        version = await self._work.read(
            lambda tx: self._packages.find_version(tx, caller.account, request["packageName"], request["versionName"])
        )
        artifact = version.artifact
        return {
            "packageVersionArn": version.arn,
            **_summary(version),
            "description": version.description,
            "attributes": dict(version.attributes),
            "artifact": None
            if artifact is None
            else {"s3Location": {"bucket": artifact.bucket, "key": artifact.key, "version": artifact.version}},
            "recipe": version.recipe,
        }

    @operation("iot", "UpdatePackageVersion")
    async def update_package_version(self, caller: Caller, request: Request) -> Members:
        content = _content(request)

        def change(tx: Tx) -> None:
            self._require_artifact(tx, caller, content.artifact)
            self._packages.change_version(
                tx,
                caller.account,
                request["packageName"],
                request["versionName"],
                content,
                action=VersionAction(request["action"]) if "action" in request else None,
                client_token=request.get("clientToken"),
            )

        await self._work.run(change)
        return {}

    @operation("iot", "DeletePackageVersion")
    async def delete_package_version(self, caller: Caller, request: Request) -> Members:
        package, version = request["packageName"], request["versionName"]
        await self._work.run(lambda tx: self._packages.delete_version(tx, caller.place, package, version))
        return {}

    @operation("iot", "ListPackageVersions")
    async def list_package_versions(self, caller: Caller, request: Request) -> Members:
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        position = read_page_token(request.get("nextToken"), tuple[str])
        found = await self._work.read(
            lambda tx: self._packages.page_of_versions(
                tx,
                caller.account,
                request["packageName"],
                status=VersionStatus(request["status"]) if "status" in request else None,
                after=None if position is None else position[0],
                limit=limit + 1,
            )
        )
        page, token = cut(found, limit, lambda version: (version.name,))
        return {"packageVersionSummaries": [_summary(version) for version in page], "nextToken": token}

    # Configuration, and what is on a thing --------------------------------------------------------------------------------

    @operation("iot", "GetPackageConfiguration")
    async def get_package_configuration(self, caller: Caller, request: Request) -> Members:
        configuration = await self._work.read(lambda tx: self._packages.configuration(tx, caller.account))
        return {"versionUpdateByJobsConfig": {"enabled": configuration.enabled, "roleArn": configuration.role_arn}}

    @operation("iot", "UpdatePackageConfiguration")
    async def update_package_configuration(self, caller: Caller, request: Request) -> Members:
        config = request.get("versionUpdateByJobsConfig") or {}

        def configure(tx: Tx) -> None:
            if config.get("roleArn"):
                self._rights.require_pass_role(tx, caller, config["roleArn"])
            self._packages.configure(tx, caller.place, enabled=config.get("enabled"), role_arn=config.get("roleArn"))

        await self._work.run(configure)
        return {}

    @operation("iot-data", "GetThingShadow")
    async def get_thing_shadow(self, caller: Caller, request: Request) -> Members:
        """The one shadow that there is: what jobs have put on the thing, in the cloud's form of the reserved shadow."""
        if request.get("shadowName") != SHADOW_NAME:
            raise Unsupported(
                f"Overair has no device shadows. GetThingShadow reads {SHADOW_NAME} alone: which package versions jobs have "
                "put on a thing.",
                subject="shadow",
            )
        installed = await self._work.read(
            lambda tx: self._installed.of_thing(tx, caller.account, ThingName(request["thingName"]))
        )
        reported = {each.package: {"version": each.version} for each in installed if each.version is not None}
        shadow = {
            "state": {"reported": reported},
            "metadata": {
                "reported": {
                    each.package: {"version": {"timestamp": epoch_seconds(each.changed_at)}}
                    for each in installed
                    if each.version is not None
                }
            },
            "version": max(each.revision for each in installed),
            "timestamp": epoch_seconds(caller.now),
        }
        return {"payload": msgspec.json.encode(shadow)}

    # ----------------------------------------------------------------------------------------------------------------------

    def _require_artifact(self, tx: Tx, caller: Caller, artifact: Artifact | None) -> None:
        """Who names an artifact may read it: devices will, by a link that is signed for a role."""
        if artifact is not None:
            action = "s3:GetObject" if artifact.version is None else "s3:GetObjectVersion"
            self._rights.require(tx, caller, action, f"arn:aws:s3:::{artifact.bucket}/{artifact.key}")


def _content(request: Request) -> VersionContent:
    """Raises InvalidRequest, subject ``artifact``."""
    location = (request.get("artifact") or {}).get("s3Location")
    artifact = None
    if request.get("artifact") is not None:
        if not location or not location.get("bucket") or not location.get("key"):
            raise InvalidRequest("An artifact is an s3Location with a bucket and a key.", subject="artifact")
        artifact = Artifact(bucket=location["bucket"], key=location["key"], version=location.get("version") or None)
    return VersionContent(
        description=request.get("description"),
        attributes=request.get("attributes"),
        artifact=artifact,
        recipe=request.get("recipe"),
    )


def _summary(version: PackageVersion) -> Members:
    return {
        "packageName": version.package,
        "versionName": version.name,
        "status": version.status.value,
        "creationDate": version.created_at,
        "lastModifiedDate": version.last_modified_at,
    }
