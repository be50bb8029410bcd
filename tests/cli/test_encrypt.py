"""``overair encrypt``, ``overair-device decryption``, and whom ``ship --encrypt-to`` means; without a server."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from overair.cli import device_main, encrypt
from overair.cli.ends import CommandEnded
from overair.cli.image_encryption import encrypt_file, envelope_of
from overair.cli.operator import Operator
from overair.cli.recipients import DeclaredKeys, readers_of, require_readable
from overair.cli.shipment import shipment_of
from overair.wire.image_envelope import FORMAT, SEGMENT_SIZE_BYTES, Segments
from overair.wire.job_document import RECIPIENTS_MAX
from overair.wire.key_wrapping import key_id_of, load_public_key, public_key_der, unwrap
from tests.support.device import Signer, make_device

KEYS = [ec.derive_private_key(number, ec.SECP256R1()) for number in range(31, 37)]
PUBLIC = [key.public_key() for key in KEYS]
IMAGE = bytes(range(256)) * 600


class Told:
    """What the server tells, page by page."""

    def __init__(self, declared: Mapping[str, Sequence[int]], groups: Mapping[str, Sequence[str]] | None = None) -> None:
        self._things = [
            {
                "thingName": thing,
                "formats": [1],
                "keys": [
                    {"keyId": key_id_of(PUBLIC[n]).hex(), "publicKey": base64.b64encode(public_key_der(PUBLIC[n])).decode()}
                    for n in numbers
                ],
            }
            for thing, numbers in declared.items()
        ]
        self._groups = groups or {}

    def client(self, service: str) -> Any:
        return self

    def list_decryption_keys(self, maxResults: int, nextToken: str = "0") -> dict[str, Any]:
        at = int(nextToken)
        return {"things": self._things[at : at + 2], "nextToken": str(at + 2) if at + 2 < len(self._things) else None}

    def get_paginator(self, name: str) -> Any:
        return self

    def paginate(self, *, thingGroupName: str, recursive: bool) -> list[dict[str, Any]]:
        assert recursive
        return [{"things": list(self._groups[thingGroupName])}]


def readers(told: Told, *names: str) -> list[int]:
    found = readers_of(names, DeclaredKeys(cast(Operator, told)), cast(Operator, told))
    ids = [key_id_of(key) for key in PUBLIC]
    return sorted(ids.index(key_id_of(key)) for key in found)


def test_a_thing_is_encrypted_to_by_the_key_that_nobody_else_has(tmp_path: Path) -> None:
    told = Told({"a": [0, 5], "b": [1, 5], "c": [5], "d": []})
    assert readers(told, "a") == [0]
    assert readers(told, "a", "b") == [0, 1]
    for thing, words in {"c": "others' too", "d": "no decryption key any more", "x": "never declared"}.items():
        with pytest.raises(CommandEnded, match=words):
            readers(told, thing)
    key = tmp_path / "x"  # a file wins over a thing of its name only as a path that is there
    key.write_bytes(public_key_der(PUBLIC[3]))
    assert readers(told, str(key), "a") == [0, 3]
    key.write_bytes(b"no key")
    with pytest.raises(CommandEnded, match="no public key"):
        readers(told, str(key))


def test_a_group_is_encrypted_to_by_the_key_that_it_shares_and_nobody_else_has() -> None:
    groups = {"ab": ["a", "b"], "abc": ["a", "b", "c"], "ac": ["a", "c"], "cd": ["c", "d"], "none": []}
    told = Told({"a": [0, 4, 5], "b": [1, 4, 5], "c": [2, 5], "d": [5]}, groups)
    assert readers(told, "group:ab") == [4]
    # All of them share key 5, which d has too: each is named by its own.
    assert readers(told, "group:abc") == [0, 1, 2]
    assert readers(told, "group:ac") == [0, 2]
    with pytest.raises(CommandEnded, match="d: all keys that it has declared are others' too"):
        readers(told, "group:cd")
    with pytest.raises(CommandEnded, match="names no thing yet"):
        readers(told, "group:none")


def test_whoever_could_not_read_it_is_named_before_anything_leaves() -> None:
    told = DeclaredKeys(cast(Operator, Told({"a": [0], "b": [1]})))
    ids = [key_id_of(PUBLIC[0]).hex()]
    require_readable(["a"], ids, told, format=FORMAT)
    with pytest.raises(CommandEnded, match="2 of 3 thing") as caught:
        require_readable(["a", "b", "c"], ids, told, format=FORMAT)
    assert "b: the image is encrypted to none of its keys" in caught.value.message
    assert "c: it has never declared" in caught.value.message
    with pytest.raises(CommandEnded, match="format 2"):
        require_readable(["a"], ids, told, format=2)
    with pytest.raises(CommandEnded, match="and 5 more"):
        require_readable([f"x{n}" for n in range(15)], ids, told, format=FORMAT)


def test_a_server_that_tells_a_key_by_anothers_name_is_not_believed() -> None:
    told = Told({"a": [0]})
    told._things[0]["keys"][0]["keyId"] = "0" * 64  # type: ignore[index]
    with pytest.raises(CommandEnded, match="by another key's name"):
        readers(told, "a")


def test_a_key_is_made_once_and_an_image_encrypted_to_it_can_be_read(tmp_path: Path) -> None:
    runner = CliRunner()
    made = json.loads(runner.invoke(encrypt.app, ["key", str(tmp_path / "k"), "--json"]).stdout)
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600
    public = load_public_key((tmp_path / "k.pub.pem").read_bytes())
    assert made["key_id"] == key_id_of(public).hex()
    assert isinstance(runner.invoke(encrypt.app, ["key", str(tmp_path / "k")]).exception, CommandEnded)
    image = tmp_path / "app.zip"
    image.write_bytes(IMAGE)
    told = runner.invoke(encrypt.app, ["image", str(image), "--to", made["public_key"]])
    assert made["key_id"] in told.stdout
    envelope = envelope_of(tmp_path / "app.zip.enc")
    assert envelope is not None
    assert envelope_of(image) is None
    from overair.agent.decryption_keys import read_private_key

    segments = Segments(envelope, unwrap(envelope.recipients[0], read_private_key(tmp_path / "k")))
    whole = (tmp_path / "app.zip.enc").read_bytes()
    plain = b"".join(
        segments.open(n, whole[(at := envelope.sealed_offset_bytes(n)) : at + envelope.sealed_length_bytes(n)])
        for n in range(envelope.segments)
    )
    assert plain == IMAGE
    assert envelope.segments == -(-len(IMAGE) // SEGMENT_SIZE_BYTES)


def test_two_encryptions_of_one_image_share_nothing(tmp_path: Path) -> None:
    """Neither a content key nor a nonce ever comes twice."""
    image, outs = tmp_path / "app", [tmp_path / "1", tmp_path / "2"]
    image.write_bytes(IMAGE)
    one, two = (encrypt_file(image, out, PUBLIC[:2]) for out in outs)
    assert one.iv != two.iv
    assert not {each.wrapped for each in one.recipients} & {each.wrapped for each in two.recipients}
    assert len({(each.ephemeral_x, each.ephemeral_y) for each in (*one.recipients, *two.recipients)}) == 4
    first, second = (out.read_bytes()[len(one.head) :] for out in outs)
    assert not any(first[at : at + 16] in second for at in range(0, len(first), 997))
    assert unwrap(one.recipients[0], KEYS[0]) != unwrap(two.recipients[0], KEYS[0])


def test_what_can_not_be_encrypted_leaves_nothing_behind(tmp_path: Path) -> None:
    image, out = tmp_path / "app", tmp_path / "out"
    image.write_bytes(b"")
    with pytest.raises(CommandEnded, match="can't be encrypted"):
        encrypt_file(image, out, PUBLIC)
    image.write_bytes(IMAGE)
    with pytest.raises(CommandEnded, match="1 to 256 keys"):
        encrypt_file(image, out, [])
    many = [ec.derive_private_key(n, ec.SECP256R1()).public_key() for n in range(1, RECIPIENTS_MAX + 2)]
    with pytest.raises(CommandEnded, match="overair encrypt key"):
        encrypt_file(image, out, many)
    encrypt_file(image, tmp_path / "once", PUBLIC)
    with pytest.raises(CommandEnded, match="encrypted already"):
        encrypt_file(tmp_path / "once", out, PUBLIC)
    with pytest.raises(CommandEnded, match="No such file"):
        encrypt_file(tmp_path / "nowhere", out, PUBLIC)
    whole = (tmp_path / "once").read_bytes()
    for data, words in ((whole[:-1], "cut off"), (whole[:100], "can't be read as one")):
        image.write_bytes(data)
        with pytest.raises(CommandEnded, match=words):
            envelope_of(image)
    assert not out.exists()
    assert not list(tmp_path.glob("*.part"))


def test_an_encrypted_shipment_is_signed_and_for_no_ecus(tmp_path: Path) -> None:
    image, sent = tmp_path / "app", tmp_path / "sent"
    image.write_bytes(IMAGE)
    encrypt_file(image, sent, PUBLIC)
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (image, {"encrypt_to": ["a"]}, "signed before it is encrypted"),
        (sent, {}, "signed before it is encrypted"),
        (sent, {"encrypt_to": ["a"], "signature": image}, "encrypted already"),
        (image, {"encrypt_to": ["a"], "signature": image, "hardware_ids": ["x"]}, "Uptane devices take no encrypted images"),
    ]
    for path, more, words in cases:
        with pytest.raises(CommandEnded, match=words):
            shipment_of(path, None, more.pop("hardware_ids", []), **more)


def test_a_device_is_given_keys_by_its_own_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_device(tmp_path / "d", Signer())
    device = str(tmp_path / "d")

    def run(*words: str, code: int = 0) -> str:
        assert device_main.main(["decryption", *words]) == code
        shown = capsys.readouterr()
        return shown.err if code else shown.out

    own = json.loads(run("new", device, "--json"))
    assert key_id_of(load_public_key(own["public_key"].encode())).hex() == own["key_id"]
    runner = CliRunner()
    group = json.loads(runner.invoke(encrypt.app, ["key", str(tmp_path / "g"), "--json"]).stdout)
    assert group["key_id"] in run("add", device, group["private_key"], "--name", "fleet")
    assert "already" in run("add", device, group["private_key"], "--name", "again", code=2)
    assert "holds no private key" in run("add", device, group["public_key"], "--name", "public", code=2)
    listed = json.loads(run("list", device, "--json"))["keys"]
    assert {key["name"]: key["key_id"] for key in listed} == {"device": own["key_id"], "fleet": group["key_id"]}
    run("remove", device, "fleet")
    assert "fleet" not in run("list", device)
    assert "has no key" in run("remove", device, "fleet", code=2)
    assert "can't be read" in run("list", str(tmp_path), code=2)
