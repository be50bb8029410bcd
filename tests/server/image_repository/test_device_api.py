"""Devices' paths: documents verbatim, 404 for a root that isn't there, images whole and in part, under all their names."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from overair.basics.clock import SettableClock
from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import CertificateId, SeededIds, ThingName
from overair.server.image_repository.device_api import IMAGE, METADATA, ImageRepositoryDeviceApi
from overair.server.image_repository.pushing import Push
from overair.server.image_repository.serving import Shelf
from overair.server.objects.contents import ContentStore
from overair.server.objects.model import ContentId
from overair.server.rest.operations import DeviceCaller, DeviceHandler, DeviceRoute, RestAnswer, RestRequest, device_routes_of
from overair.server.rest.templates import Templates
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role, Targets
from tests.support.image_room import ImageRoom, OfflineKey, delegation, plan, signed, target_file

pytestmark = pytest.mark.parametrize("work", ["sqlite"], indirect=True)
"""What these tests are about isn't SQL; other files of this room run on both databases."""

CONTENT = bytes(range(256)) * 2000
NAME = "gateway/app 1+2.bin"
VENDOR = OfflineKey()


class DevicePort:
    """The device door's routing without its proof."""

    def __init__(self, room: ImageRoom, contents: ContentStore) -> None:
        self.room = room
        self.shelf = Shelf(work=room.work, roots=room.roots, images=room.images)
        room.when_published = self.shelf.evict
        self.api = ImageRepositoryDeviceApi(shelf=self.shelf, probes=room.probes, contents=contents)
        self.templates: Templates[tuple[DeviceRoute, DeviceHandler]] = Templates()
        for route, handler in device_routes_of(self.api):
            self.templates.add(route.method, route.template, (route, handler))

    async def get(self, path: str, *, thing: str = "car-1", method: str = "GET", **headers: str) -> RestAnswer:
        found = self.templates.match("GET", path.encode())
        assert found is not None, path
        (route, handler), labels = found
        assert route.action == (IMAGE if "/targets/" in path else METADATA)
        device = DeviceCaller(
            place=self.room.place,
            thing=ThingName(thing),
            certificate_id=CertificateId("ab" * 32),
            source_ip="192.0.2.1",
            now=self.room.clock.now(),
            request_id="r-1",
        )
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await handler(device, RestRequest(method=method, path=path, labels=labels, query={}, headers=named))

    async def body(self, path: str, **headers: str) -> bytes:
        answer = await self.get(path, **headers)
        if answer.stream is not None:
            return b"".join([piece async for piece in answer.stream])
        return answer.body or b""

    async def status(self, path: str) -> str:
        try:
            return str((await self.get(path)).status)
        except NotFound as error:
            return error.subject


@pytest.fixture
async def port(room: ImageRoom, tmp_path: Path, clock: SettableClock, ids: SeededIds) -> AsyncIterator[DevicePort]:
    contents = ContentStore(tmp_path / "contents", clock=clock, ids=ids)
    stored = contents.store_blocking([CONTENT])
    port = DevicePort(room, contents)
    described = plan(NAME, CONTENT, content_id=ContentId(stored.content_id))
    await room.work.run(lambda tx: room.images.add_target(tx, room.place, described))
    yield port
    contents.close()


@pytest.mark.parametrize(("base", "flavour"), [("/repo", Flavour.UPTANE), ("/tuf", Flavour.TUF)])
async def test_documents_are_served_verbatim_under_both_kinds_of_name(port: DevicePort, base: str, flavour: Flavour) -> None:
    room = port.room
    for role in ("targets", "snapshot", "timestamp"):
        stored = room.read(lambda tx: room.images.document(tx, room.account, role, flavour))  # noqa: B023
        assert await port.body(f"{base}/{role}.json") == stored.document
        assert await port.body(f"{base}/{stored.version}.{role}.json") == stored.document
        assert await port.status(f"{base}/{stored.version + 1}.{role}.json") == "role"
    root = room.read(lambda tx: room.roots.document(tx, room.account, Repository.IMAGE, 1, flavour))
    assert await port.body(f"{base}/1.root.json") == await port.body(f"{base}/root.json") == root


@pytest.mark.parametrize("version", ["2", "0", "2147483648", "9999999999"])
async def test_a_root_that_isnt_there_is_404_and_nothing_else(port: DevicePort, version: str) -> None:
    assert await port.status(f"/repo/{version}.root.json") == "root-role"


@pytest.mark.parametrize(
    "path", ["/repo/none.json", "/repo/targets", "/repo/delegations/targets.json", "/repo/99999999999.root.json"]
)
async def test_what_isnt_there_is_404(port: DevicePort, path: str) -> None:
    assert await port.status(path) in ("role", "root-role")


async def test_a_publication_is_seen_at_once_and_the_versions_before_stay_readable_by_name(port: DevicePort) -> None:
    room = port.room
    before = room.read(lambda tx: room.images.document(tx, room.account, "targets", Flavour.UPTANE))
    assert await port.body("/repo/targets.json") == before.document
    room.clock.advance(milliseconds=1000)
    await room.work.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-2.bin", b"two")))
    assert await port.body("/repo/targets.json") == room.document("targets") != before.document
    assert await port.body(f"/repo/{before.version}.targets.json") == before.document
    await room.work.run(lambda tx: room.roots.renew(tx, room.place, Repository.IMAGE))
    assert await port.status("/repo/2.root.json") == "200"


