"""`overair migrate import`: a plan first, then a saga that may be cut anywhere, and a wait for whoever holds the old keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.migrate.handover import Level
from overair.cli.migrate.importing import NEEDS_ROOTS, Done, ImportOptions
from overair.cli.sign import ceremony
from overair.cli.sign.holders import MemoryKey
from overair.cli.sign.known import Known, verify
from overair.wire.uptane.metadata import Repository, Role
from overair.wire.uptane.metadata_writing import MetadataSigner
from tests.cli.migrate.conftest import Move


class Cut(Exception):
    """The power fails."""


def served(move: Move) -> dict[str, Any]:
    """All that the account shows, but for what says when."""
    found: dict[str, Any] = {}
    for name, path in (("image", "/api/v1/user_repo"), ("director", "/api/v1/director/admin/repo")):
        chain = []
        while (reply := move.server.operator("GET", f"{path}/{len(chain) + 1}.root.json")).status == 200:
            chain.append(reply.body)
        # The last hands over: its keys are this account's own.
        found[name] = (chain[:-1], len(chain))
    targets = move.server.operator("GET", "/api/v1/user_repo/targets.json").json["signed"]
    found["targets"] = (targets["targets"], targets.get("delegations"))
    items = move.server.operator("GET", "/api/v1/user_repo/target_items", query={"status": "all"}).json["values"]
    found["items"] = sorted((each["filename"], each["status"], each["role"]) for each in items)
    found["authorities"] = [
        (each["subject"], each["rule"]) for each in move.server.operator("GET", "/api/v1/fleet_authorities").json["values"]
    ]
    devices = move.server.operator("GET", "/api/v1/devices").json["values"]
    found["devices"] = sorted(each["deviceId"] for each in devices)
    found["ecus"] = {
        name: [
            (ecu["id"], ecu["hardwareId"]) for ecu in move.server.operator("GET", f"/api/v1/director/admin/devices/{name}").json
        ]
        for name in found["devices"]
    }
    return found


def run(move: Move, **options: Any) -> Done:
    return move.importer(ImportOptions(key_files=move.key_files(), **options)).run()


def test_a_whole_fleet_comes_over(move: Move) -> None:
    done = run(move)
    assert done.state == "done"
    found = served(move)
    for repository in Repository:
        assert found[repository.value] == (move.old.roots(repository), 4)
    assert found["targets"][0].keys() == {"gateway-1", "gateway-2", "dash-7"}
    assert found["items"] == [
        ("dash-7", "listed", "targets"),
        ("gateway-1", "listed", "targets"),
        ("gateway-2", "listed", "targets"),
        ("vendor-b/radio-3", "listed", "vendor-b"),
    ]
    assert move.server.operator("GET", "/api/v1/user_repo/targets/gateway-1").body == b"gateway one"
    assert move.server.operator("GET", "/api/v1/user_repo/targets/vendor-b/radio-3").body == b"radio three"
    assert [subject for subject, _ in found["authorities"]] == ["CN=works"]
    assert found["devices"] == ["car-1", "car-2", "car-3"]
    assert found["ecus"]["car-3"] == [("car-3-dash", "cluster-s32"), ("car-3-primary", "gw-imx8")]
    assert done.devices == {"imported": 3, "refused": 1}
    assert list(done.refused_devices) == ["car 4"]  # no thing may be called so
    assert (done.versions["root"], done.director_root) == (4, 4)


def test_a_dry_run_tells_everything_and_changes_nothing(move: Move) -> None:
    before = served(move)
    plan = move.importer().plan().to_json()
    assert served(move) == before
    assert not (move.directory.path / "import").exists()
    assert plan["errors"] == []
    assert plan["image"]["root_version"] == plan["director"]["root_version"] == 3
    assert plan["images"] == {
        "here": 3,
        "to_upload": 3,
        "bytes_to_upload": sum(len(content) for content in move.old.contents.values()),
        "elsewhere": ["dash-7"],
        "missing": [],
    }
    assert plan["fleet_authorities"] == ["CN=works"]
    assert plan["devices"] == {"imported": 3, "refused": 1, "total": 4}
    assert list(plan["refused_devices"]) == ["car 4"]
    assert list(plan["device_warnings"]) == ["car-3"]
    asked = {(each["repository"], tuple(each["key_ids"])) for each in plan["signatures_needed"]}
    assert asked == {
        (repository.value, tuple(key.public_key.id for key in move.old.root_keys(repository))) for repository in Repository
    }


def test_cut_after_any_step_the_same_command_ends_as_if_nothing_had_been(move: Move) -> None:
    """One account is cut again and again, after each step in turn: between two commands no client sees anything half done."""
    empty = served(move)
    steps: list[str] = []
    seen: set[str] = set()
    states: list[object] = []

    def cut_once(step: str) -> None:
        steps.append(step)
        if step not in seen:
            seen.add(step)
            raise Cut(step)

    cuts = 0
    while True:
        try:
            done = move.importer(ImportOptions(key_files=move.key_files()), after_step=cut_once).run()
            break
        except Cut:
            cuts += 1
            found = served(move)
            states.append((found["image"], found["director"], found["targets"]))
    assert cuts == len(seen) >= 11
    assert {"planned", "uploaded", "settled", "taken over", "published", "authorities", "devices", "done"} <= seen
    assert done.state == "done"
    whole = served(move)
    # Repositories are the account's own, or the old server's whole; there is nothing between.
    assert all(
        state in ((empty["image"], empty["director"], empty["targets"]), (whole["image"], whole["director"], whole["targets"]))
        for state in states
    )
    assert whole["image"] == (move.old.roots(Repository.IMAGE), 4)
    again = run(move)
    assert again.state == "done"
    assert again.devices == {"unchanged": 3, "refused": 1}
    assert served(move) == whole


def test_without_the_old_keys_it_waits_under_a_name_and_publishes_nothing(vain: Move) -> None:
    before = {name: value for name, value in served(vain).items() if name != "items"}
    done = vain.importer().run()
    assert done.state == NEEDS_ROOTS
    assert {each.repository for each in done.handover.missing} == set(Repository)  # type: ignore[union-attr]
    assert {name: value for name, value in served(vain).items() if name != "items"} == before
    assert sorted(path.name for path in (vain.directory.path / "import").glob("*.request.json")) == [
        "director-root-4.request.json",
        "image-root-4.request.json",
    ]
    state = json.loads((vain.directory.path / "import" / "state.json").read_bytes())
    assert state["state"] == "needs-roots"


def sign(request_path: Path, *signers: MetadataSigner) -> Path:
    """What `overair sign approve` makes of a request, after its own look at what stands in it."""
    asked = ceremony.read_request(request_path.read_bytes())
    assert asked.sealed.moves
    known: Known = verify(asked.served, asked.sealed.repository, now=asked.served.pulled_at)
    detached = ceremony.sign_request(asked, known, signers)
    path = request_path.with_name(f"{request_path.stem}.{len(signers)}.sig.json")
    path.write_bytes(ceremony.write_signatures(detached))
    return path


def signatures(move: Move, done: Done, *roles: Role) -> tuple[Path, ...]:
    assert done.handover is not None
    return tuple(
        sign(path, *(holder for role in roles or (Role.ROOT,) for holder in move.old.of(repository).keys[role]))
        for repository, path in done.handover.requests.items()
    )


def test_signatures_may_come_later_and_one_by_one_from_where_there_is_no_network(move: Move) -> None:
    waiting = move.importer().run()
    image, director = signatures(move, waiting)
    first = move.importer(ImportOptions(signature_files=(image,))).run()
    assert first.state == NEEDS_ROOTS
    assert first.handover is not None
    missing = {each.repository for each in first.handover.missing}
    assert len(missing) == 1
    done = move.importer(ImportOptions(signature_files=(director,))).run()
    assert done.state == "done"
    assert served(move)["image"] == (move.old.roots(Repository.IMAGE), 4)


def test_signatures_over_something_else_are_refused(vain: Move) -> None:
    waiting = vain.importer().run()
    signature_files = signatures(vain, waiting)
    # Another level was wanted meanwhile: that settles other roots.
    vain.importer(ImportOptions(level=Level.PRODUCTION)).run()
    with pytest.raises(CommandEnded, match="doesn't wait here"):
        vain.importer(ImportOptions(level=Level.PRODUCTION, signature_files=signature_files)).run()


def test_a_key_that_nobody_asks_is_a_usage_error(vain: Move, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519

    private = ed25519.Ed25519PrivateKey.generate()
    path = tmp_path / "stranger.json"
    keyval = {"private": private.private_bytes_raw().hex()}
    path.write_text(json.dumps({"keytype": "ED25519", "keyval": keyval}))
    with pytest.raises(CommandEnded) as ended:
        vain.importer(ImportOptions(key_files=(path,))).run()
    assert ended.value.code is ExitCode.USAGE
    assert MemoryKey(private).public_key.id in ended.value.message
    assert keyval["private"] not in ended.value.message


def test_at_the_production_level_root_and_targets_stay_with_their_holders(move: Move) -> None:
    done = run(move, level=Level.PRODUCTION)
    assert done.state == "done"
    targets = move.server.operator("GET", "/api/v1/user_repo/targets.json").body
    assert targets == move.old.image.files["targets.json"]
    root = move.server.operator("GET", "/api/v1/user_repo/root.json").json["signed"]
    for role in (Role.ROOT, Role.TARGETS):
        assert root["roles"][role]["keyids"] == [key.public_key.id for key in move.old.image.keys[role]]
    held = move.server.operator("GET", "/api/v1/user_repo/root/private_keys").json["values"]
    assert {row["role"] for row in held} == {"snapshot", "timestamp"}


def test_at_the_production_level_targets_may_be_signed_anew_with_the_root(move: Move) -> None:
    options = ImportOptions(level=Level.PRODUCTION, sign_targets=True)
    waiting = move.importer(options).run()
    assert waiting.handover is not None
    assert {each.document for each in waiting.handover.missing} == {"root", "targets"}
    signature_files = signatures(move, waiting, Role.ROOT, Role.TARGETS)
    done = move.importer(ImportOptions(level=Level.PRODUCTION, sign_targets=True, signature_files=signature_files)).run()
    assert done.state == "done"
    assert done.versions["targets"] == move.old.image.targets.version + 1
    assert move.server.operator("GET", "/api/v1/user_repo/targets.json", query={"flavour": "tuf"}).status == 200


# What keeps it from being carried out -----------------------------------------------------------------------------------------


def refused(move: Move, **options: Any) -> str:
    """The refusal's words; it has changed nothing."""
    before = served(move)
    importer = move.importer(ImportOptions(key_files=move.key_files(), **options))
    with pytest.raises(CommandEnded) as ended:
        importer.run()
    assert ended.value.code is ExitCode.REFUSED
    assert served(move) == before
    return ended.value.message


