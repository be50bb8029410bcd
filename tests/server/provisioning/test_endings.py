"""When what lets devices in ends."""

from __future__ import annotations

from overair.basics.clock import SettableClock
from overair.server.keyring.endings import DAY_MS, Ending, EndingKind
from overair.server.provisioning.endings import ProvisioningEndings
from tests.support import pki
from tests.support.provisioning_room import ProvisioningRoom


async def test_authorities_their_lists_and_shared_credentials_are_listed(room: ProvisioningRoom, clock: SettableClock) -> None:
    endings = ProvisioningEndings(room.store, clock=clock)

    async def listed() -> dict[str, Ending]:
        found = await room.work.read(lambda tx: list(endings.endings(tx, room.place.account)))
        return {ending.name: ending for ending in found}

    assert await listed() == {}
    root = pki.authority()
    authority = await room.trust(root)
    request = {"authorityId": authority.id, "revocationListPem": pki.revocation_list(root, pki.device(root, "vin-1"))}
    kept = (await room.fleet_operations.put_revocation_list(room.caller(), request))["revocationList"]
    soon = await room.credential(expires_days=5)
    await room.credential(expires_days=50)
    found = await listed()
    assert set(found) == {f"fleet/{authority.id}", f"crl/{kept['issuerId']}", "provisioning-credentials"}
    assert (found[f"fleet/{authority.id}"].expires, found[f"fleet/{authority.id}"].kind) == (
        authority.not_after,
        EndingKind.AUTHORITY,
    )
    assert found[f"crl/{kept['issuerId']}"].expires == kept["nextUpdate"]
    credentials = found["provisioning-credentials"]
    assert (credentials.expires, credentials.is_summary) == (soon.expires_at, True)
    assert credentials.what == "shared provisioning credentials: 2 are usable"
    clock.advance(milliseconds=6 * DAY_MS)
    assert (await listed())["provisioning-credentials"].what == "shared provisioning credentials: 1 are usable"
