"""Devices made by a fleet authority whose key lies on a token."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from overair.basics.errors import Conflict
from overair.basics.ids import ThingName
from overair.server.certificates import x509
from overair.server.certificates.model import AuthorityPurpose
from overair.server.certificates.rotation import AuthorityRotation
from overair.server.keyring.holders import HolderSettings, KeyHolders
from overair.server.keyring.model import KeyKind
from tests.support.provisioning_room import ProvisioningRoom
from tests.support.soft_token import LIBRARY, PIN, needs_a_token, softhsm


@pytest.fixture
def pin_file(tmp_path: Path) -> Path:
    path = tmp_path / "pin"
    path.write_text(PIN)
    return path


@pytest.fixture
def holders(room: ProvisioningRoom, pin_file: Path) -> Iterator[KeyHolders]:
    softhsm()
    made = KeyHolders(HolderSettings(home=room.place.account, pkcs11_module=Path(str(LIBRARY)), pkcs11_pin_file=pin_file))
    room.registry.keyring._holders = made
    yield made
    made.close()


@needs_a_token
@pytest.mark.parametrize("work", ["sqlite"], indirect=True)
async def test_a_fleet_authority_on_a_token_makes_devices_and_without_the_token_none_by_halves(
    room: ProvisioningRoom, holders: KeyHolders, pin_file: Path
) -> None:
    account, purpose, keyring = room.place.account, AuthorityPurpose.FLEET_AUTHORITY, room.registry.keyring
    await room.work.run(lambda tx: room.registry.authorities.provisioning_issuer(tx, account, purpose))
    prepared = keyring.hold(account, f"pkcs11:token=overair;object=fleet-{uuid.uuid4().hex[:8]}", make=KeyKind.EC_P256)
    rotation = AuthorityRotation(room.registry.authorities)
    await room.work.run(lambda tx: rotation.rotate(tx, room.place, purpose.value, prepared))
    credential = await room.credential(uses_max=2)
    minted = await room.mint(credential, "vin-1")
    assert x509.public_key_der(minted.fleet_authority) == prepared.public_key_der
    assert x509.directly_issued(minted.certificate, minted.fleet_authority)

    holders.close()
    pin_file.rename(pin_file.with_name("away"))
    with pytest.raises(Conflict, match="The PIN file") as refused:
        await room.mint(credential, "vin-2")
    assert refused.value.subject == "key-holder"
    assert not await room.work.read(lambda tx: room.enrolment.has_thing(tx, account, ThingName("vin-2")))
    found = await room.work.read(lambda tx: room.credentials.find(tx, account, credential.id))
    assert found.uses == 1, "a refusal uses nothing up"
    pin_file.with_name("away").rename(pin_file)
    assert x509.directly_issued((await room.mint(credential, "vin-2")).certificate, minted.fleet_authority)
