"""The operator's door to provisioning templates, claims and RegisterThing (service ``iot``)."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from overair.basics.errors import InvalidRequest
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.certificates import x509
from overair.server.provisioning.fleet_provisioning import FleetProvisioning
from overair.server.provisioning.registration import Registrations
from overair.server.provisioning.template_language import PARAMETERS_MAX, Template
from overair.server.provisioning.template_model import ProvisioningHook, ProvisioningTemplate, TemplateName, TemplateType
from overair.server.provisioning.templates import HOOK_PAYLOAD_VERSION, KIND, ProvisioningTemplates, TemplateChange

REGISTERED_ORIGIN = "operator-template"
"""Of things that RegisterThing made: a template that has no name."""


class PassedRoles(Protocol):
    """Whether the caller may hand a role to our IoT service. Implemented by ``access``."""

    def require_pass_role(self, tx: Tx, caller: Caller, role_arn: str) -> None: ...


class ProvisioningTemplateOperations:
    """Templates and their versions."""

    def __init__(self, *, work: Work, templates: ProvisioningTemplates, fleet: FleetProvisioning, rights: PassedRoles) -> None:
        self._work = work
        self._templates = templates
        self._fleet = fleet
        self._rights = rights

    @operation("iot", "CreateProvisioningTemplate")
    async def create(self, caller: Caller, request: Request) -> Members:
        name, role = TemplateName(request["templateName"]), request["provisioningRoleArn"]

        def create(tx: Tx) -> ProvisioningTemplate:
            self._rights.require_pass_role(tx, caller, role)
            return self._templates.create(
                tx,
                caller.place,
                name,
                request["templateBody"],
                type=TemplateType(request.get("type", TemplateType.FLEET_PROVISIONING.value)),
                description=request.get("description", ""),
                enabled=request.get("enabled", False),
                role_arn=role,
                hook=_hook(request.get("preProvisioningHook")),
                tags={tag["Key"]: tag.get("Value", "") for tag in request.get("tags", ())},
            )

        made = await self._work.run(create)
        return {
            "templateArn": caller.place.iot(KIND, name),
            "templateName": name,
            "defaultVersionId": made.default_version,
        }

    @operation("iot", "DescribeProvisioningTemplate")
    async def describe(self, caller: Caller, request: Request) -> Members:
        name = TemplateName(request["templateName"])
        found = await self._work.read(lambda tx: self._templates.find(tx, caller.account, name))
        hook = found.hook
        return {
            **_summary(caller, found),
            "defaultVersionId": found.default_version,
            "templateBody": found.body,
            "provisioningRoleArn": found.role_arn,
            "preProvisioningHook": None
            if hook is None
            else {"targetArn": hook.target_arn, "payloadVersion": hook.payload_version},
        }

    @operation("iot", "ListProvisioningTemplates")
    async def list(self, caller: Caller, request: Request) -> Members:
        position = read_page_token(request.get("nextToken"), tuple[str])
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        after = None if position is None else position[0]
        rows = await self._work.read(lambda tx: self._templates.page(tx, caller.account, after=after, limit=limit + 1))
        page, token = cut(rows, limit, lambda row: (row.name,))
        return {"templates": [_summary(caller, row) for row in page], "nextToken": token}

    @operation("iot", "UpdateProvisioningTemplate")
    async def update(self, caller: Caller, request: Request) -> Members:
        name, role = TemplateName(request["templateName"]), request.get("provisioningRoleArn")
        change = TemplateChange(
            description=request.get("description"),
            enabled=request.get("enabled"),
            default_version=request.get("defaultVersionId"),
            role_arn=role,
            hook=_hook(request.get("preProvisioningHook")),
            remove_hook=request.get("removePreProvisioningHook", False),
        )

        def update(tx: Tx) -> None:
            if role is not None:
                self._rights.require_pass_role(tx, caller, role)
            self._templates.update(tx, caller.account, name, change)

        await self._work.run(update)
        return {}

    @operation("iot", "DeleteProvisioningTemplate")
    async def delete(self, caller: Caller, request: Request) -> Members:
        name = TemplateName(request["templateName"])
        await self._work.run(lambda tx: self._templates.delete(tx, caller.place, name))
        return {}

    @operation("iot", "CreateProvisioningTemplateVersion")
    async def create_version(self, caller: Caller, request: Request) -> Members:
        name, as_default = TemplateName(request["templateName"]), request.get("setAsDefault", False)
        made = await self._work.run(
            lambda tx: self._templates.create_version(tx, caller.account, name, request["templateBody"], as_default=as_default)
        )
        return {
            "templateArn": caller.place.iot(KIND, name),
            "templateName": name,
            "versionId": made.version,
            "isDefaultVersion": made.is_default,
        }

    @operation("iot", "DescribeProvisioningTemplateVersion")
    async def describe_version(self, caller: Caller, request: Request) -> Members:
        name, number = TemplateName(request["templateName"]), request["versionId"]
        found = await self._work.read(lambda tx: self._templates.version(tx, caller.account, name, number))
        return {
            "versionId": found.version,
            "creationDate": found.created_at,
            "templateBody": found.body,
            "isDefaultVersion": found.is_default,
        }

    @operation("iot", "ListProvisioningTemplateVersions")
    async def list_versions(self, caller: Caller, request: Request) -> Members:
        name = TemplateName(request["templateName"])
        position = read_page_token(request.get("nextToken"), tuple[int])
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        rows = await self._work.read(lambda tx: self._templates.versions(tx, caller.account, name))
        rows = [row for row in rows if position is None or row.version < position[0]]
        page, token = cut(rows[: limit + 1], limit, lambda row: (row.version,))
        return {
            "versions": [
                {"versionId": row.version, "creationDate": row.created_at, "isDefaultVersion": row.is_default} for row in page
            ],
            "nextToken": token,
        }

    @operation("iot", "DeleteProvisioningTemplateVersion")
    async def delete_version(self, caller: Caller, request: Request) -> Members:
        name, number = TemplateName(request["templateName"]), request["versionId"]
        await self._work.run(lambda tx: self._templates.delete_version(tx, caller.account, name, number))
        return {}

    @operation("iot", "CreateProvisioningClaim")
    async def create_claim(self, caller: Caller, request: Request) -> Members:
        name = TemplateName(request["templateName"])
        key = await asyncio.to_thread(x509.new_device_key)
        issued, until = await self._work.run(lambda tx: self._fleet.create_claim(tx, caller.place, name, key.public_key()))
        return {
            "certificateId": issued.id,
            "certificatePem": issued.pem,
            "keyPair": {"PublicKey": x509.public_key_pem(key.public_key()), "PrivateKey": x509.private_key_pem(key)},
            "expiration": until,
        }


class RegisterThingOperations:
    """RegisterThing: a template carried out at once, on the caller's own word."""

    def __init__(self, *, work: Work, registrations: Registrations) -> None:
        self._work = work
        self._registrations = registrations

    @operation("iot", "RegisterThing")
    async def register_thing(self, caller: Caller, request: Request) -> Members:
        parameters = request.get("parameters", {})
        if len(parameters) > PARAMETERS_MAX:
            raise InvalidRequest(f"At most {PARAMETERS_MAX} parameters can be given.", subject="parameters")
        template = Template.read(request["templateBody"])
        plan = template.resolve(parameters)

        registered = await self._work.run(
            lambda tx: self._registrations.register(
                tx, caller.place, plan, origin=REGISTERED_ORIGIN, source_ip=caller.source_ip
            )
        )
        return {"certificatePem": registered.certificate_pem, "resourceArns": dict(registered.resource_arns)}


def _hook(given: Any) -> ProvisioningHook | None:
    if given is None:
        return None
    return ProvisioningHook(target_arn=given["targetArn"], payload_version=given.get("payloadVersion", HOOK_PAYLOAD_VERSION))


def _summary(caller: Caller, template: ProvisioningTemplate) -> Members:
    return {
        "templateArn": caller.place.iot(KIND, template.name),
        "templateName": template.name,
        "description": template.description,
        "creationDate": template.created_at,
        "lastModifiedDate": template.modified_at,
        "enabled": template.enabled,
        "type": template.type.value,
    }
