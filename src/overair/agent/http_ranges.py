"""Ranges of files over HTTPS, with urllib3."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

import urllib3

from overair.agent.sources import RangeUnavailable, UrlNoLongerGood

CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 20.0
STATUSES_FOR_A_NEW_URL: Final = frozenset({400, 403, 404})


class HttpRanges:
    """Implements ``agent.sources.Ranges``. The server must prove itself to the device's CA; no client certificate is shown,
    since the URL's signature is the permission."""

    def __init__(self, ca_file: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(ca_file)
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S)
        self._pool = urllib3.PoolManager(ssl_context=context, timeout=timeout, retries=False, maxsize=1)

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
            raise RangeUnavailable(str(error)) from None
        if answer.status in STATUSES_FOR_A_NEW_URL:
            raise UrlNoLongerGood(f"status {answer.status}")
        # Only 206 counts: a whole body in answer to a range would be the wrong bytes for every block but the first.
        told = answer.headers.get("Content-Range", "")
        if answer.status != 206 or len(data) != size or not told.startswith(f"bytes {first_byte}-{last_byte}/"):
            raise RangeUnavailable(f"status {answer.status} with {len(data)} bytes where {size} were asked for")
        return data
