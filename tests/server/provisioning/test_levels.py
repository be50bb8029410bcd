"""The way to the production level and back, and that it leaves no key behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from overair.basics.clock import SettableClock
from overair.basics.errors import AccessDenied, Conflict, Unavailable
from overair.basics.ids import AccountId, KeyId
from overair.basics.redacted import Redacted
from overair.basics.work import Tx
from overair.server.certificates.model import AuthorityPurpose
from overair.server.gateway.authority import DeviceIdentity
from overair.server.keyring.store import SqlKeyStore
from overair.server.keyring.store import keys as keyring_table
from overair.server.provisioning.model import Level
from overair.server.storage.work import SqlWork, sql
from tests.support import pki
from tests.support.provisioning_room import OPERATOR, ProvisioningRoom

PURPOSES = (AuthorityPurpose.FLEET_AUTHORITY, AuthorityPurpose.CREDENTIAL_AUTHORITY)


def secrets_of(room: ProvisioningRoom) -> list[bytes]:
    """The two authorities' keys as they lie in the records, and what they are unsealed."""

    def read(tx: Tx) -> list[bytes]:
        found = []
        for purpose in PURPOSES:
            own = room.registry.authorities.find_provisioning_authority(tx, room.place.account, purpose)
            assert own is not None
            key = SqlKeyStore().find(tx, room.place.account, own.key_id)
            assert key is not None
            pem = room.registry.keyring.export_pem(tx, room.place.account, own.key_id).reveal()
            private = pki.serialization.load_pem_private_key(pem, None)
            scalar = private.private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr]
            # The nonce and the tag stand for any part of the sealed key that might be left somewhere.
            found += [key.sealed, key.sealed[1:13], key.sealed[-16:], pem, scalar]
        return found

    return room.work.read_blocking(read)  # type: ignore[attr-defined]


def found_in(directory: Path, secrets: list[bytes]) -> list[tuple[str, int]]:
    """Which of these bytes lie in which file."""
    return [
        (str(path.relative_to(directory)), number)
        for path in directory.rglob("*")
        if path.is_file()
        for number, secret in enumerate(secrets)
        if secret in path.read_bytes()
    ]


async def test_shared_provisioning_off_ends_credentials_and_minting_by_name(room: ProvisioningRoom) -> None:
    credential = await room.credential()
    minted = await room.mint(credential, "vin-1")
    told = await room.level_operations.set_shared_provisioning(room.caller(), {"enabled": False})
    assert (told["level"], told["sharedProvisioning"], told["fleetKeySince"]) == ("production", False, None)
    assert room.scrubbed.times == 1
    with pytest.raises(Conflict) as caught:
        await room.mint(credential, "vin-2")
    assert caught.value.subject == "shared-provisioning-off"
    # Devices that are in go on.
    answer = await room.registry.authority.admit(
        minted.certificate.public_bytes(pki.serialization.Encoding.DER), None, None, ""
    )
    assert isinstance(answer, DeviceIdentity)
    for purpose in PURPOSES:
        own = await room.work.read(
            lambda tx, purpose=purpose: room.registry.authorities.find_provisioning_authority(tx, room.place.account, purpose)
        )
        assert own is None


async def test_which_backups_still_hold_the_keys_is_told(room: ProvisioningRoom, clock: SettableClock) -> None:
    await room.mint(await room.credential(), "vin-1")
    clock.advance(milliseconds=86_400_000)
    told = await room.level_operations.set_shared_provisioning(room.caller(), {"enabled": False})
    assert {key["purpose"] for key in told["destroyedKeys"]} == {"fleet-authority", "credential-authority"}
    for key in told["destroyedKeys"]:
        assert key["destroyedAt"] - key["createdAt"] == 86_400_000
    assert len(told["warnings"]) == 2
    for warning in told["warnings"]:
        assert "made between 2026-01-01T00:00:00+00:00 and then still hold it" in warning
    # And it is told as long as the records last.
    status = await room.work.read(lambda tx: room.provisioning.status(tx, room.place.account))
    assert status.warnings == tuple(told["warnings"])


async def test_off_again_is_fine_and_cleans_again(room: ProvisioningRoom, clock: SettableClock) -> None:
    first = await room.level_operations.set_shared_provisioning(room.caller(), {"enabled": False})
    clock.advance(milliseconds=1_000)
    second = await room.level_operations.set_shared_provisioning(room.caller(), {"enabled": False})
    assert first == second
    assert room.scrubbed.times == 2


