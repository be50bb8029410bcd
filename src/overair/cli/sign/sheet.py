"""The recovery sheet: what somebody needs who finds the safe open and the signer gone. Words for paper, no secrets. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from overair.basics.clock import Instant
from overair.cli.sign.edits import OFFLINE_ROLES
from overair.cli.sign.key_records import KeyRecord, kind_of
from overair.cli.sign.known import Known, fingerprint
from overair.wire.uptane.metadata import Role
from overair.wire.uptane.metadata_writing import expires_text


def write(known: Known, keys: Mapping[str, KeyRecord], *, now: Instant) -> bytes:
    """The sheet for the root that is served now."""
    root, repository = known.root, known.repository
    by_id = {record.id: record for record in keys.values()}
    lines = [
        f"# Recovery sheet: {repository} repository, root {root.version}",
        "",
        f"Written {expires_text(now)}. Print it, and keep it with the backup, not with the passphrase.",
        "",
        f"- fingerprint of root {root.version} (SHA-256 of `{root.version}.root.json`): `{fingerprint(known.root_bytes)}`",
        f"- fingerprint of the root that was pinned: `{fingerprint(known.served.roots[0])}`",
        f"- this root counts until {expires_text(root.expires)}",
    ]
    if known.targets is not None:
        lines.append(f"- targets {known.targets.version} count until {expires_text(known.targets.expires)}")
    lines += ["", "## Who signs", "", "| role | needed | key | name | kind | held |", "|---|---|---|---|---|---|"]
    for role in Role:
        named = root.role_keys(role)
        for key_id in named.key_ids:
            record = by_id.get(key_id)
            held = "the server" if role not in OFFLINE_ROLES[repository] else "elsewhere"
            if record is not None and record.holder:
                held = f"`keys/{record.name}.key`" if record.holder.startswith("file:") else f"`{record.holder}`"
            name = record.name if record is not None else ""
            needed = f"{named.threshold} of {len(named.key_ids)}"
            lines.append(f"| {role} | {needed} | `{key_id}` | {name} | {kind_of(root.keys[key_id])} | {held} |")
    spare = len(root.role_keys(Role.ROOT).key_ids) - root.role_keys(Role.ROOT).threshold
    lines += [
        "",
        "## If something is lost",
        "",
        f"- **A root key.** {spare} of the root keys may be lost and a new root can still be signed."
        + (
            ""
            if spare
            else " That is none: with one more lost, no key of this fleet can ever be changed again. Add one (`sign keys add`)."
        ),
        "- **A root key stolen.** `overair sign rotate root` at once: until then the thief needs "
        f"{root.role_keys(Role.ROOT).threshold} of them.",
        "- **A targets key lost or stolen.** `overair sign rotate targets`; the root keys sign that.",
        "- **This directory.** `overair sign restore BACKUP DIR`, with the backup's passphrase.",
        "- **The server.** Restore its backup, or begin a new one and import the chain; devices follow every root from the "
        "one they know.",
        "- **Before the dates above:** `overair sign renew --days N`, then `overair sign push`. Devices refuse what has ended.",
        "",
    ]
    return "\n".join(lines).encode("utf-8")
