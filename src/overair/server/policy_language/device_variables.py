"""The values that policies of devices may name: of certificate, connection and thing (wire reference §8.5). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

LIST_MAX: Final = 5
"""Values of one attribute of a name that are looked at."""

AVAILABLE_KEYS: Final = "iot:Certificate.AvailableKeys"
"""The names of the certificate's variables that have a value."""

_LATER: Final = re.compile(r"\.(?:List|\d)\Z")

Values = dict[str, str | tuple[str, ...]]

_NAME_ATTRIBUTES: Final[Mapping[str, ObjectIdentifier]] = {
    "CommonName": NameOID.COMMON_NAME,
    "Country": NameOID.COUNTRY_NAME,
    "Organization": NameOID.ORGANIZATION_NAME,
    "OrganizationalUnit": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "State": NameOID.STATE_OR_PROVINCE_NAME,
    "SerialNumber": NameOID.SERIAL_NUMBER,
    "Title": NameOID.TITLE,
    "Surname": NameOID.SURNAME,
    "GivenName": NameOID.GIVEN_NAME,
    "Initials": NameOID.INITIALS,
    "Pseudonym": NameOID.PSEUDONYM,
    "GenerationQualifier": NameOID.GENERATION_QUALIFIER,
    "DistinguishedNameQualifier": NameOID.DN_QUALIFIER,
}


def connection_values(
    *,
    client_id: str,
    source_ip: str,
    thing_name: str | None = None,
    thing_type_name: str | None = None,
    thing_attributes: Mapping[str, str] | None = None,
    domain_name: str = "",
) -> Values:
    """The values of one MQTT connection.

    ``thing_name`` is given only where the client id is the name of a thing that the certificate is attached to; without it
    the connection has no thing variables at all and ``IsAttached`` is false.
    """
    values: Values = {
        "iot:ClientId": client_id,
        "iot:Connection.Thing.IsAttached": "true" if thing_name is not None else "false",
    }
    if source_ip:
        values["aws:SourceIp"] = source_ip
    if domain_name:
        values["iot:DomainName"] = domain_name
    if thing_name is not None:
        values["iot:Connection.Thing.ThingName"] = thing_name
        if thing_type_name is not None:
            values["iot:Connection.Thing.ThingTypeName"] = thing_type_name
        for name, value in (thing_attributes or {}).items():
            values[f"iot:Connection.Thing.Attributes[{name}]"] = value
    return values


def certificate_values(certificate: x509.Certificate, certificate_id: str) -> Values:
    """The values of the certificate that a connection proved itself with. Names that can't be read are left out."""
    values: Values = {
        "iot:CertificateId": certificate_id,
        "iot:Certificate.Id": certificate_id,
        "iot:Certificate.SerialNumber": format(certificate.serial_number, "x"),
    }
    for side, name in (("Subject", certificate.subject), ("Issuer", certificate.issuer)):
        for word, oid in _NAME_ATTRIBUTES.items():
            _add(values, f"iot:Certificate.{side}.{word}", [str(item.value) for item in name.get_attributes_for_oid(oid)])
    try:
        subject = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        _add_alternatives(values, "Subject", subject)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        pass
    try:
        issuer = certificate.extensions.get_extension_for_class(x509.IssuerAlternativeName).value
        _add_alternatives(values, "Issuer", issuer)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        pass
    values[AVAILABLE_KEYS] = tuple(name for name in values if name.startswith("iot:Certificate.") and not _LATER.search(name))
    return values


def _add_alternatives(values: Values, side: str, names: Iterable[x509.GeneralName]) -> None:
    found: dict[str, list[str]] = {}
    for name in names:
        match name:
            case x509.RFC822Name():
                found.setdefault("RFC822Name", []).append(name.value)
            case x509.DNSName():
                found.setdefault("DNSName", []).append(name.value)
            case x509.UniformResourceIdentifier():
                found.setdefault("UniformResourceIdentifier", []).append(name.value)
            case x509.IPAddress():
                found.setdefault("IPAddress", []).append(str(name.value))
            case x509.DirectoryName():
                found.setdefault("DirectoryName", []).append(name.value.rfc4514_string())
            case _:
                pass
    for word, items in found.items():
        _add(values, f"iot:Certificate.{side}.AlternativeName.{word}", items)


def _add(values: Values, name: str, items: Sequence[str]) -> None:
    if not items:
        return
    kept = tuple(items[:LIST_MAX])
    values[name] = kept[0]
    for number, item in enumerate(kept[1:], 1):
        values[f"{name}.{number}"] = item
    values[f"{name}.List"] = kept
