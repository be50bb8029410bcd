from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.clock import Instant
from overair.wire.uptane.canonical import CanonicalForm, canonical
from overair.wire.uptane.fields import read_expires
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import (
    SIGNATURES_MAX,
    Body,
    Delegation,
    Document,
    MetaFile,
    Role,
    RoleKeys,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from overair.wire.uptane.metadata_reading import (
    check_signatures,
    read_document,
    read_root,
    read_snapshot,
    read_targets,
    read_timestamp,
)
from overair.wire.uptane.metadata_writing import bytes_to_sign, expires_text, payload, sign_payload
from overair.wire.uptane.refusals import MetadataRefused, Reason
from tests.support.uptane_repository import KeyHolder

EXPIRES = Instant(1_800_000_000_000)
ED = KeyHolder()
OTHER = KeyHolder()
RSA = KeyHolder(rsa.generate_private_key(65537, 2048))
ECDSA = KeyHolder(ec.generate_private_key(ec.SECP256R1()))
READERS: dict[Role, Callable[[Document], Body]] = {
    Role.ROOT: read_root,
    Role.TARGETS: read_targets,
    Role.SNAPSHOT: read_snapshot,
    Role.TIMESTAMP: read_timestamp,
}


def root(*holders: KeyHolder, threshold: int = 1) -> Root:
    keys = {holder.public_key.id: holder.public_key for holder in holders}
    roles = {role.value: RoleKeys(key_ids=tuple(keys), threshold=threshold) for role in Role}
    return Root(version=1, expires=EXPIRES, keys=keys, roles=roles)


def signed(body: Body, *holders: KeyHolder, flavour: Flavour = Flavour.UPTANE) -> bytes:
    return sign_payload(payload(body, flavour), holders, flavour)


def changed(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The document with something else in it; its signatures no longer count."""
    document = json.loads(data)
    change(document)
    return canonical(document)


def refusal(data: bytes, role: Role, flavour: Flavour = Flavour.UPTANE) -> tuple[Reason, str]:
    with pytest.raises(MetadataRefused) as caught:
        READERS[role](read_document(data, role, flavour=flavour))
    return caught.value.reason, caught.value.field


# --- there and back ---

DIGITS = st.binary(min_size=32, max_size=32).map(bytes.hex)
HASHES = st.fixed_dictionaries({"sha256": DIGITS})
NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20)
VERSIONS = st.integers(1, 2**31 - 1)
MOMENTS = st.integers(0, 4_000_000_000).map(lambda seconds: Instant(seconds * 1000))
CUSTOM = st.dictionaries(NAMES, st.integers(0, 9) | NAMES | st.lists(NAMES, max_size=2), max_size=2)
METAS = st.builds(MetaFile, version=VERSIONS, length=st.none() | st.integers(0, 2**40), hashes=st.just({}) | HASHES)
FULL_METAS = st.builds(MetaFile, version=VERSIONS, length=st.integers(0, 2**40), hashes=HASHES)
TARGETS = st.dictionaries(NAMES, st.tuples(st.integers(0, 2**40), HASHES, CUSTOM), max_size=3).map(
    lambda named: {
        name: TargetFile(name=name, length=length, hashes=hashes, custom=custom)
        for name, (length, hashes, custom) in named.items()
    }
)
DELEGATIONS = st.lists(st.sampled_from("abc"), unique=True).map(
    lambda names: tuple(
        Delegation(
            name=name, keys=RoleKeys(key_ids=(ED.public_key.id,), threshold=1), paths=(f"{name}/*",), terminating=name == "a"
        )
        for name in names
    )
)
FILES = st.dictionaries(NAMES, METAS, max_size=2).map(lambda named: {**named, "targets.json": MetaFile(version=1)})
BODIES: st.SearchStrategy[Body] = st.one_of(
    st.builds(Snapshot, version=VERSIONS, expires=MOMENTS, meta=FILES),
    st.builds(Timestamp, version=VERSIONS, expires=MOMENTS, snapshot=FULL_METAS),
    st.builds(
        lambda version, expires, targets, delegations, custom: Targets(
            version=version,
            expires=expires,
            targets=targets,
            delegations=delegations,
            delegation_keys={ED.public_key.id: ED.public_key} if delegations else {},
            has_delegations=bool(delegations),
            custom=custom,
        ),
        VERSIONS,
        MOMENTS,
        TARGETS,
        DELEGATIONS,
        CUSTOM,
    ),
    st.builds(
        lambda version, expires: replace(
            root(ED, RSA, threshold=2), version=version, expires=expires, consistent_snapshot=True
        ),
        VERSIONS,
        MOMENTS,
    ),
)
ROLES = {Root: Role.ROOT, Targets: Role.TARGETS, Snapshot: Role.SNAPSHOT, Timestamp: Role.TIMESTAMP}


@given(body=BODIES, flavour=st.sampled_from(Flavour))
def test_a_body_comes_back_as_it_was_signed_in_either_flavour(body: Body, flavour: Flavour) -> None:
    role = ROLES[type(body)]
    document = read_document(signed(body, ED, OTHER, flavour=flavour), role, flavour=flavour)
    assert READERS[role](document) == body
    keys = root(ED, OTHER, threshold=2)
    check_signatures(document, keys.keys, keys.role_keys(role))
    assert document.signed_bytes == bytes_to_sign(payload(body, flavour), flavour)


@given(data=st.binary(max_size=300), role=st.sampled_from(Role), flavour=st.sampled_from(Flavour))
def test_arbitrary_bytes_raise_our_own_error_alone(data: bytes, role: Role, flavour: Flavour) -> None:
    with contextlib.suppress(MetadataRefused):
        READERS[role](read_document(data, role, flavour=flavour))


INNER_NAMES = ["targets.json", "snapshot.json", "keyids", "threshold", "hashes", "length", "version", "sha256", "root"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3) | st.just("ab" * 32),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(INNER_NAMES), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = ["keys", "roles", "meta", "targets", "delegations", "expires", "version", "custom", "consistent_snapshot", "_type"]


@given(body=BODIES, member=st.sampled_from(MEMBERS), value=JSON, flavour=st.sampled_from(Flavour))
def test_any_value_in_any_member_is_read_or_refused_and_nothing_else(
    body: Body, member: str, value: object, flavour: Flavour
) -> None:
    role = ROLES[type(body)]
    data = changed(signed(body, ED, flavour=flavour), lambda document: document["signed"].__setitem__(member, value))
    with contextlib.suppress(MetadataRefused):
        READERS[role](read_document(data, role, flavour=flavour))


# --- signatures ---


@pytest.mark.parametrize(
    ("holder", "flavour"),
    [(ED, Flavour.UPTANE), (RSA, Flavour.UPTANE), (ED, Flavour.TUF), (RSA, Flavour.TUF), (ECDSA, Flavour.TUF)],
)
def test_each_kind_of_key_signs_in_the_flavours_that_know_it(holder: KeyHolder, flavour: Flavour) -> None:
    body = root(holder)
    document = read_document(signed(body, holder, flavour=flavour), Role.ROOT, flavour=flavour)
    check_signatures(document, body.keys, body.role_keys(Role.ROOT))


@pytest.mark.parametrize("method", ["rsassa-pss", "RSASSA-PSS-SHA256"])
def test_the_methods_that_the_field_writes_are_all_understood(method: str) -> None:
    body = root(RSA)
    data = changed(signed(body, RSA), lambda document: document["signatures"][0].__setitem__("method", method))
    check_signatures(read_document(data, Role.ROOT), body.keys, body.role_keys(Role.ROOT))


def test_a_method_that_is_not_its_keys_is_refused_though_clients_do_not_look() -> None:
    body = root(ED)
    data = changed(signed(body, ED), lambda document: document["signatures"][0].__setitem__("method", "rsassa-pss-sha256"))
    with pytest.raises(MetadataRefused) as caught:
        check_signatures(read_document(data, Role.ROOT), body.keys, body.role_keys(Role.ROOT))
    assert caught.value.reason is Reason.UNSUPPORTED_METHOD


def test_the_same_key_under_two_ids_counts_once() -> None:
    key = ED.public_key
    body = Root(version=1, expires=EXPIRES, keys={"a": key, "b": key}, roles={})
    signature = json.loads(signed(root(ED), ED))["signatures"][0]

    def sign_twice(document: dict[str, Any]) -> None:
        document["signatures"] = [{**signature, "keyid": key_id} for key_id in body.keys]

    document = read_document(changed(signed(root(ED), ED), sign_twice), Role.ROOT)
    check_signatures(document, body.keys, RoleKeys(key_ids=("a", "b"), threshold=1))
    with pytest.raises(MetadataRefused, match="1 valid signatures of different keys") as caught:
        check_signatures(document, body.keys, RoleKeys(key_ids=("a", "b"), threshold=2))
    assert caught.value.reason is Reason.UNMET_THRESHOLD


def test_a_signature_of_somebody_elses_key_and_one_that_does_not_verify_do_not_count() -> None:
    body = root(ED, OTHER, threshold=2)
    data = signed(body, ED, RSA)
    with pytest.raises(MetadataRefused) as caught:
        check_signatures(read_document(data, Role.ROOT), body.keys, body.role_keys(Role.ROOT))
    assert caught.value.reason is Reason.UNMET_THRESHOLD
    forged = changed(signed(body, ED, OTHER), lambda document: document["signed"].__setitem__("version", 2))
    with pytest.raises(MetadataRefused, match="0 valid"):
        check_signatures(read_document(forged, Role.ROOT), body.keys, body.role_keys(Role.ROOT))


@pytest.mark.parametrize("threshold", [0, -1, 1001])
def test_a_threshold_outside_1_to_1000_is_never_met(threshold: int) -> None:
    document = read_document(signed(root(ED), ED), Role.ROOT)
    with pytest.raises(MetadataRefused) as caught:
        check_signatures(document, root(ED).keys, RoleKeys(key_ids=(ED.public_key.id,), threshold=threshold))
    assert caught.value.reason is Reason.ILLEGAL_THRESHOLD


@given(st.data())
def test_one_changed_byte_of_what_was_signed_is_noticed(data: st.DataObject) -> None:
    body = root(ED)
    document = signed(body, ED)
    start = document.index(b'"signed":')
    at = data.draw(st.integers(start, len(document) - 2))
    other = data.draw(st.binary(min_size=1, max_size=1).filter(lambda byte: byte[0] != document[at]))
    forged = document[:at] + other + document[at + 1 :]
    try:
        read = read_document(forged, Role.ROOT)
        check_signatures(read, body.keys, body.role_keys(Role.ROOT))
    except MetadataRefused:
        return
    assert read.signed_bytes == bytes_to_sign(payload(body))  # another spelling of the same words, such as white space


# --- refusals ---


def put(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Set, or with ``...`` take away, the member at a path of names and numbers; a number one past the end adds."""

    def change(document: dict[str, Any]) -> None:
        *names, last = [int(name) if name.isdigit() else name for name in path.split("/")]
        place: Any = document
        for name in names:
            place = place[name]
        if isinstance(place, list) and last == len(place):
            place.append(place[0] if value is ... else value)
        elif value is ...:
            del place[last]
        else:
            place[last] = value

    return change


MALFORMED, METHOD, THRESHOLD = Reason.INVALID_METADATA, Reason.UNSUPPORTED_METHOD, Reason.ILLEGAL_THRESHOLD
UNKNOWN_KEY = {"keytype": "unknown", "keyval": {"public": ""}}


@pytest.mark.parametrize(
    ("path", "value", "reason", "field"),
    [
        ("signed", ..., MALFORMED, "signed"),
        ("signatures", {}, MALFORMED, "signatures"),
        ("signatures/1", "x", MALFORMED, "signatures[1]"),
        ("signatures/0/method", ..., METHOD, "signatures[0].method"),
        ("signatures/0/method", "ed448", METHOD, "signatures[0].method"),
        ("signatures/0/sig", "!", MALFORMED, "signatures[0].sig"),
        ("signatures/1", ..., Reason.NON_UNIQUE_SIGNATURES, "signatures"),
        ("signatures", [{}] * (SIGNATURES_MAX + 1), MALFORMED, "signatures"),
        ("signed/_type", "Targets", Reason.WRONG_TYPE, "signed._type"),
        ("signed/_type", [], Reason.WRONG_TYPE, "signed._type"),
        ("signed/version", 0, MALFORMED, "signed.version"),
        ("signed/version", 2**31, MALFORMED, "signed.version"),
        ("signed/version", True, MALFORMED, "signed.version"),
        ("signed/expires", "2026-05-01T00:00:00.5Z", MALFORMED, "signed.expires"),
        ("signed/roles/timestamp", ..., MALFORMED, "signed.roles.timestamp"),
        ("signed/roles/root/threshold", 0, THRESHOLD, "signed.roles.root.threshold"),
        ("signed/roles/root/threshold", 1001, THRESHOLD, "signed.roles.root.threshold"),
        ("signed/roles/root/keyids/1", ..., MALFORMED, "signed.roles.root.keyids"),
        ("signed/keys/k", ECDSA.public_key.to_json(), METHOD, "signed.keys.k.keytype"),
        ("signed/consistent_snapshot", "no", MALFORMED, "signed.consistent_snapshot"),
    ],
)
def test_a_root_that_breaks_a_rule_is_refused_with_its_place(path: str, value: object, reason: Reason, field: str) -> None:
    assert refusal(changed(signed(root(ED), ED), put(path, value)), Role.ROOT) == (reason, field)


def test_a_client_that_asks_for_the_directors_targets_alone_needs_no_keys_for_the_rest() -> None:
    def drop(document: dict[str, Any]) -> None:
        del document["signed"]["roles"]["timestamp"], document["signed"]["roles"]["snapshot"]

    document = read_document(changed(signed(root(ED), ED), drop), Role.ROOT)
    assert set(read_root(document, roles_needed=(Role.ROOT, Role.TARGETS)).roles) == {"root", "targets"}


def test_roles_that_nobody_knows_are_kept_and_unknown_members_change_nothing() -> None:
    def add(document: dict[str, Any]) -> None:
        document["signed"]["roles"]["offline-updates"] = {"keyids": ["x"], "threshold": 1}
        document["signed"]["spec_version"] = "1.0"

    found = read_root(read_document(changed(signed(root(ED), ED), add), Role.ROOT))
    assert found.roles["offline-updates"].key_ids == ("x",)


BLOCK = Targets(
    version=1,
    expires=EXPIRES,
    targets={"app": TargetFile(name="app", length=3, hashes={"sha256": "ab" * 32})},
    delegations=(Delegation(name="vendor", keys=RoleKeys(key_ids=(), threshold=1), paths=("*",)),),
    has_delegations=True,
)
VENDOR = "signed/delegations/roles/0"


@pytest.mark.parametrize(
    ("path", "value", "reason", "field"),
    [
        ("signed/targets/app/hashes", ..., MALFORMED, "signed.targets.app.hashes"),
        ("signed/targets/app/hashes", {}, MALFORMED, "signed.targets.app.hashes"),
        ("signed/targets/app/hashes/sha256", "xy", MALFORMED, "signed.targets.app.hashes.sha256"),
        ("signed/targets/app/length", -1, MALFORMED, "signed.targets.app.length"),
        ("signed/targets/app/custom", [], MALFORMED, "signed.targets.app.custom"),
        ("signed/targets", [], MALFORMED, "signed.targets"),
        ("signed/delegations/roles/1", ..., MALFORMED, "signed.delegations.roles"),
        (f"{VENDOR}/name", "snapshot", MALFORMED, "signed.delegations.roles[0].name"),
        (f"{VENDOR}/threshold", 0, THRESHOLD, "signed.delegations.roles[0].threshold"),
        (f"{VENDOR}/terminating", 1, MALFORMED, "signed.delegations.roles[0].terminating"),
        (f"{VENDOR}/paths", [1], MALFORMED, "signed.delegations.roles[0].paths"),
        (f"{VENDOR}/path_hash_prefixes", ["ab"], MALFORMED, "signed.delegations.roles[0]"),
        ("signed/delegations/keys/k", UNKNOWN_KEY, METHOD, "signed.delegations.keys.k.keytype"),
    ],
)
def test_targets_that_break_a_rule_are_refused_with_their_place(path: str, value: object, reason: Reason, field: str) -> None:
    assert refusal(changed(signed(BLOCK, ED), put(path, value)), Role.TARGETS) == (reason, field)


def test_snapshot_and_timestamp_name_what_they_are_about() -> None:
    snapshot = signed(Snapshot(version=1, expires=EXPIRES, meta={"vendor.json": MetaFile(version=1)}), ED)
    assert refusal(snapshot, Role.SNAPSHOT) == (Reason.INVALID_METADATA, "signed.meta")
    without_hash = signed(Timestamp(version=1, expires=EXPIRES, snapshot=MetaFile(version=1, length=3)), ED)
    assert refusal(without_hash, Role.TIMESTAMP) == (Reason.INVALID_METADATA, "signed.meta.snapshot.json")


def test_a_small_letter_is_taken_for_a_root_alone_as_aktualizr_does() -> None:
    def shrink(document: dict[str, Any]) -> None:
        document["signed"]["_type"] = document["signed"]["_type"].lower()

    read_document(changed(signed(root(ED), ED), shrink), Role.ROOT)
    assert refusal(changed(signed(BLOCK, ED), shrink), Role.TARGETS)[0] is Reason.WRONG_TYPE


# --- the TUF flavour ---


def test_in_the_tuf_flavour_unknown_keys_are_skipped() -> None:
    def add(document: dict[str, Any]) -> None:
        document["signed"]["keys"]["k"] = {"keytype": "sphincs", "scheme": "x", "keyval": {"public": "y"}}

    found = read_root(read_document(changed(signed(root(ED), ED, flavour=Flavour.TUF), add), Role.ROOT, flavour=Flavour.TUF))
    assert set(found.keys) == {ED.public_key.id}


@pytest.mark.parametrize("version", ["2.0.0", "0.9", "1", "1.x", None])
def test_only_version_1_of_tufs_specification_is_read(version: str | None) -> None:
    data = changed(signed(root(ED), ED, flavour=Flavour.TUF), lambda d: d["signed"].__setitem__("spec_version", version))
    assert refusal(data, Role.ROOT, Flavour.TUF) == (Reason.INVALID_METADATA, "signed.spec_version")


def test_the_two_flavours_are_never_taken_for_each_other() -> None:
    assert refusal(signed(BLOCK, ED), Role.TARGETS, Flavour.TUF)[0] is Reason.WRONG_TYPE
    assert refusal(signed(BLOCK, ED, flavour=Flavour.TUF), Role.TARGETS)[0] is Reason.WRONG_TYPE


# --- what snapshot and timestamp hash ---


def test_the_uptane_flavour_hashes_the_meaning_and_the_tuf_flavour_the_bytes() -> None:
    data = signed(BLOCK, ED)
    pretty = json.dumps(json.loads(data), indent=2).encode()
    assert read_document(pretty, Role.TARGETS).hashed_bytes == data
    other = signed(BLOCK, ED, flavour=Flavour.TUF)
    pretty = json.dumps(json.loads(other), indent=2).encode()
    assert read_document(pretty, Role.TARGETS, flavour=Flavour.TUF).hashed_bytes == pretty


def test_the_canonical_form_is_a_parameter() -> None:
    body = root(RSA)  # a PEM has line ends, which the two forms spell differently
    words = payload(body)
    value = base64.b64encode(RSA.sign(canonical(words, CanonicalForm.OLPC))).decode()
    row = {"keyid": RSA.public_key.id, "method": "rsassa-pss-sha256", "sig": value}
    data = canonical({"signatures": [row], "signed": words})
    check_signatures(read_document(data, Role.ROOT, form=CanonicalForm.OLPC), body.keys, body.role_keys(Role.ROOT))
    with pytest.raises(MetadataRefused):
        check_signatures(read_document(data, Role.ROOT), body.keys, body.role_keys(Role.ROOT))


@given(MOMENTS)
def test_moments_come_back_as_they_were_written(moment: Instant) -> None:
    assert read_expires(expires_text(moment)) == moment


@pytest.mark.parametrize("text", ["2026-02-30T00:00:00Z", "2026-05-01T00:00:00+00:00", "٢٠٢٦-05-01T00:00:00Z", "", 7, None])
def test_other_spellings_of_a_moment_are_refused(text: object) -> None:
    with pytest.raises(MetadataRefused):
        read_expires(text)
