"""Signatures of our own making, in the manner of Wycheproof, where the collection at hand has none: ECDSA on P-384 and P-521
(and on P-256 once more), RSASSA-PSS, RSA PKCS #1 v1.5 beyond its file, and Ed25519. Each is held against whatever verifies
that kind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from overair.basics.clock import Instant
from overair.server.provisioning.certificate_paths import Anchor, PathRefused, PresentedChain, authority_id, verify_path
from overair.wire.image_signature import SignatureAlgorithm, digest_is_signed
from overair.wire.uptane.keys import public_key_of, read_public_key
from overair.wire.uptane.refusals import MetadataRefused
from tests.support import pki

Verifies = Callable[[bytes], bool]
"""Whether this is a signature over what was signed, by whom it should be."""

MESSAGE = b"what was signed"
DIGEST = hashlib.sha256(MESSAGE).digest()


def as_metadata(key: Any) -> Verifies:
    return lambda signature: public_key_of(key).verifies(signature, MESSAGE)


def as_image(key: Any, algorithm: SignatureAlgorithm) -> Verifies:
    return lambda signature: digest_is_signed(key, digest=DIGEST, signature=signature, algorithm=algorithm)


def as_certificate(leaf: pki.Held) -> Verifies:
    """The signature stands in a certificate of the issuer's."""
    root = leaf.issuer
    assert root is not None
    anchors = [Anchor(authority_id(root.certificate), root.certificate)]

    def verifies(signature: bytes) -> bool:
        try:
            chain = PresentedChain.read(pki.with_signature(leaf, signature).der, ())
            verify_path(chain, anchors, now=Instant(1_767_225_600_000))
        except (PathRefused, ValueError):
            return False
        return True

    return verifies


def holds(verifies: Verifies, good: Mapping[str, bytes], bad: Mapping[str, bytes]) -> None:
    for name, signature in good.items():
        assert verifies(signature), f"refused: {name}"
    for name, signature in bad.items():
        assert signature not in good.values(), name
        assert not verifies(signature), f"taken: {name}"


# ECDSA ----------------------------------------------------------------------------------------------------------------------

ORDERS = {
    "P-256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "P-384": 2**384 - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D,
    "P-521": 2**521 - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
}
CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
HASHES = {"P-256": hashes.SHA256(), "P-384": hashes.SHA384(), "P-521": hashes.SHA512()}


