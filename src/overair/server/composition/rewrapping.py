"""A new wrapping key for a server that is stopped: every room's sealed secrets, and then the file."""

from __future__ import annotations

import asyncio
from typing import Final

from overair.basics.clock import Clock
from overair.basics.errors import InvalidRequest
from overair.basics.ids import IdSource
from overair.basics.redacted import Redacted
from overair.server.access.store import SealedSecrets, access_keys, sessions
from overair.server.config import Settings
from overair.server.joined import open_records
from overair.server.keyring.rewrapping import SealedRows, rewrap
from overair.server.keyring.store import SqlKeyStore
from overair.server.keyring.store import keys as keyring_keys
from overair.server.keyring.wrapping import begin_change, end_change
from overair.server.state_directory import StateDirectory
from overair.server.storage.migrations import upgrade

TABLES: Final = (keyring_keys, access_keys, sessions)
"""Every table with sealed secrets; a test holds it against the records' shape."""


def change_wrapping_key(
    settings: Settings,
    *,
    passphrase: Redacted[bytes] | None,
    new_passphrase: Redacted[bytes] | None,
    clock: Clock,
    ids: IdSource,
) -> int:
    """Seal everything anew by a new wrapping key; how many secrets that were. Cut anywhere, the same call goes on.

    Raises:
        OverairError: no server's directory, a server runs on it, the passphrase isn't right, the records can't be read.
    """
    if not (settings.data / "wrapping.key").is_file():
        raise InvalidRequest(f"{settings.data} isn't a server's state directory: it has no wrapping.key.", subject="data")
    state = StateDirectory(settings.data)
    state.open()
    try:
        work = open_records(settings, state, clock)
        try:
            upgrade(work.engine)
            box = begin_change(state.wrapping_key_file, passphrase=passphrase, new_passphrase=new_passphrase, ids=ids)
            tables: list[SealedRows] = [SqlKeyStore(), SealedSecrets(access_keys), SealedSecrets(sessions)]
            count = rewrap(box, tables, work.run_blocking)
            # What the former key sealed may still stand in files of the database, and that key may be why this is done.
            asyncio.run(work.scrub(*TABLES))
            end_change(state.wrapping_key_file, passphrase=new_passphrase or passphrase, ids=ids)
            return count
        finally:
            work.close()
    finally:
        state.close()
