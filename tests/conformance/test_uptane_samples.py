"""Others' Uptane scenarios: a client that has nothing but the first roots, step by step, over OLPC canonical JSON.

Each step's documents run through the trusted sets of both repositories, then through matching and the image's bytes; what the
generator expects of the Director, of the Image repository and of the target must come out. What doesn't is in ``DELIBERATE``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from overair.basics.clock import from_datetime
from overair.wire.uptane.canonical import CanonicalForm
from overair.wire.uptane.matching import check_director_targets, match, matched, verify_target_bytes
from overair.wire.uptane.metadata import Repository
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.trust import Chain, Refused, TrustedSet
from tests.support.vectors import vectors

FOLDER = vectors("uptane-samples")
VECTORS: Final[dict[str, list[dict[str, Any]]]] = json.loads((FOLDER / "vectors.json").read_text())["vectors"]
NOW: Final = from_datetime(datetime(2026, 5, 1, tzinfo=UTC))
"""What must have expired ends in 2017, everything else in 2038."""
ECUS: Final = {"demo-ecu": "demo-hw"}

NAMES: Final = {
    "IllegalThreshold": Reason.ILLEGAL_THRESHOLD,
    "UnmetThreshold": Reason.UNMET_THRESHOLD,
    "NonUniqueSignatures": Reason.NON_UNIQUE_SIGNATURES,
    "VersionMismatch": Reason.VERSION_MISMATCH,
    "ExpiredMetadata": Reason.EXPIRED_METADATA,
    "BadKeyId": Reason.BAD_KEY_ID,
    "TargetMismatch": Reason.TARGET_MISMATCH,
    "BadEcuId": Reason.BAD_ECU_ID,
}
"""The generator's errors, without the role that some of them name."""

DELIBERATE: Final = {
    ("director_root_rotation", 1): (
        "the generator signs the Image repository anew in each step and keeps its versions, so that timestamp version 1 says "
        "something else than before; aktualizr believes it, we hold a version to what it said first"
    ),
}
"""(scenario, step) → why the Image repository is refused as a rollback where the generator expects success."""


@dataclass
class Client:
    """What the client believes after the steps so far."""

    director: TrustedSet | None = None
    image: TrustedSet | None = None

    def update_director(self, documents: dict[str, bytes]) -> Reason | None:
        try:
            self.director = _rooted(self.director, "director", documents)
            return _reason(self.director.update_targets(documents["director/targets.json"], now=NOW))
        except _Refused as error:
            return error.reason

    def update_image(self, documents: dict[str, bytes]) -> Reason | None:
        try:
            self.image = _rooted(self.image, "image_repo", documents)
        except _Refused as error:
            return error.reason
        for take, name in (
            (self.image.update_timestamp, "timestamp.json"),
            (self.image.update_snapshot, "snapshot.json"),
            (self.image.update_targets, "targets.json"),
        ):
            reason = _reason(take(documents[f"image_repo/{name}"], now=NOW))
            if reason is not None:
                return reason
        return None

    def fetch_target(self, documents: dict[str, bytes], name: str, data: bytes) -> Reason | None:
        assert self.director is not None
        assert self.image is not None
        delegated = {
            path.rpartition("/")[2].removesuffix(".json"): body
            for path, body in documents.items()
            if path.startswith("image_repo/delegations/")
        }
        result = matched(match(self.director, self.image, ecus=ECUS, installed={}, now=NOW), delegated)
        if isinstance(result, Refused):
            return result.reason
        (target,) = (each for each in result if each.name == name)
        verify_target_bytes([data], target)
        return None


class _Refused(Exception):
    def __init__(self, reason: Reason) -> None:
        self.reason = reason


def _rooted(trusted: TrustedSet | None, folder: str, documents: dict[str, bytes]) -> TrustedSet:
    kind = Repository.DIRECTOR if folder == "director" else Repository.IMAGE
    chain = Chain.ROOT_AND_TARGETS if kind is Repository.DIRECTOR else Chain.WHOLE
    if trusted is None:
        try:
            trusted = TrustedSet.begin(
                documents[f"{folder}/1.root.json"], repository=kind, form=CanonicalForm.OLPC, chain=chain
            )
        except MetadataRefused as error:
            raise _Refused(error.reason) from None
    while (data := documents.get(f"{folder}/{trusted.root.version + 1}.root.json")) is not None:
        reason = _reason(trusted.update_root(data))
        if reason is not None:
            raise _Refused(reason)
    return trusted


def _reason(verdict: object) -> Reason | None:
    return verdict.reason if isinstance(verdict, Refused) else None


def _expected(outcome: dict[str, Any]) -> Reason | None:
    return None if outcome["is_success"] else NAMES[outcome["err"].split("::")[0]]


@pytest.mark.parametrize("scenario", VECTORS)
def test_each_step_of_a_scenario_meets_its_expected_outcome(scenario: str) -> None:
    client = Client()
    for number, step in enumerate(VECTORS[scenario]):
        documents = {path: text.encode() for path, text in step["documents"].items()}
        expected = step["expected"]
        director, image = client.update_director(documents), client.update_image(documents)
        assert director == _expected(expected["director"]["update"])
        if (scenario, number) in DELIBERATE:
            assert _expected(expected["image_repo"]["update"]) is None
            assert image is Reason.ROLLBACK
            continue
        assert image == _expected(expected["image_repo"]["update"])
        if director is None and image is None:
            for name, outcome in expected["director"]["targets"].items():
                data = step["target_files_latin1"][name].encode("latin-1")
                assert client.fetch_target(documents, name, data) == _expected(outcome)


def test_a_client_that_has_installed_the_target_meets_the_step_that_is_met_otherwise_above() -> None:
    # As in the field: the Director's documents are refreshed, say what runs already, and the Image repository isn't asked.
    client = Client()
    for step in VECTORS["director_root_rotation"]:
        documents = {path: text.encode() for path, text in step["documents"].items()}
        assert client.update_director(documents) is None
    assert client.director is not None
    assert client.director.root.version == 2
    assert client.director.targets is not None
    installed = client.director.targets.targets["file.txt"]
    assert check_director_targets(client.director.targets, ECUS, {"demo-ecu": installed}) == ()


def test_the_list_of_what_is_met_otherwise_names_steps_that_are_there() -> None:
    assert all(step < len(VECTORS[scenario]) for scenario, step in DELIBERATE)


def test_over_the_other_canonical_form_no_scenario_is_believed() -> None:
    root = VECTORS["simple"][0]["documents"]["director/1.root.json"].encode()
    with pytest.raises(MetadataRefused) as caught:
        TrustedSet.begin(root, repository=Repository.DIRECTOR, chain=Chain.ROOT_AND_TARGETS)
    assert caught.value.reason is Reason.BAD_KEY_ID
