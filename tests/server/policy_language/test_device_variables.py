"""The values that a certificate and a connection give to policies."""

from __future__ import annotations

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from overair.server.policy_language.device_variables import certificate_values, connection_values


def test_a_certificates_names_become_values() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [
        x509.NameAttribute(NameOID.COMMON_NAME, "dev-1"),
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "first"),
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "second"),
    ]
    day = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    alternatives = [x509.DNSName("a.example"), x509.DNSName("b.example"), x509.IPAddress(ipaddress.ip_address("192.0.2.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(attributes))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]))
        .public_key(key.public_key())
        .serial_number(0xABC)
        .not_valid_before(day)
        .not_valid_after(day)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(key, hashes.SHA256())
    )
    values = certificate_values(certificate, "f" * 64)
    assert values["iot:Certificate.Subject.CommonName"] == "dev-1"
    assert values["iot:Certificate.Subject.CommonName.List"] == ("dev-1",)
    assert values["iot:Certificate.Subject.OrganizationalUnit"] == "first"
    assert values["iot:Certificate.Subject.OrganizationalUnit.1"] == "second"
    assert values["iot:Certificate.Issuer.CommonName"] == "ca"
    assert values["iot:Certificate.SerialNumber"] == "abc"
    assert values["iot:Certificate.Subject.AlternativeName.DNSName.List"] == ("a.example", "b.example")
    assert values["iot:Certificate.Subject.AlternativeName.IPAddress"] == "192.0.2.1"
    assert set(values["iot:Certificate.AvailableKeys"]) == {
        "iot:Certificate.Id",
        "iot:Certificate.SerialNumber",
        "iot:Certificate.Subject.CommonName",
        "iot:Certificate.Subject.OrganizationalUnit",
        "iot:Certificate.Issuer.CommonName",
        "iot:Certificate.Subject.AlternativeName.DNSName",
        "iot:Certificate.Subject.AlternativeName.IPAddress",
    }
    assert values["iot:CertificateId"] == "f" * 64
    assert "iot:Certificate.Subject.Country" not in values


def test_a_connection_has_a_domain_only_where_it_came_by_one() -> None:
    assert connection_values(client_id="c", source_ip="", domain_name="a.example")["iot:DomainName"] == "a.example"
    assert "iot:DomainName" not in connection_values(client_id="c", source_ip="")


def test_a_connection_has_thing_values_only_with_a_thing() -> None:
    assert connection_values(client_id="c", source_ip="192.0.2.1") == {
        "iot:ClientId": "c",
        "iot:Connection.Thing.IsAttached": "false",
        "aws:SourceIp": "192.0.2.1",
    }
    attached = connection_values(
        client_id="t", source_ip="", thing_name="t", thing_type_name="kind", thing_attributes={"Env": "dev"}
    )
    assert attached == {
        "iot:ClientId": "t",
        "iot:Connection.Thing.IsAttached": "true",
        "iot:Connection.Thing.ThingName": "t",
        "iot:Connection.Thing.ThingTypeName": "kind",
        "iot:Connection.Thing.Attributes[Env]": "dev",
    }
