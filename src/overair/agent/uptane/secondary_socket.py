"""Primary and Secondary over a Unix-domain socket: frames of CBOR, one answer for each request.

A frame is four bytes of length, most significant first, and one CBOR map of at most ``FRAME_SIZE_BYTES_MAX`` bytes. A request
is ``{"op": NAME, …}``, an answer ``{"ok": true, …}`` or ``{"ok": false, "reason": NAME or "", "message": TEXT}``. What may be
asked stands in docs/device.md. Whoever may open the socket may speak: its folder decides. The Secondary believes nothing that
it isn't shown signatures for.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import cbor2

from overair.agent.uptane.secondaries import Bundle, SecondaryAway, SecondaryIdentity, SecondaryPort, SecondaryRefuses
from overair.agent.uptane.settings import Verification
from overair.basics.clock import Instant
from overair.wire import strict_cbor
from overair.wire.uptane.keys import read_public_key
from overair.wire.uptane.metadata import TARGETS_SIZE_BYTES_MAX, Repository
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.reports import InstallationResult

LOG = logging.getLogger("overair.uptane.secondary")

PROTOCOL: Final = 1
FRAME_SIZE_BYTES_MAX: Final = 4 * TARGETS_SIZE_BYTES_MAX
ANSWER_TIMEOUT_S: Final = 60.0
INSTALL_TIMEOUT_S: Final = 3600.0
REQUEST_TIMEOUT_S: Final = 300.0
"""A connection on which a Secondary hears nothing for so long is closed."""
CONNECTIONS_MAX: Final = 4
ADDRESS_SIZE_BYTES_MAX: Final = 107
"""Of ``sun_path`` without its NUL (unix(7))."""


class SocketSecondaryPort:
    """Implements ``SecondaryPort`` towards a Secondary behind a socket. One connection for each request: a Secondary that
    restarts in between is simply there again."""

    def __init__(self, path: Path, *, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._path = path
        self._timeout_s = answer_timeout_s

    def describe(self) -> SecondaryIdentity:
        answer = self._ask({"op": "describe", "protocol": PROTOCOL})
        try:
            return SecondaryIdentity(
                serial=_text(answer, "serial"),
                hardware_id=_text(answer, "hardware_id"),
                key=read_public_key(answer.get("key")),
                verification=Verification(_text(answer, "verification")),
                roots={Repository(str(name)): int(version) for name, version in dict(answer["roots"]).items()},
            )
        except (KeyError, ValueError, TypeError, MetadataRefused) as error:
            raise SecondaryAway(f"{self._path} describes itself in a way that can't be read: {error}") from None

    def report(self) -> bytes:
        document = self._ask({"op": "report"}).get("document")
        if not isinstance(document, bytes):
            raise SecondaryAway(f"{self._path} answers without a report.")
        return document

    def put_metadata(self, bundle: Bundle, now: Instant) -> None:
        documents = {repository.value: dict(files) for repository, files in bundle.items()}
        self._ask({"op": "put_metadata", "documents": documents, "now": int(now)})

    def begin_image(self, name: str, length: int) -> int:
        offset = self._ask({"op": "begin_image", "name": name, "length": length}).get("offset")
        if not isinstance(offset, int) or not 0 <= offset <= length:
            raise SecondaryAway(f"{self._path} asks for the image from {offset!r} on.")
        return offset

    def write_image(self, offset: int, data: bytes) -> None:
        self._ask({"op": "write_image", "offset": offset, "data": data})

    def install(self) -> InstallationResult:
        answer = self._ask({"op": "install"}, timeout_s=INSTALL_TIMEOUT_S)
        success = answer.get("success")
        if not isinstance(success, bool):
            raise SecondaryAway(f"{self._path} doesn't say how the installation ended.")
        return InstallationResult(success=success, code=_text(answer, "code"), description=_text(answer, "description"))

    def _ask(self, request: Mapping[str, object], *, timeout_s: float | None = None) -> Mapping[Any, Any]:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(timeout_s or self._timeout_s)
                with _address(self._path) as address:
                    connection.connect(address)
                send(connection, request)
                answer = receive(connection)
        except FrameTooLarge as error:
            raise SecondaryRefuses(Reason.OVERSIZED, str(error)) from None
        except (OSError, strict_cbor.MalformedCbor, EOFError) as error:
            raise SecondaryAway(f"{self._path}: {error}") from None
        if answer.get("ok") is True:
            return answer
        name, message = str(answer.get("reason", "")), str(answer.get("message", ""))[:1000]
        raise SecondaryRefuses(Reason(name) if name in set(Reason) else None, message)


class SecondaryServer:
    """Answers for one Secondary until stopped."""

    def __init__(self, secondary: SecondaryPort, path: Path) -> None:
        self._secondary = secondary
        self._path = path
        self._turn = threading.Lock()
        self._slots = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        _remove_stale(path)
        with _address(path) as address:
            self._listener.bind(address)
        path.chmod(0o600)
        self._listener.listen(CONNECTIONS_MAX)

    def run(self) -> None:
        """Serve; returns after ``stop``, when the socket is gone."""
        try:
            while True:
                try:
                    connection, _ = self._listener.accept()
                except OSError:
                    return
                self._slots.acquire()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        finally:
            self._path.unlink(missing_ok=True)
            self._listener.close()

    def stop(self) -> None:
        """End ``run``; from any thread."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(REQUEST_TIMEOUT_S)
                while True:
                    request = receive(connection)
                    with self._turn:
                        answer = self._answer(request)
                    send(connection, answer)
        except (OSError, EOFError):
            return
        except strict_cbor.MalformedCbor as error:
            LOG.warning("a request can't be read: %s", error)
        finally:
            self._slots.release()

    def _answer(self, request: Mapping[Any, Any]) -> dict[str, object]:
        operation = _OPERATIONS.get(str(request.get("op")))
        if operation is None:
            return {"ok": False, "reason": "", "message": f"There is no operation {str(request.get('op'))[:40]!r}."}
        try:
            return {"ok": True, **operation(self._secondary, request)}
        except SecondaryRefuses as error:
            return {"ok": False, "reason": error.reason.value if error.reason else "", "message": error.message}
        except (KeyError, ValueError, TypeError) as error:
            return {"ok": False, "reason": "", "message": f"The request can't be read: {error}"}
        except OSError as error:
            return {"ok": False, "reason": "", "message": f"The disk fails: {error.strerror}"}