async def test_a_root_that_waits_for_its_targets_is_shown_to_no_device(port: DevicePort) -> None:
    room = port.room
    root_key, targets_key = OfflineKey(), OfflineKey()
    signers = [root_key, *room.server_signers(Role.ROOT)]
    root = signed(room.next_root(root=([root_key], 1), targets=([targets_key], 1)), signers)
    await room.work.run(lambda tx: room.pushes.push(tx, room.place, Push(root=root)))
    assert await port.status("/repo/2.root.json") == "root-role"
    push = Push(targets=signed(room.next_targets(), [targets_key]), checksum=room.checksum())
    await room.work.run(lambda tx: room.pushes.push(tx, room.place, push))
    assert await port.status("/repo/2.root.json") == "200"


async def test_an_image_is_served_whole_in_part_and_behind_its_hash(port: DevicePort) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    for path in (
        "/repo/targets/gateway/app%201+2.bin",
        "/repo/targets/gateway/app%201%2B2.bin",
        f"/repo/targets/gateway/{digest}.app%201+2.bin",
        f"/tuf/targets/gateway/{digest.upper()}.app%201+2.bin",
    ):
        assert await port.body(path) == CONTENT
    path = "/repo/targets/gateway/app%201+2.bin"
    whole = await port.get(path)
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.length_bytes == len(CONTENT)
    part = await port.get(path, range="bytes=100000-")
    assert (part.status, part.headers["content-range"]) == (206, f"bytes 100000-{len(CONTENT) - 1}/{len(CONTENT)}")
    assert await port.body(path, range="bytes=100000-") == CONTENT[100000:]
    assert (await port.get(path, method="HEAD")).stream is None
    with pytest.raises(InvalidRequest) as refused:
        await port.get(path, range=f"bytes={len(CONTENT)}-")
    assert refused.value.subject == "range"


@pytest.mark.parametrize("name", ["none.bin", "gateway/" + "00" * 32 + ".app%201+2.bin", "ab.cd"])
async def test_an_image_under_another_name_or_hash_isnt_there(port: DevicePort, name: str) -> None:
    assert await port.status(f"/repo/targets/{name}") == "target"


async def test_an_image_that_lies_elsewhere_is_found_there_and_one_that_is_pending_nowhere(port: DevicePort) -> None:
    room = port.room
    elsewhere = plan("far.bin", b"far", content_id=None, uri="https://images.example/far.bin")
    await room.work.run(lambda tx: room.images.add_target(tx, room.place, elsewhere))
    answer = await port.get("/repo/targets/far.bin")
    assert (answer.status, answer.headers["location"]) == (302, "https://images.example/far.bin")
    await room.work.run(lambda tx: room.images.delete_target(tx, room.place, "far.bin"))
    assert await port.status("/repo/targets/far.bin") == "target"


async def test_delegated_documents_stand_where_each_kind_of_client_looks(port: DevicePort) -> None:
    room = port.room
    made = delegation("5.vendor", [VENDOR], ["vendor/*"])
    keys = {VENDOR.public_key.id: VENDOR.public_key}
    await room.work.run(lambda tx: room.images.set_delegations(tx, room.place, keys=keys, delegations=[made]))
    file = target_file("vendor/x.bin")
    documents = signed(Targets(version=3, expires=room.in_days(90), targets={"vendor/x.bin": file}), [VENDOR])
    await room.work.run(lambda tx: room.pushes.push(tx, room.place, Push(delegations={"5.vendor": documents})))
    assert await port.body("/repo/delegations/5.vendor.json") == documents[Flavour.UPTANE]
    assert await port.body("/repo/delegations/3.5.vendor.json") == documents[Flavour.UPTANE]
    for path in ("/tuf/5.vendor.json", "/tuf/delegations/5.vendor.json", "/tuf/3.5.vendor.json"):
        assert await port.body(path) == documents[Flavour.TUF]
    assert (await port.get("/repo/targets/vendor/x.bin")).status == 302


async def test_what_devices_ask_for_tells_which_root_they_have(port: DevicePort) -> None:
    room = port.room
    await room.work.run(lambda tx: room.roots.renew(tx, room.place, Repository.IMAGE))
    for version in (1, 2, 3):
        await port.status(f"/repo/{version}.root.json")
    await port.get("/repo/2.root.json", thing="car-2")
    behind = room.read(lambda tx: room.probes.behind(tx, room.account, Repository.IMAGE, 2))
    assert [(probe.thing, probe.client_version) for probe in behind] == [("car-2", 1)]


async def test_what_was_read_while_something_was_published_isnt_kept(port: DevicePort) -> None:
    room = port.room
    port.shelf.evict(room.account)
    read, raced = room.work.read, False

    async def slow_read(query):  # type: ignore[no-untyped-def]
        nonlocal raced
        found = await read(query)
        if not raced:
            raced = True
            await room.work.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-2.bin", b"two")))
        return found

    port.shelf._work = type("Slow", (), {"read": staticmethod(slow_read)})()
    await port.body("/repo/targets.json")
    assert await port.body("/repo/targets.json") == room.document("targets")
