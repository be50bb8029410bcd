"""To whom an image is encrypted, and who of its audience could read it: asked of the server, and of files that it never saw."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from overair.cli.audience import Audience
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.image_encryption import SUFFIX, encrypt_file, public_key_in
from overair.cli.operator import Operator
from overair.cli.shipment import Shipment
from overair.wire.image_envelope import FORMAT
from overair.wire.key_wrapping import UnsuitableKey, key_id_of, load_public_key

PAGE_SIZE: Final = 250
NAMED_MAX: Final = 10
GROUP_PREFIX: Final = "group:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What one thing has declared."""

    thing: str
    formats: tuple[int, ...]
    keys: Mapping[str, ec.EllipticCurvePublicKey]
    """By name."""
    declared_at: object


class DeclaredKeys:
    """What all devices have declared, asked for once. The server is believed here: who doesn't, names files."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator

    @cached_property
    def by_thing(self) -> Mapping[str, Declared]:
        """Raises CommandEnded: REFUSED: the server tells a key that is none, or by another's name."""
        client = self._operator.client("overair")
        found: dict[str, Declared] = {}
        token = None
        while True:
            more: dict[str, str] = {} if token is None else {"nextToken": token}
            page = client.list_decryption_keys(maxResults=PAGE_SIZE, **more)
            for each in page["things"]:
                found[each["thingName"]] = _declared(each)
            token = page.get("nextToken")
            if not token:
                return found

    @cached_property
    def holders(self) -> Mapping[str, frozenset[str]]:
        """Which things have declared a key."""
        holders: dict[str, set[str]] = {}
        for thing, declared in self.by_thing.items():
            for name in declared.keys:
                holders.setdefault(name, set()).add(thing)
        return {name: frozenset(things) for name, things in holders.items()}

    def own_keys(self, thing: str) -> Sequence[ec.EllipticCurvePublicKey]:
        """Keys that a thing has declared and no other has."""
        declared = self.by_thing.get(thing)
        return [] if declared is None else [key for name, key in declared.keys.items() if self.holders[name] == {thing}]

    def keys_for(self, things: Sequence[str], *, called: str) -> Sequence[ec.EllipticCurvePublicKey]:
        """The fewest keys that all of these things can read by, and nobody else: one that they share, or each one's own.

        Raises:
            CommandEnded: REFUSED, naming those for whom there is none.
        """
        if not things:
            raise CommandEnded(ExitCode.REFUSED, f"{called} names no thing yet: there is nobody to encrypt to.")
        members = frozenset(things)
        shared = set.intersection(*(set(self.by_thing[each].keys) if each in self.by_thing else set() for each in things))
        only_theirs = sorted(name for name in shared if self.holders[name] <= members)
        if only_theirs:
            return [self.by_thing[things[0]].keys[only_theirs[0]]]
        own = {thing: self.own_keys(thing) for thing in things}
        lacking = [thing for thing in things if not own[thing]]
        if lacking:
            why = {thing: self._why_no_key(thing) for thing in lacking}
            raise CommandEnded(ExitCode.REFUSED, f"Nothing can be encrypted to {called}:{_named(why)}")
        return [own[thing][0] for thing in things]

    def unable(self, things: Iterable[str], key_ids: Iterable[str], *, format: int) -> Mapping[str, str]:
        """Those of some things that couldn't read what is encrypted to these keys, and why."""
        wanted = frozenset(key_ids)
        reasons = {}
        for thing in things:
            declared = self.by_thing.get(thing)
            if declared is None:
                reasons[thing] = "it has never declared that it can decrypt"
            elif not wanted.intersection(declared.keys):
                reasons[thing] = "the image is encrypted to none of its keys"
            elif format not in declared.formats:
                reasons[thing] = f"it doesn't read format {format} of encrypted images"
        return reasons

    def _why_no_key(self, thing: str) -> str:
        declared = self.by_thing.get(thing)
        if declared is None:
            return "it has never declared that it can decrypt"
        if not declared.keys:
            return "it has said that it holds no decryption key any more"
        return "all keys that it has declared are others' too; name the key's file to encrypt to all of them"