def test_everything_that_is_wrong_is_told_at_once(vain: Move) -> None:
    for path in list((vain.directory.path / "image" / "files").iterdir())[:1]:
        path.write_bytes(path.read_bytes() + b"!")
    authorities = vain.directory.path / "fleet_authorities.json"
    document = json.loads(authorities.read_bytes())
    document["values"].append({"certificatePem": "no PEM"})
    document["values"][0]["rule"] = {"thingGroupNames": ["nowhere"]}
    authorities.write_text(json.dumps(document))
    message = refused(vain)
    assert message.count("\n") == 3
    assert "bytes" in message
    assert "nowhere" in message
    assert "PEM" in message


def test_bytes_that_are_not_the_images_never_leave_the_directory(move: Move) -> None:
    path = next(path for path in (move.directory.path / "image" / "files").iterdir() if path.read_bytes() == b"gateway one")
    path.write_bytes(b"gateway ONE")
    with pytest.raises(CommandEnded, match="other bytes"):
        move.importer(ImportOptions(key_files=move.key_files())).run()
    assert ("PUT", "/api/v1/user_repo/uploads/gateway-1") not in move.rest.asked


def test_images_that_are_missing_keep_it_back_unless_that_is_said(move: Move) -> None:
    for path in (move.directory.path / "image" / "files").iterdir():
        if path.read_bytes() == b"gateway one":
            path.unlink()
    assert "gateway-1" in refused(move)
    done = run(move, may_lack_images=True)
    assert done.state == "done"
    assert done.plan.missing == ["gateway-1"]
    assert move.server.operator("GET", "/api/v1/user_repo/targets/gateway-1").status == 404