def _describe(secondary: SecondaryPort, request: Mapping[Any, Any]) -> dict[str, object]:
    if request["protocol"] != PROTOCOL:
        raise ValueError(f"protocol {request['protocol']!r}; this Secondary speaks {PROTOCOL}")
    identity = secondary.describe()
    return {
        "serial": identity.serial,
        "hardware_id": identity.hardware_id,
        "key": identity.key.to_json(),
        "verification": identity.verification.value,
        "roots": {repository.value: version for repository, version in identity.roots.items()},
    }


def _report(secondary: SecondaryPort, request: Mapping[Any, Any]) -> dict[str, object]:
    return {"document": secondary.report()}


def _put_metadata(secondary: SecondaryPort, request: Mapping[Any, Any]) -> dict[str, object]:
    bundle: dict[Repository, dict[str, bytes]] = {}
    for repository, files in dict(request["documents"]).items():
        if not all(isinstance(name, str) and isinstance(data, bytes) for name, data in dict(files).items()):
            raise ValueError("documents are bytes by name")
        bundle[Repository(str(repository))] = dict(files)
    now = request["now"]
    if type(now) is not int:
        raise ValueError("now is a number")
    secondary.put_metadata(bundle, Instant(now))
    return {}


def _begin_image(secondary: SecondaryPort, request: Mapping[Any, Any]) -> dict[str, object]:
    return {"offset": secondary.begin_image(str(request["name"]), int(request["length"]))}


def _write_image(secondary: SecondaryPort, request: Mapping[Any, Any]) -> dict[str, object]:
    data = request["data"]
    if not isinstance(data, bytes):
        raise TypeError("data is bytes")
    secondary.write_image(int(request["offset"]), data)
    return {}


def _install(secondary: SecondaryPort, request: Mapping[Any, Any]) -> dict[str, object]:
    result = secondary.install()
    return {"success": result.success, "code": result.code, "description": result.description}


_OPERATIONS: Final[Mapping[str, Callable[[SecondaryPort, Mapping[Any, Any]], dict[str, object]]]] = {
    "describe": _describe,
    "report": _report,
    "put_metadata": _put_metadata,
    "begin_image": _begin_image,
    "write_image": _write_image,
    "install": _install,
}


class FrameTooLarge(Exception):
    """A message has more bytes than a frame may."""


def send(connection: socket.socket, message: Mapping[str, object]) -> None:
    """One frame.

    Raises:
        FrameTooLarge, OSError
    """
    data = cbor2.dumps(message)
    if len(data) > FRAME_SIZE_BYTES_MAX:
        raise FrameTooLarge(f"A frame has at most {FRAME_SIZE_BYTES_MAX} bytes, not {len(data)}.")
    connection.sendall(len(data).to_bytes(4, "big") + data)


def receive(connection: socket.socket) -> Mapping[Any, Any]:
    """One frame.

    Raises:
        EOFError: the other side is gone.
        MalformedCbor: no map, or too long.
    """
    length = int.from_bytes(_exactly(connection, 4), "big")
    if length > FRAME_SIZE_BYTES_MAX:
        raise strict_cbor.MalformedCbor(f"A frame of {length} bytes; at most {FRAME_SIZE_BYTES_MAX} are read.")
    return strict_cbor.decode_map(_exactly(connection, length), size_bytes_max=FRAME_SIZE_BYTES_MAX)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = connection.recv(min(1 << 20, count - len(data)))
        if not piece:
            raise EOFError("the other side has closed the connection")
        data += piece
    return bytes(data)


def _text(answer: Mapping[Any, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or len(value) > 4096:
        raise SecondaryAway(f"The Secondary's answer has no {name}.")
    return value


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """The socket's name for the kernel, which takes few bytes (unix(7)): a longer path is named through its open folder.

    Raises:
        OSError: there is no such folder.
    """
    if len(os.fsencode(path)) <= ADDRESS_SIZE_BYTES_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _remove_stale(path: Path) -> None:
    """A socket that a process left behind, and nothing else."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
