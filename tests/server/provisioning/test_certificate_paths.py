"""Which chains are believed, and what each other is called."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from overair.basics.clock import Instant, from_datetime
from overair.basics.errors import InvalidRequest
from overair.server.gateway.authority import RefusalCode
from overair.server.provisioning.certificate_paths import (
    SIGNATURES_CHECKED_MAX,
    Anchor,
    PathRefused,
    PresentedChain,
    TrustedPath,
    authority_id,
    device_name,
    read_authorities,
    verify_path,
)
from tests.support import pki
from tests.support.pki import Held, authority, deep, device, names

pytestmark = pytest.mark.filterwarnings("ignore:Attribute's length must be")
"""A thing's name may have 128 characters; X.520 ends a common name at 64, of which the library reminds."""

NOW = from_datetime(datetime(2026, 1, 1, tzinfo=UTC))
ROOT = authority()


def anchor(root: Held) -> Anchor:
    return Anchor(authority_id(root.certificate), root.certificate)


def verified(leaf: Held, root: Held = ROOT, *, sent: tuple[bytes, ...] | None = None, now: Instant = NOW) -> TrustedPath:
    chain = PresentedChain.read(leaf.der, leaf.chain_der if sent is None else sent)
    return verify_path(chain, [anchor(root)], now=now)


def refusal(leaf: Held, root: Held = ROOT, **more: Any) -> RefusalCode:
    with pytest.raises(PathRefused) as caught:
        verified(leaf, root, **more)
    assert caught.value.message
    return caught.value.code


def name_refusal(subject: x509.Name) -> RefusalCode:
    with pytest.raises(PathRefused) as caught:
        device_name(device(ROOT, subject).certificate)
    return caught.value.code


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_up_to_five_certificates_may_stand_above_a_devices_own(depth: int) -> None:
    root, lowest = deep(depth)
    path = verified(device(lowest), root)
    assert (path.authority, path.depth) == (authority_id(root.certificate), depth)


def test_a_chain_of_six_is_too_deep() -> None:
    root, lowest = deep(6)
    assert refusal(device(lowest), root) is RefusalCode.CHAIN_TOO_DEEP


def test_a_peer_that_sends_a_heap_of_certificates_is_refused_before_any_is_read() -> None:
    with pytest.raises(PathRefused) as caught:
        PresentedChain.read(b"", (b"",) * 11)
    assert caught.value.code is RefusalCode.CHAIN_TOO_DEEP


def test_the_order_in_which_intermediates_come_doesnt_matter_nor_do_strangers_among_them() -> None:
    root, lowest = deep(4)
    leaf = device(lowest)
    sent = (*reversed(leaf.chain_der), authority("Stranger").der, root.der)
    assert verified(leaf, root, sent=sent).depth == 4


def test_an_intermediate_that_wasnt_sent_leaves_no_path() -> None:
    root, lowest = deep(3)
    leaf = device(lowest)
    assert refusal(leaf, root, sent=leaf.chain_der[:1]) is RefusalCode.FOREIGN_AUTHORITY
    assert refusal(leaf, root, sent=()) is RefusalCode.FOREIGN_AUTHORITY


def test_another_authority_is_foreign_even_under_the_same_name() -> None:
    assert refusal(device(authority("Other root"))) is RefusalCode.FOREIGN_AUTHORITY
    assert refusal(device(authority())) is RefusalCode.FOREIGN_AUTHORITY
    assert refusal(device(None)) is RefusalCode.FOREIGN_AUTHORITY


def test_of_two_authorities_of_one_name_the_signature_tells_which() -> None:
    twin = authority()
    chain = PresentedChain.read(device(twin).der, ())
    assert verify_path(chain, [anchor(ROOT), anchor(twin)], now=NOW).authority == authority_id(twin.certificate)


def test_a_second_path_is_tried_where_the_first_is_not_good() -> None:
    # A cross-certified intermediate: the same key under two roots, one of them expired.
    old = authority("Old root", dies=datetime(2025, 6, 1, tzinfo=UTC))
    key = pki.new_key()
    by_old, by_new = authority("Issuing", old, key=key), authority("Issuing", ROOT, key=key)
    chain = PresentedChain.read(device(by_old).der, (by_old.der, by_new.der))
    assert verify_path(chain, [anchor(old), anchor(ROOT)], now=NOW).authority == authority_id(ROOT.certificate)


