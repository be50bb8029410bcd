"""From the default level to the production level and back."""

from __future__ import annotations

from overair.wire.uptane.metadata import Role
from tests.cli.sign.conftest import Signer
from tests.support.signing_server import SigningServer


def test_without_yes_only_the_plan_is_shown(signer: Signer, server: SigningServer) -> None:
    signer("keys", "new", "root-1", "--role", "root")
    signer("keys", "new", "targets-1", "--role", "targets")
    plan = signer("take-offline").json["plan"]
    assert plan["root_version"] == 2
    assert any("Only one root key" in line for line in plan["warnings"])
    assert sorted(plan["keys_deleted_on_server"]) == sorted(
        key_id for role in (Role.ROOT, Role.TARGETS) for key_id in server.image.root.role_keys(role).key_ids
    )
    assert server.image.root.version == 1
    assert not any(request.startswith(("PUT", "DELETE")) for request in server.requests)


def test_root_and_targets_leave_the_server_and_clients_believe_it(offline: Signer, server: SigningServer) -> None:
    assert server.image.root.version == 2
    assert server.image.targets.version == 2
    assert {role for role, _ in server.image.private.values()} == {Role.SNAPSHOT, Role.TIMESTAMP}
    offline("verify", "--as-client")
