"""The repository that the tests of this folder speak to says what a client may believe."""

from __future__ import annotations

import pytest

from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Role
from overair.wire.uptane.metadata_reading import (
    check_signatures,
    read_document,
    read_root,
    read_snapshot,
    read_targets,
    read_timestamp,
)
from tests.support.uptane_repository import UptaneRepository, target_file


@pytest.mark.parametrize("flavour", Flavour)
def test_each_document_is_signed_by_the_roles_of_the_root_and_names_the_next(flavour: Flavour) -> None:
    repository = UptaneRepository(flavour=flavour)
    repository.add_target(target_file("a.bin", b"abc", hardware_ids=["hw"]))
    repository.delegate("vendor", ["vendor/*"], target_file("vendor/b.bin", b"b"))
    repository.rotate(Role.ROOT, Role.TIMESTAMP, count=2)

    def document(name: str, role: Role) -> object:
        read = read_document(repository.files[name], role, flavour=flavour)
        check_signatures(read, root.keys, root.role_keys(role))
        return read

    root_document = read_document(repository.files["2.root.json"], Role.ROOT, flavour=flavour)
    root = read_root(root_document)
    first = read_root(read_document(repository.files["1.root.json"], Role.ROOT, flavour=flavour))
    check_signatures(root_document, first.keys, first.role_keys(Role.ROOT))
    check_signatures(root_document, root.keys, root.role_keys(Role.ROOT))
    timestamp = read_timestamp(document("timestamp.json", Role.TIMESTAMP))  # type: ignore[arg-type]
    snapshot = read_snapshot(document("snapshot.json", Role.SNAPSHOT))  # type: ignore[arg-type]
    targets = read_targets(document("targets.json", Role.TARGETS))  # type: ignore[arg-type]
    assert timestamp.snapshot.version == snapshot.version
    assert snapshot.meta["targets.json"].version == targets.version
    assert set(snapshot.meta) == {"targets.json", "vendor.json"}
    assert targets.targets["a.bin"].hardware_ids == ("hw",)
    assert repository.document("3.root.json") is None
