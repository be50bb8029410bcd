"""Provisioning templates: made, versioned, switched off, deleted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import AlreadyExists, Conflict, InvalidRequest, LimitExceeded, NotFound
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.devices.service import TagsService
from overair.server.provisioning.template_language import Template
from overair.server.provisioning.template_model import (
    TEMPLATES_MAX,
    VERSIONS_MAX,
    ProvisioningHook,
    ProvisioningTemplate,
    TemplateName,
    TemplateType,
    TemplateVersion,
)

KIND: Final = "provisioningtemplate"
HOOK_PAYLOAD_VERSION: Final = "2020-04-01"


class TemplateStore(Protocol):
    """Rows of templates and their versions."""

    def find_template(self, tx: Tx, account: AccountId, name: TemplateName) -> ProvisioningTemplate | None: ...

    def insert_template(self, tx: Tx, template: ProvisioningTemplate) -> None:
        """With its first version."""
        ...

    def update_template(self, tx: Tx, template: ProvisioningTemplate) -> None:
        """Write everything but name, type and creation."""
        ...

    def delete_template(self, tx: Tx, account: AccountId, name: TemplateName) -> None:
        """With all its versions."""
        ...

    def page_templates(self, tx: Tx, account: AccountId, *, after: str | None, limit: int) -> Sequence[ProvisioningTemplate]:
        """By name."""
        ...

    def count_templates(self, tx: Tx, account: AccountId) -> int: ...

    def insert_template_version(self, tx: Tx, account: AccountId, version: TemplateVersion) -> None: ...

    def template_versions(self, tx: Tx, account: AccountId, name: TemplateName) -> Sequence[TemplateVersion]:
        """Newest first."""
        ...

    def delete_template_version(self, tx: Tx, account: AccountId, name: TemplateName, version: int) -> None: ...


class TemplateUses(Protocol):
    """Who provisions by a template without naming it anew: certificate authorities (JITP)."""

    def uses_template(self, tx: Tx, account: AccountId, name: TemplateName) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateChange:
    """What UpdateProvisioningTemplate asks for; what is None stays."""

    description: str | None = None
    enabled: bool | None = None
    default_version: int | None = None
    role_arn: str | None = None
    hook: ProvisioningHook | None = None
    remove_hook: bool = False


class ProvisioningTemplates:
    """Templates of one account at a time.

    Raises, everywhere: ``NotFound`` (subjects ``provisioning-template``, ``template-version``),
    ``AlreadyExists(subject="provisioning-template")``, ``Conflict(subject="delete")``, ``LimitExceeded`` (subjects
    ``provisioning-templates``, ``versions``), ``InvalidRequest`` (subjects ``template``, ``hook``).
    """

    def __init__(self, *, store: TemplateStore, tags: TagsService, clock: Clock, hooks: Collection[str]) -> None:
        """``hooks``: the ARNs of the pre-provisioning hooks that this server knows."""
        self._store = store
        self._tags = tags
        self._clock = clock
        self._hooks = hooks
        self._uses: list[TemplateUses] = []
        tags.accept(KIND, lambda tx, account, name: store.find_template(tx, account, TemplateName(name)) is not None)

    def used_by(self, uses: TemplateUses) -> None:
        """Register, at composition, who holds templates by name."""
        self._uses.append(uses)

    def create(
        self,
        tx: Tx,
        place: Place,
        name: TemplateName,
        body: str,
        *,
        type: TemplateType,
        description: str,
        enabled: bool,
        role_arn: str,
        hook: ProvisioningHook | None,
        tags: Mapping[str, str],
    ) -> ProvisioningTemplate:
        """Make a template with version 1 as its default."""
        check_body(body, type)
        self._check_hook(hook, type)
        if self._store.find_template(tx, place.account, name) is not None:
            raise AlreadyExists(
                f"There is a provisioning template {name} already.",
                subject="provisioning-template",
                details={"resourceId": name, "resourceArn": place.iot(KIND, name)},
            )
        if self._store.count_templates(tx, place.account) >= TEMPLATES_MAX:
            raise LimitExceeded(
                f"An account has at most {TEMPLATES_MAX} provisioning templates. Delete one first.",
                subject="provisioning-templates",
            )
        now = self._clock.now()
        template = ProvisioningTemplate(
            account=place.account,
            name=name,
            type=type,
            description=description,
            enabled=enabled,
            role_arn=role_arn,
            hook=hook,
            default_version=1,
            last_version=1,
            body=body,
            created_at=now,
            modified_at=now,
        )
        self._store.insert_template(tx, template)
        self._tags.set_new(tx, place, place.iot(KIND, name), tags)
        return template

    def find(self, tx: Tx, account: AccountId, name: TemplateName) -> ProvisioningTemplate:
        """A template with the body in force."""
        found = self._store.find_template(tx, account, name)
        if found is None:
            raise NotFound(f"There is no provisioning template {name[:36]}.", subject="provisioning-template")
        return found

    def page(self, tx: Tx, account: AccountId, *, after: str | None, limit: int) -> Sequence[ProvisioningTemplate]:
        """Templates by name."""
        return self._store.page_templates(tx, account, after=after, limit=limit)

    def update(self, tx: Tx, account: AccountId, name: TemplateName, change: TemplateChange) -> None:
        """Change what isn't the body; another default version brings its body in force."""
        template = self.find(tx, account, name)
        if change.hook is not None and change.remove_hook:
            raise InvalidRequest("Give either preProvisioningHook or removePreProvisioningHook, not both.", subject="hook")
        self._check_hook(change.hook, template.type)
        changed = replace(
            template,
            description=template.description if change.description is None else change.description,
            enabled=template.enabled if change.enabled is None else change.enabled,
            role_arn=change.role_arn or template.role_arn,
            hook=None if change.remove_hook else change.hook or template.hook,
            modified_at=self._clock.now(),
        )
        if change.default_version is not None:
            version = self.version(tx, account, name, change.default_version)
            changed = replace(changed, default_version=version.version, body=version.body)
        self._store.update_template(tx, changed)

    def delete(self, tx: Tx, place: Place, name: TemplateName) -> None:
        """Delete a template that has no version beside its default and that no certificate authority provisions by."""
        self.find(tx, place.account, name)
        if len(self._store.template_versions(tx, place.account, name)) > 1:
            raise Conflict(
                f"The provisioning template {name} has versions beside its default. Delete those first.", subject="delete"
            )
        if any(uses.uses_template(tx, place.account, name) for uses in self._uses):
            raise Conflict(
                f"A CA certificate provisions by the template {name}. Give it another one first (UpdateCACertificate).",
                subject="delete",
            )
        self._store.delete_template(tx, place.account, name)
        self._tags.forget(tx, place, place.iot(KIND, name))

    def create_version(self, tx: Tx, account: AccountId, name: TemplateName, body: str, *, as_default: bool) -> TemplateVersion:
        """Add a version; numbers rise and are never given twice."""
        template = self.find(tx, account, name)
        check_body(body, template.type)
        if len(self._store.template_versions(tx, account, name)) >= VERSIONS_MAX:
            raise LimitExceeded(
                f"The provisioning template {name} has {VERSIONS_MAX} versions already. Delete one first.", subject="versions"
            )
        now = self._clock.now()
        version = TemplateVersion(
            template=name, version=template.last_version + 1, body=body, created_at=now, is_default=as_default
        )
        self._store.insert_template_version(tx, account, version)
        changed = replace(template, last_version=version.version, modified_at=now)
        if as_default:
            changed = replace(changed, default_version=version.version, body=body)
        self._store.update_template(tx, changed)
        return version

    def version(self, tx: Tx, account: AccountId, name: TemplateName, version: int) -> TemplateVersion:
        """One version."""
        for each in self.versions(tx, account, name):
            if each.version == version:
                return each
        raise NotFound(f"The provisioning template {name} has no version {version}.", subject="template-version")

    def versions(self, tx: Tx, account: AccountId, name: TemplateName) -> Sequence[TemplateVersion]:
        """All versions, newest first."""
        self.find(tx, account, name)
        return self._store.template_versions(tx, account, name)

    def delete_version(self, tx: Tx, account: AccountId, name: TemplateName, version: int) -> None:
        """Delete a version that isn't the default."""
        if self.version(tx, account, name, version).is_default:
            raise Conflict(
                f"Version {version} of the provisioning template {name} is its default. Make another one the default first.",
                subject="delete",
            )
        self._store.delete_template_version(tx, account, name, version)

    def _check_hook(self, hook: ProvisioningHook | None, type: TemplateType) -> None:
        if hook is None:
            return
        if type is TemplateType.JITP:
            raise InvalidRequest("A template of type JITP has no pre-provisioning hook.", subject="hook")
        if hook.payload_version != HOOK_PAYLOAD_VERSION:
            raise InvalidRequest(f"The hook's payloadVersion must be {HOOK_PAYLOAD_VERSION}.", subject="hook")
        if hook.target_arn not in self._hooks:
            raise InvalidRequest(
                f"No pre-provisioning hook {hook.target_arn[:200]!r} is known to this server. Whoever runs it names hooks with "
                "their addresses in provisioning-hooks.toml in the state directory.",
                subject="hook",
            )


def check_body(body: str, type: TemplateType) -> Template:
    """Read a body that devices are provisioned by.

    Raises:
        InvalidRequest: it isn't well-formed, or could be turned on a certificate that isn't the device's own. Subject
            ``template``.
    """
    template = Template.read(body)
    if not template.names_only_its_own_certificate:
        raise InvalidRequest(
            f'A template of type {type.value} must have a certificate with "CertificateId": '
            '{"Ref": "AWS::IoT::Certificate::Id"} and nothing else that names one.',
            subject="template",
        )
    return template