async def test_where_the_files_cant_be_cleaned_now_the_call_says_so_and_the_keys_are_gone_all_the_same(
    room: ProvisioningRoom,
) -> None:
    await room.credential()

    async def busy() -> None:
        raise Unavailable("A read keeps the log.", subject="storage")

    room.level_operations._scrub = busy
    with pytest.raises(Unavailable):
        await room.level_operations.set_shared_provisioning(room.caller(), {"enabled": False})
    status = await room.work.read(lambda tx: room.provisioning.status(tx, room.place.account))
    assert (status.level, len(status.destroyed_keys)) == (Level.PRODUCTION, 1)


async def test_on_again_is_a_new_authority_and_old_credentials_stay_dead(room: ProvisioningRoom) -> None:
    credential = await room.credential()
    before = await room.mint(credential, "vin-1")
    for enabled in (False, True):
        told = await room.level_operations.set_shared_provisioning(room.caller(), {"enabled": enabled})
    assert told["level"] == "default"
    with pytest.raises(AccessDenied) as caught:
        await room.mint(credential, "vin-2")
    assert caught.value.subject == "credential-revoked"
    after = await room.mint(await room.credential(), "vin-2")
    assert after.fleet_authority.public_key() != before.fleet_authority.public_key()
    for minted in (before, after):
        answer = await room.registry.authority.admit(
            minted.certificate.public_bytes(pki.serialization.Encoding.DER), None, None, ""
        )
        assert isinstance(answer, DeviceIdentity)


async def test_both_levels_at_once_are_warned_of(room: ProvisioningRoom) -> None:
    await room.trust(pki.authority())
    told = await room.level_operations.describe_provisioning(room.caller(), {})
    assert (told["level"], told["fleetAuthorities"]) == ("default", 1)
    assert "Switch it off once no device needs it" in told["warnings"][0]
    told = await room.level_operations.set_shared_provisioning(room.caller(), {"enabled": False})
    assert told["warnings"] == []


async def test_a_thief_of_the_fleet_key_makes_certificates_that_nobody_registered(room: ProvisioningRoom) -> None:
    minted = await room.mint(await room.credential(), "vin-1")

    def stolen(tx: Tx) -> Any:
        own = room.registry.authorities.find_provisioning_authority(tx, room.place.account, AuthorityPurpose.FLEET_AUTHORITY)
        assert own is not None
        return room.registry.keyring.export_pem(tx, room.place.account, own.key_id).reveal()

    key = pki.serialization.load_pem_private_key(await room.work.read(stolen), None)
    thief = pki.Held(minted.fleet_authority, key)  # type: ignore[arg-type]
    for name in ("vin-1", "vin-2"):
        forged = pki.device(thief, name)
        forged.certificate.verify_directly_issued_by(minted.fleet_authority)
        answer = await room.registry.authority.admit(forged.der, None, None, "")
        assert not isinstance(answer, DeviceIdentity)


async def test_one_accounts_level_is_none_of_anothers(room: ProvisioningRoom) -> None:
    await room.mint(await room.credential(), "vin-1")
    stranger = type(room.place)("us-east-1", AccountId("999988887777"))
    await room.work.run(lambda tx: room.levels.switch_off(tx, stranger, by="stranger"))
    assert await room.work.read(lambda tx: room.levels.is_on(tx, room.place.account))
    await room.mint(await room.credential(), "vin-2")


# The files ------------------------------------------------------------------------------------------------------------------


