"""What devices declare of their keys, kept and asked for."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import NotFound
from overair.basics.ids import AccountId, ThingName
from overair.server.devices.decryption import Declared
from overair.wire.decryption_messages import Declaration
from overair.wire.image_envelope import FORMAT
from overair.wire.job_document import SHORT_KEY_ID_LENGTH, FileEncryption
from overair.wire.key_wrapping import key_id_of, public_key_der
from tests.support.registry import Registry

ACCOUNT = AccountId("123456789012")
PLACE = Place("us-east-1", ACCOUNT)
ONE, TWO = (ec.derive_private_key(number, ec.SECP256R1()).public_key() for number in (11, 12))


def to(*keys: ec.EllipticCurvePublicKey, format: int = FORMAT) -> FileEncryption:
    return FileEncryption(format=format, key_ids=tuple(key_id_of(key).hex()[:SHORT_KEY_ID_LENGTH] for key in keys))


def make(registry: Registry, *things: str) -> None:
    for thing in things:
        registry.work.run_blocking(lambda tx, name=thing: registry.devices.create(tx, PLACE, ThingName(name)))  # type: ignore[misc]


def declare(registry: Registry, thing: str, *keys: ec.EllipticCurvePublicKey, formats: tuple[int, ...] = (FORMAT,)) -> Declared:
    said = Declaration(keys=keys, formats=formats)
    return registry.work.run_blocking(lambda tx: registry.decryption.declare(tx, ACCOUNT, ThingName(thing), said))


def unable(registry: Registry, things: list[str], *encryptions: FileEncryption) -> dict[str, str]:
    named = [ThingName(thing) for thing in things]
    return dict(registry.work.read_blocking(lambda tx: registry.decryption.unable(tx, ACCOUNT, named, encryptions)))


def test_who_can_not_read_what_is_told_with_the_reason(registry: Registry) -> None:
    things = ["a", "b", "c", "d", "e"]
    make(registry, *things)
    declare(registry, "a", ONE)
    declare(registry, "b", ONE, TWO)
    declare(registry, "c")
    declare(registry, "d", ONE, formats=(7,))
    told = unable(registry, things, to(ONE), to(ONE, TWO))
    assert set(told) == {"c", "d", "e"}
    assert "no decryption key any more" in told["c"]
    assert "format 1" in told["d"]
    assert "never declared" in told["e"]
    # Each encrypted file of a job must be readable.
    assert set(unable(registry, ["a", "b"], to(ONE), to(TWO))) == {"a"}
    assert "none of the keys" in unable(registry, ["a"], to(TWO))["a"]
    assert unable(registry, [], to(ONE)) == {}


def test_what_is_said_replaces_what_was_said_and_ends_with_the_thing(registry: Registry, clock: SettableClock) -> None:
    make(registry, "a")
    declare(registry, "a", ONE)

    def new(*keys: ec.EllipticCurvePublicKey) -> bool:
        said = Declaration(keys=keys)
        return registry.work.read_blocking(lambda tx: registry.decryption.says_something_new(tx, ACCOUNT, ThingName("a"), said))

    assert (new(ONE), new(ONE, ONE), new(TWO), new()) == (False, False, True, True)
    clock.advance(milliseconds=1000)
    assert [key.der for key in declare(registry, "a", TWO).keys] == [public_key_der(TWO)]
    assert set(unable(registry, ["a"], to(ONE))) == {"a"}
    registry.work.run_blocking(lambda tx: registry.devices.delete(tx, ACCOUNT, ThingName("a")))
    make(registry, "a")
    assert "never declared" in unable(registry, ["a"], to(TWO))["a"]
    with pytest.raises(NotFound):
        declare(registry, "stranger", ONE)
