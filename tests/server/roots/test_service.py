"""Root chains: what the server makes, accepts, refuses, hands out and forgets."""

from __future__ import annotations

import pytest

from overair.basics.arn import Place
from overair.server.keyring.service import Keyring
from overair.server.roots.service import RootsService
from overair.server.storage.work import SqlWork
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role, check_signatures, read_document, read_root


@pytest.mark.parametrize("repository", Repository)
def test_a_new_account_has_a_root_in_both_flavours_with_a_key_of_its_own_for_each_role(
    work: SqlWork, roots: RootsService, keyring: Keyring, place: Place, repository: Repository
) -> None:
    work.run_blocking(lambda tx: roots.create(tx, place, repository))
    work.run_blocking(lambda tx: roots.create(tx, place, repository))
    stored = work.read_blocking(lambda tx: roots.current(tx, place.account, repository))
    assert stored.version == 1
    assert stored.is_published
    assert len({keys.key_ids for keys in stored.root.roles.values()}) == 4
    assert len(work.read_blocking(lambda tx: keyring.list(tx, place.account))) == 4
    for flavour in Flavour:
        served = work.read_blocking(lambda tx: roots.document(tx, place.account, repository, 1, flavour))  # noqa: B023
        document = read_document(served, Role.ROOT, flavour=flavour)
        root = read_root(document)
        assert root == stored.root
        check_signatures(document, root.keys, root.role_keys(Role.ROOT))
    for role in Role:
        assert work.read_blocking(lambda tx: roots.is_online(tx, place.account, repository, role))  # noqa: B023
        signers = work.read_blocking(lambda tx: roots.signers(tx, place.account, repository, role))  # noqa: B023
        assert [signer.public_key.id for signer in signers] == list(stored.root.role_keys(role).key_ids)
