"""A secret at rest under a passphrase: scrypt, then AES-256-GCM that also vouches for everything said in the open beside it.

One JSON document; what isn't sealed (``about``, the cost of a guess, salt, nonce) is authenticated, so that nothing of it can
be changed unnoticed. The salt is fresh for each file and with it the key; so is the nonce.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from overair.basics.ids import IdSource
from overair.basics.redacted import Redacted
from overair.cli.sign.ends import usage
from overair.wire.strict_json import MalformedJson, decode_object
from overair.wire.uptane.canonical import canonical

FORMAT: Final = "overair-sealed/1"
KEY_SIZE_BYTES: Final = 32
SALT_SIZE_BYTES: Final = 16
NONCE_SIZE_BYTES: Final = 12
SCRYPT_N: Final = 2**17
"""With r = 8: 128 MiB and some 0.4 s for every guess."""
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1
SCRYPT_N_MAX: Final = 2**20
"""What is believed of a file before its tag proves it: 1 GiB."""
BOX_SIZE_BYTES_MAX: Final = 128 * 1024 * 1024
PASSPHRASE_CHARACTERS_MIN: Final = 12


def check_new_passphrase(passphrase: Redacted[str]) -> None:
    """A passphrase that shall protect something from now on.

    Raises:
        SignEnded: USAGE: it is too short.
    """
    if len(passphrase.reveal()) < PASSPHRASE_CHARACTERS_MIN:
        raise usage(f"A passphrase has at least {PASSPHRASE_CHARACTERS_MIN} characters. Take a few words.")


def seal(
    secret: Redacted[bytes],
    passphrase: Redacted[str],
    *,
    purpose: str,
    about: Mapping[str, object],
    ids: IdSource,
) -> bytes:
    """The document that only this passphrase opens. ``purpose`` and ``about`` stand in it in the open."""
    salt, nonce = ids.secret_bytes(SALT_SIZE_BYTES), ids.secret_bytes(NONCE_SIZE_BYTES)
    head: dict[str, object] = {
        "format": FORMAT,
        "purpose": purpose,
        "about": dict(about),
        "kdf": {"name": "scrypt", "n": SCRYPT_N, "r": SCRYPT_R, "p": SCRYPT_P, "salt": _text(salt)},
        "cipher": {"name": "aes-256-gcm", "nonce": _text(nonce)},
    }
    sealed = AESGCM(_derived(passphrase, salt, SCRYPT_N)).encrypt(nonce, secret.reveal(), canonical(head))
    return json.dumps({**head, "sealed": _text(sealed)}, indent=1).encode("ascii") + b"\n"


def read_about(box: bytes, *, purpose: str, name: str) -> Mapping[str, Any]:
    """What stands in the open; unproved until the box was opened.

    Raises:
        SignEnded: USAGE: not such a box.
    """
    about = _head(box, purpose, name)["about"]
    assert isinstance(about, dict)
    return about


def open_box(box: bytes, passphrase: Redacted[str], *, purpose: str, name: str) -> Redacted[bytes]:
    """The secret.

    Args:
        name: What the box is called in a refusal, such as its path.

    Raises:
        SignEnded: USAGE: not such a box, changed since it was written, or another passphrase's.
    """
    document = _head(box, purpose, name)
    sealed = _bytes(document.pop("sealed"))
    kdf, cipher = document["kdf"], document["cipher"]
    key = _derived(passphrase, _bytes(kdf["salt"]), kdf["n"])
    try:
        return Redacted(AESGCM(key).decrypt(_bytes(cipher["nonce"]), sealed, canonical(document)))
    except InvalidTag:
        raise usage(
            f"{name} doesn't open: the passphrase is another one, or the file was changed after it was written."
        ) from None


def _head(box: bytes, purpose: str, name: str) -> dict[str, Any]:
    foreign = usage(f"{name} is no sealed {purpose} that this tool wrote.")
    try:
        document: dict[str, Any] = decode_object(box, size_bytes_max=BOX_SIZE_BYTES_MAX, depth_max=8)
        kdf, cipher = document["kdf"], document["cipher"]
        n = kdf["n"]
        is_ours = (
            set(document) == {"format", "purpose", "about", "kdf", "cipher", "sealed"}
            and document["format"] == FORMAT
            and document["purpose"] == purpose
            and isinstance(document["about"], dict)
            and (kdf["name"], kdf["r"], kdf["p"], cipher["name"]) == ("scrypt", SCRYPT_R, SCRYPT_P, "aes-256-gcm")
            and isinstance(n, int)
            and 2 <= n <= SCRYPT_N_MAX
            and n & (n - 1) == 0
            and len(_bytes(kdf["salt"])) == SALT_SIZE_BYTES
            and len(_bytes(cipher["nonce"])) == NONCE_SIZE_BYTES
            and len(_bytes(document["sealed"])) >= 16
        )
    except (MalformedJson, KeyError, TypeError, ValueError):
        raise foreign from None
    if not is_ours:
        raise foreign
    return document


def _derived(passphrase: Redacted[str], salt: bytes, n: int) -> bytes:
    return Scrypt(salt=salt, length=KEY_SIZE_BYTES, n=n, r=SCRYPT_R, p=SCRYPT_P).derive(passphrase.reveal().encode("utf-8"))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("not Base64")  # noqa: TRY004 (whatever isn't text isn't ours)
    return base64.b64decode(text, validate=True)
