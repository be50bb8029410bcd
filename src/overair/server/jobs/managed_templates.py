"""The job templates that AWS ships (wire reference §3.8): documents of AWS IoT Device Client's handlers. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from overair.basics.arn import Place
from overair.basics.errors import InvalidRequest, NotFound

VERSION: Final = "1.0"
VALUE_LENGTH_MAX: Final = 30_720
_PLACEHOLDER: Final = re.compile(r"\$\{aws:iot:parameter:([a-zA-Z0-9_-]{1,128})\}")
_ARN: Final = re.compile(r"arn:aws:iot:[a-z0-9-]+::jobtemplate/(AWS-[A-Za-z-]+)(?::([0-9]+\.[0-9]+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentParameter:
    """What whoever makes a job from the template fills in."""

    key: str
    description: str
    example: str
    regex: str = r"^[^\x00]*$"
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedTemplate:
    name: str
    description: str
    document: str
    parameters: tuple[DocumentParameter, ...]
    environments: tuple[str, ...] = ("LINUX",)

    def arn(self, place: Place) -> str:
        return f"arn:aws:iot:{place.region}::jobtemplate/{self.name}:{VERSION}"

    def filled(self, values: Mapping[str, str]) -> str:
        """The document with its parameters; an optional one that isn't given is empty.

        Raises:
            InvalidRequest: one is missing, unknown, too long or not as its rule says. Subject ``document-parameters``.
        """
        known = {parameter.key: parameter for parameter in self.parameters}
        for key, value in values.items():
            if key not in known:
                raise _refused(f"{self.name} has no parameter {key[:128]!r}; it has {', '.join(sorted(known))}")
            if len(value) > VALUE_LENGTH_MAX or not re.fullmatch(known[key].regex, value):
                raise _refused(f"{key} must match {known[key].regex} and have at most {VALUE_LENGTH_MAX} characters")
        missing = [parameter.key for parameter in self.parameters if not parameter.optional and not values.get(parameter.key)]
        if missing:
            raise _refused(f"{self.name} needs {', '.join(missing)}")
        # Every placeholder stands inside a JSON string, so its value is written as the inside of one.
        return _PLACEHOLDER.sub(lambda match: json.dumps(values.get(match[1], ""))[1:-1], self.document)


_RUN_AS_USER: Final = DocumentParameter(
    key="runAsUser",
    description="The user that runs the handler; the one that runs the device's client if it isn't named.",
    example="user1",
    regex=r"^[^\s]{0,256}$",
    optional=True,
)
_HANDLER_PATH: Final = DocumentParameter(
    key="pathToHandler",
    description="Where the handler lies on the device, if not in the client's own folder.",
    example="/sample/path",
    regex=r"^[^\x00]{0,4096}$",
    optional=True,
)


def _parameter(key: str, description: str, example: str) -> DocumentParameter:
    return DocumentParameter(key=key, description=description, example=example, regex=r"^[^\x00]{1,30720}$")


def _document(name: str, action_type: str, action_input: dict[str, object]) -> str:
    action = {"name": name, "type": action_type, "input": action_input, "runAsUser": "${aws:iot:parameter:runAsUser}"}
    return json.dumps({"version": "1.0", "steps": [{"action": action}]}, separators=(",", ":"))


def _handler(name: str, what: str, handler: str, *parameters: DocumentParameter) -> ManagedTemplate:
    action_input: dict[str, object] = {"handler": handler}
    if parameters:
        action_input["args"] = [f"${{aws:iot:parameter:{parameter.key}}}" for parameter in parameters]
    action_input["path"] = "${aws:iot:parameter:pathToHandler}"
    return ManagedTemplate(
        name=f"AWS-{name}",
        description=what,
        document=_document(name, "runHandler", action_input),
        parameters=(*parameters, _RUN_AS_USER, _HANDLER_PATH),
    )


_PACKAGES: Final = _parameter("packages", "Packages, separated by blanks.", "firefox make cmake")
_SERVICES: Final = _parameter("services", "Services, separated by blanks.", "nginx ntp")

MANAGED_TEMPLATES: Final[Mapping[str, ManagedTemplate]] = {
    template.name: template
    for template in (
        _handler(
            "Download-File",
            "Downloads a file to the device.",
            "download-file.sh",
            _parameter("downloadUrl", "Where the file is; a placeholder for a presigned URL too.", "https://example.com/file"),
            _parameter("filePath", "Where the device puts it.", "/opt/app/file"),
        ),
        _handler("Install-Application", "Installs packages.", "install-packages.sh", _PACKAGES),
        _handler("Reboot", "Starts the device anew.", "reboot.sh"),
        _handler("Remove-Application", "Removes packages.", "remove-packages.sh", _PACKAGES),
        _handler("Restart-Application", "Stops services and starts them anew.", "restart-services.sh", _SERVICES),
        ManagedTemplate(
            name="AWS-Run-Command",
            description="Runs a command of the device's shell.",
            document=_document("Run-Command", "runCommand", {"command": "${aws:iot:parameter:command}"}),
            parameters=(
                _parameter("command", "The command and its arguments, separated by commas.", "echo,hello"),
                _RUN_AS_USER,
            ),
        ),
        _handler("Start-Application", "Starts services.", "start-services.sh", _SERVICES),
        _handler("Stop-Application", "Stops services.", "stop-services.sh", _SERVICES),
    )
}


def find_managed(name: str, version: str | None = None) -> ManagedTemplate:
    """Raises NotFound, subject ``job-template``."""
    template = MANAGED_TEMPLATES.get(name)
    if template is None or version not in (None, VERSION):
        shown = name[:64] if version is None else f"{name[:64]}:{version[:16]}"
        raise NotFound(f"There is no managed job template {shown!r}.", subject="job-template")
    return template


def managed_by_arn(arn: str) -> ManagedTemplate | None:
    """The managed template that an ARN names; None where it names one of an account's own.

    Raises:
        NotFound: it has the form of a managed one and there is none. Subject ``job-template``.
    """
    found = _ARN.fullmatch(arn)
    return None if found is None else find_managed(found[1], found[2])


def before_substitution(arn: str | None, parameters: Mapping[str, str], document: str) -> str:
    """A job's document as it was before its template's parameters were filled in. ``arn``: the template that the job names; one
    that brought another document has it as it stands."""
    managed = None if arn is None else managed_by_arn(arn)
    return managed.document if managed is not None and managed.filled(parameters) == document else document


def _refused(rule: str) -> InvalidRequest:
    return InvalidRequest(f"The document's parameters can't be used: {rule}.", subject="document-parameters")
