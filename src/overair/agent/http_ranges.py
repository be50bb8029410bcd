"""Ranges of files over HTTPS, with urllib3."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Final

import urllib3

from overair.agent.sources import RangeUnavailable, UrlNoLongerGood
from overair.agent.tls import tls_context

LOG = logging.getLogger("overair.agent")

CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 20.0
STATUSES_FOR_A_NEW_URL: Final = frozenset({400, 403, 404})


class HttpRanges:
    """Implements ``agent.sources.Ranges``. The server must prove itself to the device's CA, or to one trusted for images alone;
    no client certificate is shown, since the URL's signature is the permission."""

    def __init__(self, ca_file: Path, *, images_ca_file: Path | None = None) -> None:
        """``images_ca_file``: authorities of object stores elsewhere. One that can't be read is said so, and trusted is nobody
        but ``ca_file``: updates from here must not depend on it."""
        self._ca_file = ca_file
        self._images_ca_file = images_ca_file
        self._pool = self._new_pool()

    def trust_changed(self) -> None:
        """From now on trust whom the files name now. From any thread; what is under way ends as it began."""
        try:
            self._pool = self._new_pool()
        except OSError as error:
            LOG.warning("the changed authorities can't be used; those from before are trusted: %s", error)

    def _new_pool(self) -> urllib3.PoolManager:
        context = tls_context(self._ca_file)
        if self._images_ca_file is not None:
            try:
                context.load_verify_locations(self._images_ca_file)
            except (OSError, ssl.SSLError) as error:
                LOG.warning("images_ca_file can't be read: %s; images come from servers of ca_file alone", error)
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S)
        return urllib3.PoolManager(ssl_context=context, timeout=timeout, retries=False, maxsize=1)

    def fetch(self, url: str, first_byte: int, last_byte: int) -> bytes:
        if not url.startswith("https://"):
            raise UrlNoLongerGood("Only https addresses are fetched.")
        size = last_byte - first_byte + 1
        try:
            answer = self._pool.request(
                "GET", url, headers={"Range": f"bytes={first_byte}-{last_byte}"}, preload_content=False, redirect=False
            )
            # Never more than asked for, whatever the other side sends. At its end the connection goes back to the pool.
            data = answer.read(size + 1, decode_content=False)
            if answer.length_remaining != 0:
                answer.close()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            # The host alone: the rest of the address is a permission, and goes into no log.
            raise RangeUnavailable(f"{_host(url)}: {error}") from None
        if answer.status in STATUSES_FOR_A_NEW_URL:
            raise UrlNoLongerGood(f"status {answer.status}")
        # Only 206 counts: a whole body in answer to a range would be the wrong bytes for every block but the first.
        told = answer.headers.get("Content-Range", "")
        if answer.status != 206 or len(data) != size or not told.startswith(f"bytes {first_byte}-{last_byte}/"):
            raise RangeUnavailable(f"status {answer.status} with {len(data)} bytes where {size} were asked for")
        return data


def _host(url: str) -> str:
    """Who an address leads to, without what stands before and after it there."""
    return url.removeprefix("https://").partition("/")[0].partition("?")[0].rpartition("@")[2]