def integer(value: int, *, pad: bytes = b"") -> bytes:
    """DER of one; negative ones too. ``pad``: octets before it that DER has no use for."""
    octets = pad + value.to_bytes((value.bit_length() if value >= 0 else (value + 1).bit_length()) // 8 + 1, "big", signed=True)
    return b"\x02" + length(len(octets)) + octets


def length(size: int, *, octets: int = 0) -> bytes:
    """The shortest spelling, or one with so many octets."""
    if not octets and size < 128:
        return bytes([size])
    octets = octets or (size.bit_length() + 7) // 8
    return bytes([0x80 | octets]) + size.to_bytes(octets, "big")


def sequence(content: bytes, *, tag: int = 0x30, octets: int = 0) -> bytes:
    return bytes([tag]) + length(len(content), octets=octets) + content


def spelt(r: int, s: int) -> bytes:
    return sequence(integer(r) + integer(s))


def ecdsa_cases(signature: bytes, n: int) -> tuple[dict[str, bytes], dict[str, bytes]]:
    r, s = utils.decode_dss_signature(signature)
    whole, size = integer(r) + integer(s), (n.bit_length() + 7) // 8
    # ECDSA has two signatures for each: whoever has one has the other. Nothing here takes a signature for a name.
    good = {"as it was made": signature, "the other of the two": spelt(r, n - s)}
    bad = {
        "r = 0": spelt(0, s),
        "s = 0": spelt(r, 0),
        "both 0": spelt(0, 0),
        "both 1": spelt(1, 1),
        "r = n": spelt(n, s),
        "s = n": spelt(r, n),
        "both n": spelt(n, n),
        "r = n - 1": spelt(n - 1, s),
        "r + n": spelt(r + n, s),
        "s + n": spelt(r, s + n),
        "both + n": spelt(r + n, s + n),
        "r - n": spelt(r - n, s),
        "s - n": spelt(r, s - n),
        "-r": spelt(-r, s),
        "-s": spelt(r, -s),
        "r + 2^n": spelt(r + (1 << (8 * size)), s),
        "swapped": spelt(s, r),
        "r alone": sequence(integer(r)),
        "three numbers": sequence(whole + integer(0)),
        "raw, without DER": r.to_bytes(size, "big") + s.to_bytes(size, "big"),
        "a length in long form": sequence(whole, octets=2 if len(whole) < 256 else 3),
        "a length of four octets": sequence(whole, octets=4),
        "a zero before r": sequence(integer(r, pad=b"\0") + integer(s)),
        "a zero before s": sequence(integer(r) + integer(s, pad=b"\0\0")),
        "without end": b"\x30\x80" + whole + b"\0\0",
        "bytes after it": signature + b"\0",
        "bytes within it": sequence(whole + b"\x05\0"),
        "a set": sequence(whole, tag=0x31),
        "r as octets": sequence(b"\x04" + integer(r)[1:] + integer(s)),
        "cut": signature[:-1],
        "without its head": signature[2:],
        "of no bytes": b"",
        "empty": sequence(b""),
        "twice": signature + signature,
        "one bit": signature[:-1] + bytes([signature[-1] ^ 1]),
    }
    return good, bad


@pytest.mark.parametrize("curve", CURVES)
def test_ecdsa_in_a_certificate(curve: str) -> None:
    key, digest = ec.generate_private_key(CURVES[curve]), HASHES[curve]
    leaf = pki.device(pki.authority(key=key, digest=digest), digest=digest)
    good, bad = ecdsa_cases(leaf.certificate.signature, ORDERS[curve])
    signed = leaf.certificate.tbs_certificate_bytes
    bad |= {
        "over another hash": key.sign(signed, ec.ECDSA(hashes.SHA256() if curve != "P-256" else hashes.SHA512())),
        "over another text": key.sign(signed + b"\0", ec.ECDSA(digest)),
        "over no text": key.sign(b"", ec.ECDSA(digest)),
        "by another key": ec.generate_private_key(CURVES[curve]).sign(signed, ec.ECDSA(digest)),
    }
    holds(as_certificate(leaf), good, bad)


@pytest.mark.parametrize("kind", ["metadata", "image"])
def test_ecdsa_of_metadata_and_images(kind: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    good, bad = ecdsa_cases(key.sign(MESSAGE, ec.ECDSA(hashes.SHA256())), ORDERS["P-256"])
    bad |= {
        "over another hash": key.sign(MESSAGE, ec.ECDSA(hashes.SHA384())),
        "over the hash of the hash": key.sign(DIGEST, ec.ECDSA(hashes.SHA256())),
        "over another text": key.sign(MESSAGE + b"\0", ec.ECDSA(hashes.SHA256())),
    }
    public = key.public_key()
    holds(as_metadata(public) if kind == "metadata" else as_image(public, SignatureAlgorithm.ECDSA_SHA256), good, bad)


def test_a_digest_of_another_length_is_signed_by_nobody() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    for digest in (b"", DIGEST[:20], DIGEST[:-1], DIGEST + b"\0", hashlib.sha512(MESSAGE).digest()):
        signature = key.sign(digest.ljust(32, b"\0")[:32], ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        algorithm = SignatureAlgorithm.ECDSA_SHA256
        assert not digest_is_signed(key.public_key(), digest=digest, signature=signature, algorithm=algorithm)


@pytest.mark.parametrize("curve", ["P-384", "P-521"])
def test_other_curves_sign_neither_metadata_nor_images(curve: str) -> None:
    key = ec.generate_private_key(CURVES[curve])
    with pytest.raises(MetadataRefused):
        public_key_of(key.public_key())


# RSA ------------------------------------------------------------------------------------------------------------------------

SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
KEY = pki.rsa_key(2048)
NUMBERS = KEY.private_numbers()
N, SIZE = NUMBERS.public_numbers.n, 256


def raw(encoded: bytes) -> bytes:
    """The private operation on what a signer should never have encoded so."""
    return pow(int.from_bytes(encoded, "big"), NUMBERS.d, N).to_bytes(SIZE, "big")


def pkcs1(
    info: bytes, *, kind: int = 1, first: int = 0, padding_size: int | None = None, after: bytes = b"", fill: int = 0xFF
) -> bytes:
    count = SIZE - 3 - len(info) - len(after) if padding_size is None else padding_size
    encoded = bytes([first, kind]) + bytes([fill]) * count + b"\0" + info + after
    return raw(encoded.ljust(SIZE, b"\0"))


def of_numbers(good: bytes) -> dict[str, bytes]:
    """What may be tried with any RSA signature."""
    s = int.from_bytes(good, "big")
    return {
        "0": bytes(SIZE),
        "1": (1).to_bytes(SIZE, "big"),
        "n": N.to_bytes(SIZE, "big"),
        "n - 1": (N - 1).to_bytes(SIZE, "big"),
        "n - s": (N - s).to_bytes(SIZE, "big"),
        "s + n": (s + N).to_bytes(SIZE + 1, "big"),
        "a zero before it": b"\0" + good,
        "a zero after it": good + b"\0",
        "a byte less": good[:-1],
        "without its first byte": good[1:],
        "of no bytes": b"",
        "one bit": good[:-1] + bytes([good[-1] ^ 1]),
        "twice": good + good,
    }


def pkcs1_cases(digest: bytes) -> tuple[dict[str, bytes], dict[str, bytes]]:
    info = SHA256_INFO + digest
    good = pkcs1(info)
    bad = {
        "block type 2": pkcs1(info, kind=2),
        "block type 0": pkcs1(info, kind=0, fill=0),
        "other padding": pkcs1(info, fill=0xFE),
        "first byte 1": pkcs1(info, first=1) if int.from_bytes(b"\1\1", "big") < N >> (8 * (SIZE - 2)) else bytes(SIZE),
        "no padding, the rest after it": pkcs1(info, padding_size=0),
        "eight bytes of padding, the rest after it": pkcs1(info, padding_size=8),
        "padding that is one byte short": pkcs1(info, padding_size=SIZE - 4 - len(info)),
        "something after it": pkcs1(info, after=b"\0" * 8),
        "without its NULL": pkcs1(bytes.fromhex("302f300b0609608648016503040201") + b"\x04\x20" + digest),
        "without its algorithm": pkcs1(digest),
        "with a length in long form": pkcs1(b"\x30\x81\x31" + info[2:]),
        "with SHA-512's name": pkcs1(bytes.fromhex("3031300d060960864801650304020305000420") + digest),
        "with SHA-1's name": pkcs1(bytes.fromhex("3021300906052b0e03021a05000414") + digest[:20]),
        "with MD5's name": pkcs1(bytes.fromhex("3020300c06082a864886f70d020505000410") + digest[:16]),
        "with a digest of no bytes": pkcs1(bytes.fromhex("3011300d060960864801650304020105000400")),
        "with other parameters than NULL": pkcs1(
            bytes.fromhex("3031300d0609608648016503040201040004 20".replace(" ", "")) + digest
        ),
        "nothing but padding": raw(b"\0\1" + b"\xff" * (SIZE - 2)),
        "with the salt of PSS": KEY.sign(MESSAGE, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()),
    }
    return {"as it is made": good}, bad | of_numbers(good)


def test_rsa_of_images() -> None:
    good, bad = pkcs1_cases(DIGEST)
    assert good["as it is made"] == KEY.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256())
    holds(as_image(KEY.public_key(), SignatureAlgorithm.RSA_SHA256), good, bad)


def test_rsa_in_a_certificate() -> None:
    leaf = pki.device(pki.authority(key=KEY))
    good, bad = pkcs1_cases(hashlib.sha256(leaf.certificate.tbs_certificate_bytes).digest())
    assert good["as it is made"] == leaf.certificate.signature
    holds(as_certificate(leaf), good, bad)


def test_a_cube_root_is_no_signature_where_the_exponent_is_3() -> None:
    """Bleichenbacher's of 2006: what stands behind the digest makes the number a cube."""
    key = rsa.generate_private_key(3, 2048)
    head = b"\0\1" + b"\xff" * 8 + b"\0" + SHA256_INFO + DIGEST
    wanted = int.from_bytes(head.ljust(SIZE, b"\xff"), "big")
    root = _cube_root(wanted)
    assert (root**3).to_bytes(SIZE, "big").startswith(head)
    public = key.public_key()
    verifies = as_image(public, SignatureAlgorithm.RSA_SHA256)
    assert verifies(key.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256()))
    assert not verifies(root.to_bytes(SIZE, "big"))


def _cube_root(number: int) -> int:
    low, high = 0, 1 << (number.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= number else (low, middle - 1)
    return low


def pss(
    message: bytes,
    *,
    salt: bytes,
    trailer: int = 0xBC,
    before: bytes = b"",
    mark: int = 1,
    top: int = 0,
    hashed: Any = hashlib.sha256,
) -> bytes:
    """EMSA-PSS by hand (RFC 8017 §9.1.1)."""
    h = hashed(bytes(8) + hashed(message).digest() + salt).digest()
    db = before.ljust(SIZE - len(h) - len(salt) - 2, b"\0") + bytes([mark]) + salt
    counter, mask = 0, b""
    while len(mask) < len(db):
        mask += hashlib.sha256(h + counter.to_bytes(4, "big")).digest()
        counter += 1
    masked = bytearray(a ^ b for a, b in zip(db, mask, strict=False))
    masked[0] = masked[0] & 0x7F | top
    encoded = int.from_bytes(bytes(masked) + h + bytes([trailer]), "big")
    return raw(encoded.to_bytes(SIZE, "big")) if encoded < N else bytes(SIZE)


def test_pss_of_metadata() -> None:
    salt = bytes(range(32))
    good = {f"a salt of {size} bytes": pss(MESSAGE, salt=bytes(range(size))) for size in (0, 1, 20, 32, 64, 222)}
    library = KEY.sign(MESSAGE, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    good["as the library makes it"] = library
    assert as_metadata(KEY.public_key())(pss(MESSAGE, salt=salt))
    bad = {
        "another last byte": pss(MESSAGE, salt=salt, trailer=0xCC),
        "something before the mark": pss(MESSAGE, salt=salt, before=b"\0\1"),
        "another mark": pss(MESSAGE, salt=salt, mark=2),
        "no mark": pss(MESSAGE, salt=salt, mark=0),
        "the top bit set": pss(MESSAGE, salt=salt, top=0x80),
        "another text": pss(MESSAGE + b"\0", salt=salt),
        "SHA-1 within": pss(MESSAGE, salt=salt, hashed=hashlib.sha1),
        "SHA-512": KEY.sign(MESSAGE, padding.PSS(padding.MGF1(hashes.SHA512()), 32), hashes.SHA512()),
        "a mask of SHA-1": KEY.sign(MESSAGE, padding.PSS(padding.MGF1(hashes.SHA1()), 32), hashes.SHA256()),
        "PKCS #1 v1.5": KEY.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256()),
    }
    holds(as_metadata(KEY.public_key()), good, bad | of_numbers(library))


# Ed25519 --------------------------------------------------------------------------------------------------------------------

L = 2**252 + 27742317777372353535851937790883648493
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]
"""The eight points whose order divides eight, and the other spellings of them that a reader may take."""


def test_ed25519_of_metadata() -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    good = key.sign(MESSAGE)
    r, s = good[:32], int.from_bytes(good[32:], "little")

    def with_s(number: int) -> bytes:
        return r + number.to_bytes(32, "little")

    bad = {
        "s + L": with_s(s + L),
        "s + 2 L": with_s(s + 2 * L),
        "s + 8 L": with_s(s + 8 * L),
        "s = 0": with_s(0),
        "s = L": with_s(L),
        "L - s": with_s(L - s),
        "the top bit of s": with_s(s | 1 << 255),
        "swapped": good[32:] + r,
        "r's sign": r[:31] + bytes([r[31] ^ 0x80]) + good[32:],
        "r = 0": bytes(32) + good[32:],
        "all zero": bytes(64),
        "a byte more": good + b"\0",
        "a byte less": good[:-1],
        "of no bytes": b"",
        "another text": key.sign(MESSAGE + b"\0"),
        "over the hash": key.sign(hashlib.sha512(MESSAGE).digest()),
        **{f"r of small order, {at}": bytes.fromhex(point) + good[32:] for at, point in enumerate(SMALL_ORDER)},
    }
    holds(as_metadata(key.public_key()), {"as it is made": good}, bad)


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_a_key_of_small_order_which_would_have_signed_everything_is_no_key(point: str) -> None:
    with pytest.raises(MetadataRefused, match="small order"):
        read_public_key({"keytype": "ED25519", "keyval": {"public": point}})


def test_what_the_library_says_of_such_a_key() -> None:
    """Why it is refused: the first of them has signed whatever one likes, with a signature that anybody can write."""
    key = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(SMALL_ORDER[0]))
    for message in (b"", b"one", b"another"):
        key.verify(b"\1" + bytes(63), message)
