"""What is wrong with pushed documents: collected whole, told once, in words; and the rules that all of them share. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from overair.basics.clock import Instant
from overair.server.roots.lifetimes import PUSHED_EXPIRY_MAX_MS, PUSHED_EXPIRY_SHORT_MS
from overair.server.roots.model import Finding
from overair.wire.uptane.keys import RSA_SIZE_BITS_NEW_MIN, Flavour, KeyType, PublicKey, UnknownKey, read_public_key
from overair.wire.uptane.metadata import RoleKeys
from overair.wire.uptane.metadata_writing import expires_text
from overair.wire.uptane.refusals import MetadataRefused, Reason

_PRINTABLE: Final = re.compile(r"[\x20-\x7e]*")
_PEM: Final = re.compile(r"[\x20-\x7e\n]*")


class Findings:
    """What is wrong with the documents of one push. What both flavours break alike is told once."""

    def __init__(self) -> None:
        self.errors: list[Finding] = []
        self.warnings: list[Finding] = []

    def error(self, code: str, place: str, message: str, hint: str = "") -> None:
        self._add(self.errors, Finding(code=code, field=place, message=message, hint=hint))

    def warning(self, code: str, place: str, message: str, hint: str = "") -> None:
        self._add(self.warnings, Finding(code=code, field=place, message=message, hint=hint))

    def refused(self, prefix: str, refusal: MetadataRefused, hint: str = "") -> None:
        """A document that the client's own reader or verifier refuses."""
        self.error(code_of(refusal.reason), prefix + refusal.field, refusal.message, hint)

    @staticmethod
    def _add(findings: list[Finding], finding: Finding) -> None:
        known = {(other.code, other.field.removeprefix("tuf.")) for other in findings}
        if (finding.code, finding.field.removeprefix("tuf.")) not in known:
            findings.append(finding)


def code_of(reason: Reason) -> str:
    """``UnmetThreshold`` → ``unmet_threshold``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", reason.value).lower()


def field_prefix(flavour: Flavour) -> str:
    """What precedes the path of a member in a finding."""
    return "" if flavour is Flavour.UPTANE else "tuf."


def unprintable(value: object, path: str) -> Iterator[str]:
    """The paths of strings with characters outside of printable ASCII. Line ends are allowed in a key's PEM."""
    match value:
        case str():
            pattern = _PEM if path.endswith(".keyval.public") else _PRINTABLE
            if not pattern.fullmatch(value):
                yield path
        case Mapping():
            for name, member in value.items():
                if not _PRINTABLE.fullmatch(name):
                    yield f"{path}.{ascii(name)[1:-1][:64]}"
                yield from unprintable(member, f"{path}.{name[:64]}")
        case list():
            for number, item in enumerate(value):
                yield from unprintable(item, f"{path}[{number}]")


def check_written_keys(value: object, path: str, flavour: Flavour, findings: Findings) -> None:
    """Each key as it is written: the typed reader would stop at the first that is wrong."""
    if not isinstance(value, Mapping):
        return
    for key_id, written in value.items():
        place = f"{path}.{key_id[:64]}"
        try:
            key = read_public_key(written, flavour, field=place)
        except UnknownKey as refusal:
            findings.refused("", refusal, "aktualizr refuses a whole document with such a key. Use ED25519 or RSA.")
            continue
        except MetadataRefused as refusal:
            findings.refused("", refusal)
            continue
        if key.type is KeyType.ECDSA:
            findings.error(
                code_of(Reason.UNSUPPORTED_METHOD),
                f"{place}.keytype",
                "aktualizr refuses a whole document with an ECDSA key.",
                "Use ED25519 or RSA.",
            )


def check_keys(
    keys: Mapping[str, PublicKey], before: Mapping[str, PublicKey], named: set[str], path: str, findings: Findings
) -> None:
    """Keys are called by what they are, are long enough when they are new, and somebody names them.

    Args:
        before: The keys of the document that this one follows. named: The key ids of all roles.
    """
    for key_id, key in keys.items():
        place = f"{path}.{key_id[:64]}"
        if key.id != key_id:
            findings.error(
                "key_id_mismatch",
                place,
                f"The key's id is {key.id}: the SHA-256 of its SubjectPublicKeyInfo.",
                "Name the key by this id.",
            )
        if key.type is KeyType.RSA and key not in before.values() and key.size_bits < RSA_SIZE_BITS_NEW_MIN:
            findings.error(
                "rsa_key_too_short",
                place,
                f"The new RSA key has {key.size_bits} bits; new ones have at least {RSA_SIZE_BITS_NEW_MIN}.",
                "Make an ED25519 key, or an RSA key of 3072 or 4096 bits.",
            )
        if key_id not in named:
            findings.warning("unused_key", place, "No role names this key.", "Leave it out.")


def check_role_keys(keys: RoleKeys, known: Mapping[str, PublicKey], path: str, findings: Findings) -> set[PublicKey]:
    """Whether a role can be signed at all with the keys that it names; those that are known."""
    found: set[PublicKey] = set()
    for key_id in keys.key_ids:
        if key_id in known:
            found.add(known[key_id])
        else:
            findings.error("unknown_key", f"{path}.keyids", f"The role names the key {key_id[:64]!r}, which isn't in keys.")
    if keys.threshold > len(found):
        findings.error(
            "threshold_exceeds_keys",
            f"{path}.threshold",
            f"{keys.threshold} signatures are asked of {len(found)} keys: nobody could ever sign.",
            "Lower the threshold or add keys.",
        )
    return found


def check_expiry(expires: Instant, now: Instant, prefix: str, findings: Findings, *, is_root: bool) -> None:
    """Neither past nor further away than two years."""
    path = f"{prefix}signed.expires"
    if expires <= now:
        findings.error("expired_metadata", path, f"The document ended at {expires_text(expires)}.", "Sign it with a later end.")
    elif expires - now > PUSHED_EXPIRY_MAX_MS:
        findings.error(
            "expires_too_late",
            path,
            f"The document would count until {expires_text(expires)}; at most two years are allowed.",
            "Sign it with an earlier end.",
        )
    elif is_root and expires - now < PUSHED_EXPIRY_SHORT_MS:
        findings.warning("expires_soon", path, f"The root ends already at {expires_text(expires)}.")


def errors_json(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """As an answer carries them."""
    return [finding.to_json() for finding in findings]
