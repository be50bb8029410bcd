"""TUF's own client, unmodified, over mutual TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import urllib3
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

CHUNK_SIZE_BYTES = 64 * 1024


class DevicePort(FetcherInterface):
    """HTTPS with a device's certificate, trusting the server's CA alone."""

    def __init__(self, **tls: str) -> None:
        self._pool = urllib3.PoolManager(cert_reqs="CERT_REQUIRED", retries=False, timeout=30.0, **tls)
        self.asked: list[str] = []

    def _fetch(self, url: str) -> Iterator[bytes]:
        answer = self._pool.request("GET", url, preload_content=False)
        self.asked.append(url.rpartition("/tuf/")[2])
        if answer.status >= 400:
            answer.drain_conn()
            raise DownloadHTTPError(f"{url}: {answer.status}", answer.status)
        return self._pieces(answer)

    @staticmethod
    def _pieces(answer: Any) -> Iterator[bytes]:
        yield from answer.stream(CHUNK_SIZE_BYTES)
        answer.release_conn()


def updater(folder: Path, url: str, fetcher: FetcherInterface, bootstrap: bytes) -> Updater:
    """A client whose files lie in ``folder``. ``url`` ends with a slash; ``bootstrap`` is the first root that it trusts."""
    (folder / "metadata").mkdir(parents=True, exist_ok=True)
    (folder / "images").mkdir(exist_ok=True)
    return Updater(
        metadata_dir=str(folder / "metadata"),
        metadata_base_url=url,
        target_dir=str(folder / "images"),
        target_base_url=f"{url}targets/",
        fetcher=fetcher,
        bootstrap=bootstrap,
    )


def download(client: Updater, name: str) -> bytes | None:
    """The image by name, or None where no document that is believed lists it."""
    client.refresh()
    found = client.get_targetinfo(name)
    return None if found is None else Path(client.download_target(found)).read_bytes()
