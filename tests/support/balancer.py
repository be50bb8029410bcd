"""One address before several gateways, as a load balancer of the plainest kind gives it: each connection goes to the first that
answers, and what passes is counted."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

CONNECT_TIMEOUT_S = 10.0


class Balancer:
    """On a free port of 127.0.0.1. It sees no more than TLS."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.reached: list[int] = []
        """The port that each connection went to."""
        self.to_devices_bytes = 0
        self._ports = list(ports)
        self._at: tuple[int, Callable[[], None]] | None = None
        self._gate = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def when(self, to_devices_bytes: int, act: Callable[[], None]) -> None:
        """Do something, once, when so many bytes more have gone to devices."""
        self._at = (self.to_devices_bytes + to_devices_bytes, act)

    def close(self) -> None:
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def __enter__(self) -> Balancer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                device, _ = self._listener.accept()
            except OSError:
                return  # closed
            gateway = self._reach()
            if gateway is None:
                device.close()
                continue
            self._open |= {device, gateway}
            threading.Thread(target=self._pass, args=(device, gateway, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(gateway, device, True), daemon=True).start()

    def _reach(self) -> socket.socket | None:
        for port in self._ports:
            with suppress(OSError):
                gateway = socket.create_connection(("127.0.0.1", port), timeout=CONNECT_TIMEOUT_S)
                gateway.settimeout(None)
                self.reached.append(port)
                return gateway
        return None

    def _pass(self, source: socket.socket, target: socket.socket, to_device: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if to_device:
                    self._count(len(data))
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _count(self, size_bytes: int) -> None:
        with self._gate:
            self.to_devices_bytes += size_bytes
            due = self._at if self._at is not None and self.to_devices_bytes >= self._at[0] else None
            if due is not None:
                self._at = None
        if due is not None:
            due[1]()
