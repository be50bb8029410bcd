"""The key that wraps all others, and the box made of it.

``wrapping.key`` holds a random wrapping key: bare (mode 0600 alone protects it), or sealed by a key that scrypt makes of the
passphrase. Going from one to the other rewrites this one small file, never the wrapped keys.

While the wrapping key itself is changed (``rewrapping``), the file holds the former one beside the new one: what is sealed by
either opens, and whatever is sealed from then on is sealed by the new one.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from overair.basics.errors import OverairError
from overair.basics.ids import IdSource
from overair.basics.redacted import Redacted
from overair.server.state_directory import write_file

KEY_SIZE_BYTES: Final = 32
NONCE_SIZE_BYTES: Final = 12
TAG_SIZE_BYTES: Final = 16
SALT_SIZE_BYTES: Final = 16
FILE_SIZE_BYTES_MAX: Final = 4096
PASSPHRASE_SIZE_BYTES_MAX: Final = 1024
# 32 MiB and some 80 ms at each start: what a thief of the disk pays for every guess.
SCRYPT_N: Final = 2**15
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1
# What is believed of a file before its tag proves it.
SCRYPT_N_MAX: Final = 2**20

_FORMAT: Final = 1
_CHANGING_FORMAT: Final = 2
_SEALED_FORMAT: Final = b"\x01"
_WRAPPING_CONTEXT: Final = "wrapping-key"


class KeyringRefused(OverairError):
    """The wrapping key can't be had. The message is the one line that an operator sees."""


class SecretBox:
    """Seals short secrets (AES-256-GCM, a fresh random nonce each). The context isn't secret: it binds a sealed secret to its
    place, so that rows can't be swapped."""

    def __init__(
        self,
        key: Redacted[bytes],
        ids: IdSource,
        *,
        has_passphrase: bool = False,
        previous: Redacted[bytes] | None = None,
    ) -> None:
        """``previous``: a wrapping key whose place this one takes; what it sealed still opens."""
        self._cipher = AESGCM(key.reveal())
        self._previous = None if previous is None else AESGCM(previous.reveal())
        self._ids = ids
        self.has_passphrase = has_passphrase
        """Whether more than file permissions protects what is sealed."""

    def wrap(self, secret: Redacted[bytes], *, context: str) -> bytes:
        """Seal ``secret``; the result is 29 bytes longer."""
        nonce = self._ids.secret_bytes(NONCE_SIZE_BYTES)
        return _SEALED_FORMAT + nonce + self._cipher.encrypt(nonce, secret.reveal(), context.encode())

    def unwrap(self, sealed: bytes, *, context: str) -> Redacted[bytes]:
        """Open what ``wrap`` sealed for the same context.

        Raises:
            KeyringRefused: another wrapping key or context sealed it, or it was changed.
        """
        if sealed[:1] != _SEALED_FORMAT:
            raise KeyringRefused("A sealed secret has a format that this version of Overair doesn't know.")
        found = _opened(self._cipher, sealed, context)
        if found is None and self._previous is not None:
            found = _opened(self._previous, sealed, context)
        if found is None:
            raise KeyringRefused(
                "A sealed secret can't be opened: wrapping.key isn't the one that sealed it, or the records were changed."
            )
        return Redacted(found)

    @property
    def is_changing(self) -> bool:
        """Whether another wrapping key still opens what this one hasn't sealed anew."""
        return self._previous is not None

    def wraps(self, sealed: bytes, *, context: str) -> bool:
        """Whether this wrapping key, and not the one before it, sealed ``sealed``."""
        return _opened(self._cipher, sealed, context) is not None


def open_secret_box(path: Path, *, passphrase: Redacted[bytes] | None, ids: IdSource) -> SecretBox:
    """Read the wrapping key, or make it on the first start.

    Args:
        path: ``wrapping.key`` in the state directory.
        passphrase: As ``read_passphrase`` gives it, or None where only file permissions protect the key.
        ids: Where a new key comes from; must be fit for secrets.

    Raises:
        KeyringRefused: the file can't be read or isn't ours; a passphrase is needed, wrong, or given for a bare key.
    """
    if not path.exists():
        key = Redacted(ids.secret_bytes(KEY_SIZE_BYTES))
        _write(path, key, passphrase, ids)
        return SecretBox(key, ids, has_passphrase=passphrase is not None)
    content = _read(path)
    is_sealed = "salt" in content
    if is_sealed and passphrase is None:
        raise KeyringRefused(f"{path} is sealed by a passphrase. Name the passphrase's file with --key-passphrase-file.")
    if not is_sealed and passphrase is not None:
        # From now on it is protected: the key stays, so nothing else must be sealed anew.
        keys = _keys_in(path, content, None, ids)
        _write(path, keys[0], passphrase, ids, previous=keys[1] if len(keys) > 1 else None)
        return SecretBox(keys[0], ids, has_passphrase=True, previous=keys[1] if len(keys) > 1 else None)
    keys = _keys_in(path, content, passphrase, ids)
    return SecretBox(keys[0], ids, has_passphrase=passphrase is not None, previous=keys[1] if len(keys) > 1 else None)


