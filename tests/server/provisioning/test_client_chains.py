"""Chains of clients, case by case: what x509-limbo, whose cases are of servers, has no word for."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from overair.basics.clock import from_datetime
from overair.basics.errors import InvalidRequest
from overair.server.gateway.authority import RefusalCode
from overair.server.provisioning.certificate_paths import (
    Anchor,
    PathRefused,
    PresentedChain,
    TrustedPath,
    authority_id,
    device_name,
    verify_path,
)
from overair.server.provisioning.revocation_lists import read_revocation_list
from tests.support import pki
from tests.support.pki import Held, authority, deep, device, names

NOW = from_datetime(datetime(2026, 1, 1, tzinfo=UTC))
PAST, FUTURE = datetime(2025, 6, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
ROOT = authority()
ISSUING = authority("Issuing", ROOT)


def deep_device(above: int) -> tuple[Held, Held]:
    root, lowest = deep(above)
    return device(lowest), root


def subject_of(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in attributes])


def san(*names_of: x509.GeneralName, critical: bool = False) -> list[tuple[x509.ExtensionType, bool]]:
    return [(x509.SubjectAlternativeName(names_of), critical)]


GOOD: Final[dict[str, Callable[[], tuple[Held, Held]]]] = {
    "a common name and nothing else": lambda: (device(ROOT), ROOT),
    "no alternative name, organisation and serial number in the subject": lambda: (
        device(
            ROOT,
            subject_of((NameOID.ORGANIZATION_NAME, "Acme"), (NameOID.SERIAL_NUMBER, "7"), (NameOID.COMMON_NAME, "vin-1")),
        ),
        ROOT,
    ),
    "an alternative name that differs, which isn't asked": lambda: (device(ROOT, more=san(x509.DNSName("b.example"))), ROOT),
    "a critical alternative name": lambda: (device(ROOT, more=san(x509.DNSName("b.example"), critical=True)), ROOT),
    "an URI as alternative name": lambda: (
        device(ROOT, more=san(x509.UniformResourceIdentifier("urn:uuid:0"))),
        ROOT,
    ),
    "one intermediate": lambda: (device(ISSUING), ROOT),
    "five authorities above": lambda: deep_device(5),
    "server and client at once": lambda: (device(ROOT, purposes=[*pki.SERVER, *pki.CLIENT]), ROOT),
    "a client's key of P-384": lambda: (device(ROOT, key=ec.generate_private_key(ec.SECP384R1())), ROOT),
    "a client's key of RSA": lambda: (device(ROOT, key=pki.rsa_key(2048)), ROOT),
    "signed with SHA-384": lambda: (device(ROOT, digest=hashes.SHA384()), ROOT),
    "an intermediate for clients": lambda: (device(authority("Clients", ROOT, purposes=pki.CLIENT)), ROOT),
    "an intermediate for any purpose": lambda: (
        device(authority("Any", ROOT, purposes=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])),
        ROOT,
    ),
    "a serial number of twenty octets": lambda: (device(ROOT, serial=(1 << 159) - 1), ROOT),
    "a serial number of one": lambda: (device(ROOT, serial=1), ROOT),
}

BAD: Final[dict[str, tuple[RefusalCode, Callable[[], tuple[Held, Held]]]]] = {
    "two common names": (RefusalCode.SEVERAL_COMMON_NAMES, lambda: (device(ROOT, names("vin-1", "vin-2")), ROOT)),
    "no common name": (
        RefusalCode.NO_COMMON_NAME,
        lambda: (device(ROOT, subject_of((NameOID.ORGANIZATION_NAME, "Acme"))), ROOT),
    ),
    "no subject, the name in the alternative name alone": (
        RefusalCode.NO_COMMON_NAME,
        lambda: (device(ROOT, x509.Name([]), more=san(x509.DNSName("vin-1"), critical=True)), ROOT),
    ),
    "six authorities above": (RefusalCode.CHAIN_TOO_DEEP, lambda: deep_device(6)),
    "for servers": (RefusalCode.WRONG_PURPOSE, lambda: (device(ROOT, purposes=pki.SERVER), ROOT)),
    "for signing code": (
        RefusalCode.WRONG_PURPOSE,
        lambda: (device(ROOT, purposes=[ExtendedKeyUsageOID.CODE_SIGNING]), ROOT),
    ),
    "for anything": (
        RefusalCode.WRONG_PURPOSE,
        lambda: (device(ROOT, purposes=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), ROOT),
    ),
    "for nothing that it says": (RefusalCode.WRONG_PURPOSE, lambda: (device(ROOT, purposes=()), ROOT)),
    "an intermediate for servers": (
        RefusalCode.CHAIN_INVALID,
        lambda: (device(authority("Servers", ROOT, purposes=pki.SERVER)), ROOT),
    ),
    "expired": (RefusalCode.EXPIRED, lambda: (device(ROOT, dies=PAST), ROOT)),
    "not valid yet": (RefusalCode.NOT_YET_VALID, lambda: (device(ROOT, born=FUTURE), ROOT)),
    "an expired intermediate": (
        RefusalCode.AUTHORITY_EXPIRED,
        lambda: (device(authority("Issuing", ROOT, dies=PAST)), ROOT),
    ),
    "issued by a device": (RefusalCode.CHAIN_INVALID, lambda: (device(device(ROOT, "vin-2")), ROOT)),
    "its own issuer": (RefusalCode.FOREIGN_AUTHORITY, lambda: (device(None), ROOT)),
    "a root of the same name with another key": (RefusalCode.FOREIGN_AUTHORITY, lambda: (device(authority()), ROOT)),
    "a key of an algorithm that isn't accepted": (
        RefusalCode.CHAIN_INVALID,
        lambda: (device(ROOT, key=ed25519.Ed25519PrivateKey.generate()), ROOT),  # type: ignore[arg-type]
    ),
    "an unknown critical extension": (
        RefusalCode.CHAIN_INVALID,
        lambda: (
            device(ROOT, more=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\5\0"), True)]),
            ROOT,
        ),
    ),
    "a path length of nought above an intermediate": (
        RefusalCode.CHAIN_INVALID,
        lambda: (device(authority("Issuing", short := authority("Short", path_length=0))), short),
    ),
}


def judged(leaf: Held, root: Held) -> tuple[TrustedPath, str]:
    chain = PresentedChain.read(leaf.der, leaf.chain_der)
    path = verify_path(chain, [Anchor(authority_id(root.certificate), root.certificate)], now=NOW)
    return path, device_name(chain.leaf)


@pytest.mark.parametrize("case", GOOD)
def test_a_clients_good_chain_names_the_device(case: str) -> None:
    leaf, root = GOOD[case]()
    path, name = judged(leaf, root)
    assert name == "vin-1"
    assert path.links[0].serial_number == leaf.certificate.serial_number
    assert len(path.links) == path.depth


@pytest.mark.parametrize("case", BAD)
def test_a_clients_chain_that_breaks_a_rule_is_refused_by_that_rules_name(case: str) -> None:
    expected, make = BAD[case]
    with pytest.raises(PathRefused) as caught:
        judged(*make())
    assert caught.value.code is expected, caught.value.message


# Revocation lists -----------------------------------------------------------------------------------------------------------


def listed(leaf: Held, root: Held, pem: str) -> bool:
    path, _ = judged(leaf, root)
    issuers = [each.certificate for each in (*leaf.intermediates, root)]
    found = read_revocation_list(pem.encode(), issuers, now=NOW)
    return any(link.issuer == found.issuer and link.serial_number in found.serial_numbers for link in path.links)


def test_a_list_names_a_device_by_its_issuers_key_and_its_serial_number() -> None:
    leaf, other = device(ISSUING), device(ISSUING, "vin-2")
    assert listed(leaf, ROOT, pki.revocation_list(ISSUING, other, leaf))
    assert not listed(leaf, ROOT, pki.revocation_list(ISSUING, other))
    assert not listed(leaf, ROOT, pki.revocation_list(ISSUING))
    # The same number under another authority is another certificate.
    assert not listed(leaf, ROOT, pki.revocation_list(ROOT, leaf))
    assert listed(leaf, ROOT, pki.revocation_list(ROOT, ISSUING))


DELTA: Final = [(x509.DeltaCRLIndicator(1), True)]
PART: Final = [
    (
        x509.IssuingDistributionPoint(
            full_name=None,
            relative_name=None,
            only_contains_user_certs=True,
            only_contains_ca_certs=False,
            only_some_reasons=None,
            indirect_crl=False,
            only_contains_attribute_certs=False,
        ),
        True,
    )
]
NO_LIST_SIGNER = authority("No list signer", key_usage=pki.usage(key_cert_sign=True, crl_sign=False))
INDIRECT: Final = [(x509.CertificateIssuer([x509.DirectoryName(ROOT.certificate.subject)]), True)]


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (lambda: pki.revocation_list(ROOT, next_update=PAST), "is stale"),
        (lambda: pki.revocation_list(ROOT, this_update=FUTURE), "still to come"),
        (lambda: pki.revocation_list(ROOT, number=None), "no CRL number"),
        (lambda: pki.revocation_list(ROOT, more=DELTA), "part of a list"),
        (lambda: pki.revocation_list(ROOT, more=PART), "part of a list"),
        (lambda: pki.revocation_list(ROOT, device(ROOT), entry_more=INDIRECT), "2.5.29.29"),
        (lambda: pki.revocation_list(authority("Other")), "no certificate is here"),
        (lambda: pki.revocation_list(ROOT, signed_by=authority()), "isn't signed by"),
        (lambda: pki.revocation_list(NO_LIST_SIGNER), "cRLSign"),
        (lambda: pki.revocation_list(ROOT) * 2, "there are 2"),
        (lambda: ROOT.pem, "there are 0"),
        (lambda: "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----", "can't be read"),
        (lambda: "x" * (3 << 20), "at most"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_list_that_breaks_a_rule_is_refused_by_that_rules_name(pem: Callable[[], str], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        read_revocation_list(pem().encode(), [ROOT.certificate, NO_LIST_SIGNER.certificate], now=NOW)
    assert caught.value.subject == "revocation-list"
    assert "Nothing was stored" in caught.value.message


def test_a_changed_byte_of_a_list_is_never_taken() -> None:
    leaf = device(ROOT)
    der = x509.load_pem_x509_crl(pki.revocation_list(ROOT, leaf).encode()).public_bytes(Encoding.DER)
    for at in range(len(der)):
        changed = bytes([*der[:at], der[at] ^ 1, *der[at + 1 :]])
        pem = "-----BEGIN X509 CRL-----\n" + base64.b64encode(changed).decode() + "\n-----END X509 CRL-----\n"
        with pytest.raises(InvalidRequest):
            read_revocation_list(pem.encode(), [ROOT.certificate], now=NOW)