def test_a_directory_that_was_tampered_with_is_refused(vain: Move) -> None:
    path = vain.directory.path / "image" / "targets.json"
    path.write_bytes(path.read_bytes().replace(b"gateway-2", b"gateway-9"))
    assert "Devices wouldn't believe the exported image repository" in refused(vain)


@pytest.mark.parametrize(
    "name", ["director/roots/1.root.json", "image/roots/2.root.json", "image/snapshot.json", "export.json"]
)
def test_a_directory_that_lacks_something_is_a_usage_error(vain: Move, name: str) -> None:
    (vain.directory.path / name).unlink()
    with pytest.raises(CommandEnded) as ended:
        vain.importer().plan()
    assert ended.value.code is ExitCode.USAGE


def test_an_account_with_images_of_its_own_takes_nothing_over(move: Move) -> None:
    query = {"name": "own", "version": "1", "hardwareIds": "gw-imx8"}
    assert move.server.operator("PUT", "/api/v1/user_repo/targets/own-1", body=b"own", query=query).status in (200, 204)
    assert "images of its own" in refused(move)


def test_the_rule_for_devices_that_nobody_has_seen_is_the_one_that_is_asked(move: Move) -> None:
    run(move, rule={"firstContact": "deny", "deviceIdPattern": "car-*"})
    ((_, rule),) = served(move)["authorities"]
    assert (rule["firstContact"], rule["deviceIdPattern"]) == ("deny", "car-*")


def test_what_was_settled_stays_settled_so_that_signatures_fit(vain: Move) -> None:
    first, second = vain.importer().run(), vain.importer().run()
    assert first.handover is not None
    assert second.handover is not None
    assert [part.sealed.id for part in first.handover.parts] == [part.sealed.id for part in second.handover.parts]
    assert second.handover.fresh == ()
    production = vain.importer(ImportOptions(level=Level.PRODUCTION)).run()
    assert production.handover is not None
    assert production.handover.fresh == tuple(Repository)
