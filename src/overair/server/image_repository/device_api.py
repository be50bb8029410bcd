"""Devices' paths of the Image repository: ``/repo/`` as aktualizr reads it, ``/tuf/`` as TUF's clients do.

Uptane reference §3.5, §7. Each document also under the name with its version, images also behind their hash (§8.1, Standard
5.2.7).
"""

from __future__ import annotations

import re
from typing import Final

from overair.basics.errors import NotFound
from overair.server.image_repository.serving import Shelf, image_answer
from overair.server.objects.contents import ContentStore
from overair.server.rest.operations import DeviceCaller, RestAnswer, RestRequest, device_route
from overair.server.roots.probes import RootProbes
from overair.wire.uptane.canonical import VERSION_MAX
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role

METADATA: Final = "overair:ImageRepositoryGetMetadata"
IMAGE: Final = "overair:ImageRepositoryGetImage"
_VERSIONED: Final = re.compile(r"(\d{1,10})\.(.+)", re.ASCII)


class ImageRepositoryDeviceApi:
    """Reads only. Everything is public to whoever may call the path."""

    def __init__(self, *, shelf: Shelf, probes: RootProbes, contents: ContentStore) -> None:
        self._shelf = shelf
        self._probes = probes
        self._contents = contents

    @device_route("GET", "/repo/{document}", action=METADATA)
    async def uptane_document(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        """``root.json``, ``7.root.json``, ``timestamp.json``, ``snapshot.json``, ``targets.json``, ``14.targets.json``."""
        return await self._document(device, request.labels["document"], Flavour.UPTANE)

    @device_route("GET", "/repo/delegations/{document}", action=METADATA)
    async def uptane_delegation(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        return await self._delegation(device, request.labels["document"], Flavour.UPTANE)

    @device_route("GET", "/repo/targets/{name:path}", action=IMAGE)
    async def uptane_image(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        return await self._image(device, request)

    @device_route("GET", "/tuf/{document}", action=METADATA)
    async def tuf_document(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        """Delegated roles too: TUF's clients look for them beside the others."""
        return await self._document(device, request.labels["document"], Flavour.TUF)

    @device_route("GET", "/tuf/delegations/{document}", action=METADATA)
    async def tuf_delegation(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        return await self._delegation(device, request.labels["document"], Flavour.TUF)

    @device_route("GET", "/tuf/targets/{name:path}", action=IMAGE)
    async def tuf_image(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        return await self._image(device, request)

    async def _document(self, device: DeviceCaller, document: str, flavour: Flavour) -> RestAnswer:
        role, version = _named(document)
        if role == Role.ROOT:
            return await self._root(device, version, flavour)
        return RestAnswer(body=await self._read(device, document, role, version, flavour))

    async def _delegation(self, device: DeviceCaller, document: str, flavour: Flavour) -> RestAnswer:
        role, version = _named(document)
        if role in set(Role):
            raise NotFound(f"There is no delegation {role}.", subject="role")
        return RestAnswer(body=await self._read(device, document, role, version, flavour))

    async def _read(self, device: DeviceCaller, document: str, role: str, version: int | None, flavour: Flavour) -> bytes:
        if version is None:
            return await self._shelf.document(device.account, role, flavour)
        try:
            # A delegation may be called 5.vendor.
            return await self._shelf.document(device.account, document.removesuffix(".json"), flavour)
        except NotFound:
            return await self._shelf.document(device.account, role, flavour, version)

    async def _root(self, device: DeviceCaller, version: int | None, flavour: Flavour) -> RestAnswer:
        if version is not None and flavour is Flavour.UPTANE:
            newest = await self._shelf.newest_root(device.account, flavour)
            await self._probes.note(device.account, Repository.IMAGE, device.thing, version, newest_version=newest)
        return RestAnswer(body=await self._shelf.root(device.account, version, flavour))

    async def _image(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        target = await self._shelf.image(device.account, request.labels["name"])
        return image_answer(request, target, self._contents)


def _named(document: str) -> tuple[str, int | None]:
    """``7.root.json`` → (``root``, 7).

    Raises:
        NotFound: with subject ``role``.
    """
    if not document.endswith(".json"):
        raise NotFound("Documents of the Image repository are called NAME.json.", subject="role")
    name = document.removesuffix(".json")
    found = _VERSIONED.fullmatch(name)
    if found is None:
        return name, None
    # A number that no document can have is one that isn't there.
    return found[2], min(int(found[1]), VERSION_MAX + 1)