def begin_change(
    path: Path, *, passphrase: Redacted[bytes] | None, new_passphrase: Redacted[bytes] | None, ids: IdSource
) -> SecretBox:
    """Make a new wrapping key and keep the present one beside it, unless that is under way already: then it goes on.

    Args:
        new_passphrase: What seals the file from now on; None leaves it as it is.

    Raises:
        KeyringRefused: see ``open_secret_box``; or the change that is under way would get another passphrase on its way.
    """
    content = _read(path)
    if ("salt" in content) != (passphrase is not None):
        open_secret_box(path, passphrase=passphrase, ids=ids)  # says what is wrong, or seals a bare key
        content = _read(path)
    keys = _keys_in(path, content, passphrase, ids)
    if len(keys) > 1:
        if new_passphrase is not None:
            raise KeyringRefused(
                "A change of the wrapping key is under way. Let it end, by its own passphrase, before another."
            )
    else:
        keys = [Redacted(ids.secret_bytes(KEY_SIZE_BYTES)), keys[0]]
        _write(path, keys[0], new_passphrase or passphrase, ids, previous=keys[1])
    has_passphrase = (new_passphrase or passphrase) is not None
    return SecretBox(keys[0], ids, has_passphrase=has_passphrase, previous=keys[1])


def end_change(path: Path, *, passphrase: Redacted[bytes] | None, ids: IdSource) -> None:
    """Forget the former wrapping key: nothing is sealed by it any more.

    Raises:
        KeyringRefused: see ``open_secret_box``.
    """
    keys = _keys_in(path, _read(path), passphrase, ids)
    _write(path, keys[0], passphrase, ids)


def read_passphrase(path: Path) -> Redacted[bytes]:
    """The passphrase in a file, without the line end that editors add.

    Raises:
        KeyringRefused: the file can't be read, or is empty or too long.
    """
    try:
        with path.open("rb") as file:
            content = file.read(PASSPHRASE_SIZE_BYTES_MAX + 1)
    except OSError as error:
        raise KeyringRefused(f"The passphrase file {path} can't be read: {error.strerror}.") from error
    passphrase = content.rstrip(b"\r\n")
    if not passphrase or len(content) > PASSPHRASE_SIZE_BYTES_MAX:
        raise KeyringRefused(f"The passphrase in {path} must have 1 to {PASSPHRASE_SIZE_BYTES_MAX} bytes.")
    return Redacted(passphrase)


def _outer_box(passphrase: Redacted[bytes], salt: bytes, n: int, ids: IdSource) -> SecretBox:
    derived = Scrypt(salt=salt, length=KEY_SIZE_BYTES, n=n, r=SCRYPT_R, p=SCRYPT_P).derive(passphrase.reveal())
    return SecretBox(Redacted(derived), ids)


def _opened(cipher: AESGCM, sealed: bytes, context: str) -> bytes | None:
    nonce = sealed[1 : 1 + NONCE_SIZE_BYTES]
    try:
        return cipher.decrypt(nonce, sealed[1 + NONCE_SIZE_BYTES :], context.encode())
    except (InvalidTag, ValueError):
        return None


def _keys_in(path: Path, content: dict[str, Any], passphrase: Redacted[bytes] | None, ids: IdSource) -> list[Redacted[bytes]]:
    """The wrapping key in the file, and the former one where a change is under way."""
    found = [base64.b64decode(content[name]) for name in ("key", "previous") if name in content]
    if passphrase is None:
        return [Redacted(key) for key in found]
    outer = _outer_box(passphrase, base64.b64decode(content["salt"]), content["n"], ids)
    try:
        return [outer.unwrap(sealed, context=_WRAPPING_CONTEXT) for sealed in found]
    except KeyringRefused as error:
        raise KeyringRefused(f"The passphrase doesn't open {path}. Give the one that sealed it.") from error


def _write(
    path: Path,
    key: Redacted[bytes],
    passphrase: Redacted[bytes] | None,
    ids: IdSource,
    *,
    previous: Redacted[bytes] | None = None,
) -> None:
    # A version that knows no former key must not take such a file for less than it says.
    content: dict[str, Any] = {"format": _FORMAT if previous is None else _CHANGING_FORMAT}
    names = {"key": key} if previous is None else {"key": key, "previous": previous}
    if passphrase is None:
        content |= {name: base64.b64encode(each.reveal()).decode() for name, each in names.items()}
    else:
        salt = ids.secret_bytes(SALT_SIZE_BYTES)
        outer = _outer_box(passphrase, salt, SCRYPT_N, ids)
        content |= {"salt": base64.b64encode(salt).decode(), "n": SCRYPT_N}
        content |= {
            name: base64.b64encode(outer.wrap(each, context=_WRAPPING_CONTEXT)).decode() for name, each in names.items()
        }
    try:
        write_file(path, json.dumps(content).encode() + b"\n", mode=0o600)
    except OSError as error:
        raise KeyringRefused(f"The wrapping key {path} can't be written: {error.strerror}.") from error


def _read(path: Path) -> dict[str, Any]:
    foreign = KeyringRefused(f"{path} isn't a wrapping key that Overair wrote. Restore it from your backup.")
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_SIZE_BYTES_MAX + 1)
    except OSError as error:
        raise KeyringRefused(f"The wrapping key {path} can't be read: {error.strerror}.") from error
    try:
        content = json.loads(raw) if len(raw) <= FILE_SIZE_BYTES_MAX else None
        if not isinstance(content, dict):
            raise foreign
        keys = [base64.b64decode(content[name], validate=True) for name in ("key", "previous") if name in content]
        size_bytes = KEY_SIZE_BYTES + (1 + NONCE_SIZE_BYTES + TAG_SIZE_BYTES if "salt" in content else 0)
        if "key" not in content or any(len(key) != size_bytes for key in keys):
            raise foreign
        if "salt" not in content:
            is_ours = True
        else:
            n = content["n"]
            salt = base64.b64decode(content["salt"], validate=True)
            is_ours = len(salt) == SALT_SIZE_BYTES and isinstance(n, int) and 2 <= n <= SCRYPT_N_MAX and n & (n - 1) == 0
    except (ValueError, KeyError, TypeError) as error:
        raise foreign from error
    expected = _CHANGING_FORMAT if "previous" in content else _FORMAT
    if content.get("format") != expected or not is_ours:
        raise foreign
    return content
