"""The queue of events: kept until the server has taken them, or until it says that it never will (Uptane reference §3.6)."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from tests.support.aktualizr import jsoncpp
from tests.support.aktualizr.curl import Http
from tests.support.aktualizr.storage import Storage


class ReportQueue:
    def __init__(self, storage: Storage, now: Callable[[], str]) -> None:
        self._storage, self._now = storage, now
        self._limit: int | None = None

    def enqueue(self, kind: str, *, correlation_id: str = "", ecu: str = "", success: bool | None = None, **more: str) -> None:
        event: dict[str, Any] = dict(more)
        if ecu:
            event["ecu"] = ecu
        if correlation_id:
            event["correlationId"] = correlation_id
        if success is not None:
            event["success"] = success
        self._storage.events.append(
            {
                "id": str(uuid.uuid4()),
                "deviceTime": self._now(),
                "eventType": {"id": kind, "version": 0},
                "event": event,
            }
        )

    def flush(self, curl: Http, server_url: str) -> int | None:
        """One POST, if there is something; the status."""
        batch = self._storage.events[: self._limit]
        if not batch:
            return None
        response = curl.post(f"{server_url}/events", jsoncpp.bytes_of(batch))
        is_done = response.is_ok
        if response.status == 404:
            is_done = True  # the server has no such thing
        elif response.status == 413:
            if len(batch) > 1:
                self._limit = len(batch) // 2 if len(batch) > 2 else 1
            else:
                is_done = True  # an event that is too large by itself is dropped
        if is_done:
            del self._storage.events[: len(batch)]
            self._limit = None
        return response.status