def readers_of(names: Sequence[str], declared: DeclaredKeys, operator: Operator) -> Sequence[ec.EllipticCurvePublicKey]:
    """The keys that ``--encrypt-to`` names: a file, ``group:NAME`` or a thing.

    Raises:
        CommandEnded: USAGE, REFUSED.
    """
    readers: dict[bytes, ec.EllipticCurvePublicKey] = {}
    for name in names:
        if name.startswith(GROUP_PREFIX):
            group = name.removeprefix(GROUP_PREFIX)
            pages = operator.client("iot").get_paginator("list_things_in_thing_group")
            things = [each for page in pages.paginate(thingGroupName=group, recursive=True) for each in page["things"]]
            found = declared.keys_for(things, called=name)
        elif Path(name).is_file():
            found = [public_key_in(Path(name))]
        else:
            found = declared.keys_for([name], called=name)
        readers |= {key_id_of(key): key for key in found}
    return list(readers.values())


def require_readable(things: Sequence[str], key_ids: Sequence[str], declared: DeclaredKeys, *, format: int) -> None:
    """Nothing leaves this machine that a thing of the audience couldn't read.

    Raises:
        CommandEnded: REFUSED, naming them.
    """
    unable = declared.unable(things, key_ids, format=format)
    if unable:
        raise CommandEnded(
            ExitCode.REFUSED,
            f"Nothing was shipped: {len(unable)} of {len(things)} thing(s) couldn't decrypt it. Give them a key "
            f"(overair-device decryption), name one of theirs with --encrypt-to, or leave them out:{_named(unable)}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """Whose keys an image is encrypted to."""

    keys: Sequence[ec.EllipticCurvePublicKey]
    """None of them where it came encrypted: then it is known by their names alone."""
    key_ids: Sequence[str]


def readers_for(operator: Operator, shipment: Shipment, audience: Audience) -> Readers:
    """Who is to read a shipment, once it is known that its whole audience can.

    Raises:
        CommandEnded: USAGE, REFUSED.
    """
    declared = DeclaredKeys(operator)
    if shipment.envelope is not None:
        readers = Readers(keys=(), key_ids=shipment.envelope.key_ids)
    else:
        keys = readers_of(shipment.encrypt_to, declared, operator)
        readers = Readers(keys=keys, key_ids=sorted(key_id_of(key).hex() for key in keys))
    require_readable(audience.things, readers.key_ids, declared, format=FORMAT)
    return readers


@contextmanager
def encrypted_for(shipment: Shipment, readers: Readers | None) -> Iterator[Path | None]:
    """The file to upload in place of the image, for as long as that takes; None where the parcel goes as it is."""
    if readers is None or not readers.keys or shipment.parcel is None:
        yield None if shipment.envelope is None or shipment.parcel is None else shipment.parcel.path
        return
    with TemporaryDirectory(prefix="overair-") as folder:
        out = Path(folder) / f"{shipment.parcel.path.name}{SUFFIX}"
        encrypt_file(shipment.parcel.path, out, readers.keys)
        yield out


def _named(reasons: Mapping[str, str]) -> str:
    lines = [f"\n  {thing}: {why}" for thing, why in list(reasons.items())[:NAMED_MAX]]
    more = len(reasons) - NAMED_MAX
    return "".join(lines) + (f"\n  … and {more} more" if more > 0 else "")


def _declared(members: Mapping[str, object]) -> Declared:
    keys: dict[str, ec.EllipticCurvePublicKey] = {}
    thing, told, formats = str(members["thingName"]), members["keys"], members["formats"]
    assert isinstance(told, list)
    assert isinstance(formats, list)
    for each in told:
        try:
            key = load_public_key(base64.b64decode(each["publicKey"], validate=True))
        except (ValueError, UnsuitableKey) as error:
            raise CommandEnded(ExitCode.REFUSED, f"What the server tells of {thing} is no key: {error}") from error
        if key_id_of(key).hex() != each["keyId"]:
            raise CommandEnded(ExitCode.REFUSED, f"The server tells a key of {thing} by another key's name.")
        keys[each["keyId"]] = key
    return Declared(thing=thing, formats=tuple(formats), keys=keys, declared_at=members.get("declaredAt"))
