"""The wrapping key: bare or under a passphrase, and never guessed at."""

from __future__ import annotations

from pathlib import Path

import pytest

from overair.basics.ids import RandomIds
from overair.basics.redacted import Redacted
from overair.server.keyring.wrapping import KeyringRefused, open_secret_box, read_passphrase

IDS = RandomIds()
PASSPHRASE = Redacted(b"correct horse")


def test_a_bare_key_is_made_once_with_mode_0600(tmp_path: Path) -> None:
    path = tmp_path / "wrapping.key"
    sealed = open_secret_box(path, passphrase=None, ids=IDS).wrap(Redacted(b"secret"), context="a")
    assert path.stat().st_mode & 0o777 == 0o600
    box = open_secret_box(path, passphrase=None, ids=IDS)
    assert box.unwrap(sealed, context="a").reveal() == b"secret"
    assert not box.has_passphrase
    with pytest.raises(KeyringRefused):
        box.unwrap(sealed, context="b")
    with pytest.raises(KeyringRefused):
        box.unwrap(sealed[:-1] + bytes([sealed[-1] ^ 1]), context="a")
    with pytest.raises(KeyringRefused):
        box.unwrap(b"", context="a")
    with pytest.raises(KeyringRefused):
        box.unwrap(b"\x01short", context="a")


def test_a_passphrase_seals_the_key_and_only_it_opens(tmp_path: Path) -> None:
    path = tmp_path / "wrapping.key"
    sealed = open_secret_box(path, passphrase=PASSPHRASE, ids=IDS).wrap(Redacted(b"secret"), context="a")
    box = open_secret_box(path, passphrase=PASSPHRASE, ids=IDS)
    assert box.has_passphrase
    assert box.unwrap(sealed, context="a").reveal() == b"secret"
    with pytest.raises(KeyringRefused, match="doesn't open"):
        open_secret_box(path, passphrase=Redacted(b"wrong"), ids=IDS)
    with pytest.raises(KeyringRefused, match="--key-passphrase-file"):
        open_secret_box(path, passphrase=None, ids=IDS)


def test_a_passphrase_given_later_protects_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "wrapping.key"
    sealed = open_secret_box(path, passphrase=None, ids=IDS).wrap(Redacted(b"secret"), context="a")
    open_secret_box(path, passphrase=PASSPHRASE, ids=IDS)
    with pytest.raises(KeyringRefused):
        open_secret_box(path, passphrase=None, ids=IDS)
    assert open_secret_box(path, passphrase=PASSPHRASE, ids=IDS).unwrap(sealed, context="a").reveal() == b"secret"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format":1,"key":"AAAA"}',
        b'{"format":2,"key":"' + b"A" * 43 + b'="}',
        b'{"format":1,"key":"%%%"}',
        b'{"format":1,"salt":"AAAA","n":1099511627776,"key":"AAAA"}',
        b"x" * 5000,
    ],
)
def test_a_foreign_file_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wrapping.key"
    path.write_bytes(content)
    for passphrase in (None, PASSPHRASE):
        with pytest.raises(KeyringRefused, match="isn't a wrapping key"):
            open_secret_box(path, passphrase=passphrase, ids=IDS)


def test_the_passphrase_file_loses_its_line_end_alone(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(b" two words \r\n")
    assert read_passphrase(path).reveal() == b" two words "
    for content in (b"", b"\n", b"x" * 1025):
        path.write_bytes(content)
        with pytest.raises(KeyringRefused):
            read_passphrase(path)
    with pytest.raises(KeyringRefused, match="can't be read"):
        read_passphrase(tmp_path / "absent")
