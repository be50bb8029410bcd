"""Whether a wrapping key is the one that sealed the keys of a records file. Asked of a backup before it becomes a server."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from overair.basics.ids import AccountId, KeyId
from overair.server.keyring.service import sealed_context
from overair.server.keyring.wrapping import KeyringRefused, SecretBox


def prove_opens(records: Path, box: SecretBox) -> int:
    """Open every key that is sealed in a records file; how many there are. Nothing of them is kept.

    Raises:
        KeyringRefused: one doesn't open; there is none, so that nothing is proved; the file can't be read.
    """
    opened = 0
    try:
        with closing(sqlite3.connect(f"{records.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            for account, key_id, sealed in connection.execute("SELECT account, key_id, sealed FROM keyring_keys"):
                if sealed:
                    box.unwrap(bytes(sealed), context=sealed_context(AccountId(account), KeyId(key_id)))
                    opened += 1
    except (sqlite3.Error, TypeError) as error:
        raise KeyringRefused(f"The keys of the records can't be read: {error}.") from error
    except KeyringRefused as error:
        raise KeyringRefused(
            "The wrapping key isn't the one that sealed the keys in these records, or they were changed. Name the wrapping.key "
            "of the server that was backed up."
        ) from error
    if not opened:
        raise KeyringRefused("The records hold no key, which no server's do: the wrapping key can't be proved.")
    return opened