async def test_the_destroyed_keys_lie_in_no_page_and_in_no_log_of_the_database(
    room: ProvisioningRoom, work: SqlWork, tmp_path: Path
) -> None:
    if work.engine.dialect.name != "sqlite":
        pytest.skip("the files are the database server's: see docs/security.md")
    # Many systems build SQLite so that it overwrites what it deletes; others don't.
    await work.run(lambda tx: sql(tx).exec_driver_sql("PRAGMA secure_delete=OFF"))
    await room.mint(await room.credential(), "vin-1")
    # Many keys come and go, so that rows move from page to page and leave their old bytes behind.
    others: list[KeyId] = []
    for number in range(150):
        others.append(await work.run(lambda tx: room.registry.keyring.create(tx, room.place.account, "ec-p256", "another")))
        if number % 3 == 0:
            victim = others.pop(len(others) // 2)
            await work.run(lambda tx, victim=victim: room.registry.keyring.delete(tx, room.place.account, victim))
    secrets = secrets_of(room)
    kept = await work.read(lambda tx: SqlKeyStore().find(tx, room.place.account, others[0]))
    assert kept is not None
    assert found_in(tmp_path, secrets), "the keys must be there before, or nothing is shown"
    await room.work.run(lambda tx: room.levels.switch_off(tx, room.place, by=OPERATOR))
    await work.scrub(keyring_table)
    assert found_in(tmp_path, secrets) == []
    # What wasn't destroyed is all there.
    assert await work.read(lambda tx: SqlKeyStore().find(tx, room.place.account, others[0])) == kept
    left = await work.read(lambda tx: {key.key_id for key in SqlKeyStore().all(tx, room.place.account)})
    assert set(others) == left
    signature = await work.read(
        lambda tx: room.registry.keyring.sign(tx, room.place.account, others[0], b"x", algorithm="ecdsa-sha256")
    )
    assert signature


async def test_without_the_cleaning_the_log_would_still_hold_them(
    room: ProvisioningRoom, work: SqlWork, tmp_path: Path
) -> None:
    if work.engine.dialect.name != "sqlite":
        pytest.skip("the files are the database server's: see docs/security.md")
    await room.mint(await room.credential(), "vin-1")
    secrets = secrets_of(room)
    await room.work.run(lambda tx: room.levels.switch_off(tx, room.place, by=OPERATOR))
    assert found_in(tmp_path, secrets)
    await work.scrub(keyring_table)
    assert found_in(tmp_path, secrets) == []


async def test_a_long_read_that_keeps_the_log_is_told_of(
    room: ProvisioningRoom, work: SqlWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if work.engine.dialect.name != "sqlite":
        pytest.skip("only SQLite's log waits for readers")
    monkeypatch.setattr("overair.server.storage.dialects.BUSY_TIMEOUT_MS", 0)
    await room.credential()
    with work._engines.reader.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.execute("BEGIN")
        driver.execute("SELECT count(*) FROM keyring_keys").fetchone()
        await room.work.run(lambda tx: room.levels.switch_off(tx, room.place, by=OPERATOR))
        impatient = _without_patience(work)
        with pytest.raises(Unavailable, match="ask again"):
            await impatient.scrub(keyring_table)
        driver.execute("ROLLBACK")
    await work.scrub(keyring_table)


def _without_patience(work: SqlWork) -> SqlWork:
    """The same records through a connection that waits for nobody."""
    from sqlalchemy import event

    @event.listens_for(work._engines.writer, "connect")
    def _opened(driver: Any, _record: Any) -> None:
        driver.execute("PRAGMA busy_timeout=0")

    return work


async def test_on_postgresql_the_table_is_written_anew(room: ProvisioningRoom, work: SqlWork) -> None:
    if work.engine.dialect.name != "postgresql":
        pytest.skip("PostgreSQL's own")

    def file_of_table(tx: Tx) -> str:
        return str(sql(tx).exec_driver_sql("SELECT pg_relation_filepath('keyring_keys')").scalar_one())

    await room.credential()
    before = await work.read(file_of_table)
    await room.work.run(lambda tx: room.levels.switch_off(tx, room.place, by=OPERATOR))
    await work.scrub(keyring_table)
    assert await work.read(file_of_table) != before
    rows = await work.read(lambda tx: sql(tx).execute(select(keyring_table.c.key_id)).all())
    assert rows  # the server authority's key, which was made with the credential


async def test_a_wrong_wrapping_key_stops_nobody_from_destroying(room: ProvisioningRoom) -> None:
    """Who lost the wrapping key must still be able to go to the production level."""
    await room.credential()
    room.registry.keyring._box = type(room.registry.keyring._box)(Redacted(b"\1" * 32), room.registry.keyring._ids)
    await room.work.run(lambda tx: room.levels.switch_off(tx, room.place, by=OPERATOR))
    assert not await room.work.read(lambda tx: room.levels.is_on(tx, room.place.account))