def test_dates_of_the_device_and_of_every_authority_count() -> None:
    past, future = datetime(2025, 6, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    assert refusal(device(ROOT, dies=past)) is RefusalCode.EXPIRED
    assert refusal(device(ROOT, born=future)) is RefusalCode.NOT_YET_VALID
    assert refusal(device(authority("Issuing", ROOT, dies=past))) is RefusalCode.AUTHORITY_EXPIRED
    assert refusal(device(authority("Issuing", ROOT, born=future))) is RefusalCode.AUTHORITY_EXPIRED
    dead = authority("Dead root", dies=past)
    assert refusal(device(dead), dead) is RefusalCode.AUTHORITY_EXPIRED


def test_a_path_is_good_until_its_first_certificate_ends() -> None:
    issuing = authority("Issuing", ROOT, dies=datetime(2026, 6, 1, tzinfo=UTC))
    assert verified(device(issuing)).not_after == from_datetime(datetime(2026, 6, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    "leaf",
    [
        device(ROOT, purposes=pki.SERVER),
        device(ROOT, purposes=()),
        device(ROOT, purposes=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
        device(ROOT, key_usage=pki.usage(key_cert_sign=True)),
        device(ROOT, more=[(x509.BasicConstraints(ca=True, path_length=None), True)]),
        authority("vin-1", ROOT),
    ],
    ids=["server", "no purpose", "any purpose", "no signature", "an authority that is a client", "an authority"],
)
def test_a_certificate_that_isnt_a_devices_is_of_the_wrong_purpose(leaf: Held) -> None:
    assert refusal(leaf) is RefusalCode.WRONG_PURPOSE


def test_a_device_may_have_more_purposes_and_no_key_usage() -> None:
    assert verified(device(ROOT, purposes=[*pki.SERVER, *pki.CLIENT], key_usage=None)).depth == 1


@pytest.mark.parametrize(
    "issuing",
    [
        authority("Issuing", ROOT, ca=False),
        authority("Issuing", ROOT, key_usage=pki.usage(digital_signature=True)),
        authority("Issuing", ROOT, key_usage=None),
        authority("Issuing", ROOT, purposes=pki.SERVER),
        authority("Issuing", ROOT, more=[(x509.NameConstraints([x509.DNSName("a.example")], None), True)]),
        authority("Issuing", ROOT, more=[(x509.PolicyConstraints(0, None), True)]),
        authority("Issuing", ROOT, key=ec.generate_private_key(ec.SECP256K1())),
    ],
    ids=[
        "not an authority",
        "can't sign",
        "no key usage",
        "servers only",
        "name constraints",
        "unknown critical",
        "weak curve",
    ],
)
def test_an_intermediate_that_may_not_issue_devices_ends_the_path(issuing: Held) -> None:
    assert refusal(device(issuing)) in (RefusalCode.CHAIN_INVALID, RefusalCode.FOREIGN_AUTHORITY)


def test_a_device_cant_issue_another_device() -> None:
    honest = device(ROOT, "vin-1")
    assert refusal(device(Held(honest.certificate, honest.key, ROOT), "vin-2")) is RefusalCode.CHAIN_INVALID


def test_an_authoritys_path_length_is_kept() -> None:
    root = authority("Short root", path_length=0)
    assert verified(device(root), root).depth == 1
    assert refusal(device(authority("Issuing", root)), root) is RefusalCode.CHAIN_INVALID
    issuing = authority("Issuing", authority("Middle", ROOT, path_length=0))
    assert refusal(device(issuing)) is RefusalCode.CHAIN_INVALID


def test_a_roots_own_purposes_arent_asked_since_instructions_differ_there() -> None:
    root = authority("Product root", purposes=pki.SERVER)
    assert verified(device(root), root).depth == 1


def test_a_signature_over_sha_1_is_no_signature() -> None:
    root = authority("RSA root", key=pki.rsa_key(2048))
    leaf = device(root)
    assert verified(leaf, root).depth == 1
    # The same certificate, with the algorithm that was broken in 2017 in its two places, and well signed with that.
    sha_256, sha_1 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    signed = leaf.certificate.tbs_certificate_bytes.replace(sha_256, sha_1)
    signature = pki.rsa_key(2048).sign(signed, padding.PKCS1v15(), hashes.SHA1())
    weak_der = leaf.der.replace(sha_256, sha_1).replace(leaf.certificate.signature, signature)
    chain = PresentedChain.read(weak_der, ())
    pki.rsa_key(2048).public_key().verify(
        chain.leaf.signature, chain.leaf.tbs_certificate_bytes, padding.PKCS1v15(), hashes.SHA1()
    )
    with pytest.raises(PathRefused) as caught:
        verify_path(chain, [anchor(root)], now=NOW)
    assert caught.value.code is RefusalCode.FOREIGN_AUTHORITY


def test_one_changed_bit_breaks_the_path() -> None:
    leaf = device(ROOT)
    changed = bytearray(leaf.der)
    changed[-1] ^= 1
    with pytest.raises(PathRefused) as caught:
        verify_path(PresentedChain.read(bytes(changed), ()), [anchor(ROOT)], now=NOW)
    assert caught.value.code is RefusalCode.FOREIGN_AUTHORITY


def test_a_signature_that_ends_within_a_byte_is_another_spelling_and_refused() -> None:
    while True:  # one signature in two ends on a zero bit, which such a spelling may leave out
        leaf = device(ROOT)
        if leaf.certificate.signature[-1] & 1 == 0:
            break
    at = len(leaf.der) - len(leaf.certificate.signature) - 1
    assert leaf.der[at] == 0
    other = leaf.der[:at] + b"\1" + leaf.der[at + 1 :]
    chain = PresentedChain.read(other, ())
    assert chain.leaf.signature == leaf.certificate.signature
    with pytest.raises(PathRefused) as caught:
        verify_path(chain, [anchor(ROOT)], now=NOW)
    assert caught.value.code is RefusalCode.CHAIN_INVALID


def test_many_issuers_of_one_name_cost_a_bounded_number_of_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []

    def counting(below: x509.Certificate, above: x509.Certificate) -> bool:
        checked.append(above)
        return True  # the worst case: everything seems to have issued everything

    monkeypatch.setattr("overair.server.provisioning.certificate_paths.directly_issued", counting)
    same = [certificate_of_itself() for _ in range(10)]
    with pytest.raises(PathRefused):
        verify_path(PresentedChain.read(device(same[0]).der, tuple(each.der for each in same)), [], now=NOW)
    assert len(checked) == SIGNATURES_CHECKED_MAX


def certificate_of_itself() -> Held:
    return authority("Same")


# Names ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "vin-1", "VIN:0_9", "x" * 128])
def test_the_one_common_name_is_the_device(name: str) -> None:
    assert device_name(device(ROOT, names(name, organisation="Acme")).certificate) == name


def test_a_subject_without_a_common_name_or_with_two_names_no_device() -> None:
    assert name_refusal(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme")])) is RefusalCode.NO_COMMON_NAME
    assert name_refusal(names("vin-1", "vin-2")) is RefusalCode.SEVERAL_COMMON_NAMES
    assert name_refusal(names("vin-1", "vin-1")) is RefusalCode.SEVERAL_COMMON_NAMES
    one_rdn = x509.RelativeDistinguishedName(
        [x509.NameAttribute(NameOID.COMMON_NAME, "vin-1"), x509.NameAttribute(NameOID.COMMON_NAME, "vin-2")]
    )
    assert name_refusal(x509.Name([one_rdn])) is RefusalCode.SEVERAL_COMMON_NAMES


@pytest.mark.parametrize("name", ["*", "vin-*", "a/b", "a.b", "a b", "vin-1\0", "vin-1\n", "ü", "x" * 129, "${x}", "+", "#"])
def test_a_common_name_with_wildcards_slashes_or_nul_is_no_devices(name: str) -> None:
    assert name_refusal(names(name)) is RefusalCode.COMMON_NAME_INVALID


# Uploads --------------------------------------------------------------------------------------------------------------------


def test_an_upload_may_hold_several_authorities() -> None:
    other = authority("Other", key=pki.rsa_key(2048))
    found = read_authorities((ROOT.pem + other.pem).encode(), count_max=5, now=NOW)
    assert found == [ROOT.certificate, other.certificate]


@pytest.mark.parametrize(
    "key_text",
    [
        ROOT.key_pem,
        ROOT.key_pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
        ROOT.key_pem.replace("PRIVATE KEY", "RSA PRIVATE KEY"),
        ROOT.key_pem.replace("PRIVATE KEY", "OPENSSH PRIVATE KEY"),
        ROOT.key_pem.lower(),
        "-----BEGIN EC PRIVATE  KEY-----",
    ],
)
def test_an_upload_with_a_private_key_in_it_is_refused_loudly_and_the_key_isnt_repeated(key_text: str) -> None:
    for text in (ROOT.pem + key_text, key_text + ROOT.pem, key_text):
        with pytest.raises(InvalidRequest) as caught:
            read_authorities(text.encode(), count_max=5, now=NOW)
        assert caught.value.subject == "private-key-sent"
        assert "Nothing was stored" in caught.value.message
        assert "MIG" not in caught.value.message


def test_everything_that_is_wrong_with_an_upload_is_told_at_once() -> None:
    texts = [
        device(ROOT).pem,
        authority("Dead", dies=datetime(2025, 6, 1, tzinfo=UTC)).pem,
        authority("No signer", key_usage=None).pem,
        ROOT.pem,
    ]
    with pytest.raises(InvalidRequest) as caught:
        read_authorities("".join(texts).encode(), count_max=5, now=NOW)
    message = caught.value.message
    assert "Certificate 1, 'CN=vin-1', isn't an authority's" in message
    assert "Certificate 2, 'CN=Dead', expired" in message
    assert "Certificate 3, 'CN=No signer', may not sign" in message
    assert "Certificate 4" not in message


@pytest.mark.parametrize(
    "text", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", b"\xff" * 600_000]
)
def test_an_upload_that_is_no_certificate_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_authorities(text, count_max=5, now=NOW)


# Anything at all ------------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=400), st.lists(st.binary(max_size=200), max_size=12))
@settings(max_examples=100, deadline=None)
def test_arbitrary_bytes_are_refused_by_name_and_raise_nothing_else(leaf: bytes, others: list[bytes]) -> None:
    with pytest.raises(PathRefused) as caught:
        PresentedChain.read(leaf, others)
    assert caught.value.code in (RefusalCode.CERTIFICATE_UNREADABLE, RefusalCode.CHAIN_TOO_DEEP)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_certificate_with_a_changed_byte_is_never_believed(data: st.DataObject) -> None:
    der = bytearray(_LEAF.der)
    der[data.draw(st.integers(0, len(der) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PathRefused):
        verify_path(PresentedChain.read(bytes(der), ()), [anchor(ROOT)], now=NOW)


_LEAF = device(ROOT)
