"""TLS as a protocol over a plain transport: pyOpenSSL on memory buffers.

It takes any client certificate, or none where the port allows that, and leaves the verdict to whoever reads ``peer_der``
(docs/adr/0003). The application above is an ordinary ``asyncio.Protocol`` that is given a ``TlsTransport``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

import structlog
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

HANDSHAKE_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 10.0
"""How long a peer may take, after a close, to receive what was already written; then it's cut."""
READ_SIZE_BYTES: Final = 64 * 1024
FLUSH_SIZE_BYTES: Final = 256 * 1024 + 16 * 1024
"""A write of 256 KiB with what its records add: it leaves in one piece."""

PEER_CHAIN_LENGTH_MAX: Final = 10
PEER_CHAIN_SIZE_BYTES_MAX: Final = 64 * 1024
"""Of what a peer sends with its certificate, that certificate included. A longer chain is handed up as the certificate alone,
so whoever needs the rest of it finds none."""

logger = structlog.get_logger("overair.listeners")


class TlsTransport(asyncio.Transport):
    """What the application above writes to. Everything in memory goes when the connection does."""

    __slots__ = ("_extra", "_protocol")

    def __init__(self, protocol: TlsProtocol, extra: dict[str, Any]) -> None:
        # The base class keeps a second dictionary that nobody reads; we have our own.
        self._protocol: TlsProtocol | None = protocol
        self._extra = extra

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``peer_der`` (bytes or None), ``peer_chain_der`` (tuple of bytes: the same certificate, then what came with it),
        ``alpn`` (str or None), ``tls_version``, ``sslcontext``, ``server_name``; else the socket's own."""
        if name in self._extra:
            return self._extra[name]
        if name == "server_name":
            return self._protocol.server_name() if self._protocol is not None else default
        plain = self._protocol.plain if self._protocol is not None else None
        return plain.get_extra_info(name, default) if plain is not None else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._protocol is not None:
            self._protocol.write(data)

    def writelines(self, pieces: Any) -> None:
        if self._protocol is not None:
            self._protocol.write_all(pieces)

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        if self._protocol is not None:
            self._protocol.close()

    def abort(self) -> None:
        if self._protocol is not None:
            self._protocol.abort()

    def is_closing(self) -> bool:
        return self._protocol is None or self._protocol.is_closing

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        assert self._protocol.application is not None
        return self._protocol.application

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        if self._protocol is not None:
            assert isinstance(protocol, asyncio.Protocol)
            self._protocol.application = protocol

    def is_reading(self) -> bool:
        return self._protocol is not None and not self._protocol.is_paused

    def pause_reading(self) -> None:
        if self._protocol is not None:
            self._protocol.pause_reading()

    def resume_reading(self) -> None:
        if self._protocol is not None:
            self._protocol.resume_reading()

    def get_write_buffer_size(self) -> int:
        plain = self._protocol.plain if self._protocol is not None else None
        return plain.get_write_buffer_size() if plain is not None else 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        plain = self._protocol.plain if self._protocol is not None else None
        return plain.get_write_buffer_limits() if plain is not None else (0, 0)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        plain = self._protocol.plain if self._protocol is not None else None
        if plain is not None:
            plain.set_write_buffer_limits(high, low)

    def forget(self) -> None:
        """Break the cycle with the protocol, so that a dead connection needs no garbage collector."""
        self._protocol = None


class TlsProtocol(asyncio.Protocol):
    """One connection's TLS, between a plain transport below and an application above.

    ``accept`` is called once the handshake is done, with the transport; it answers the application, whose
    ``connection_made`` is called next. ``ended`` is called exactly once, whatever became of the connection; ``shaken`` when
    the handshake is over, well or badly.
    """

    __slots__ = (
        "_accept",
        "_close_timeout_s",
        "_connection",
        "_ended",
        "_handshake_timeout_s",
        "_is_plain_paused",
        "_shaken",
        "_timer",
        "_transport",
        "application",
        "is_closing",
        "is_paused",
        "plain",
    )

    def __init__(
        self,
        context: SSL.Context,
        accept: Callable[[TlsTransport], asyncio.Protocol],
        *,
        shaken: Callable[[], None],
        ended: Callable[[TlsProtocol], None],
        handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S,
        close_timeout_s: float = CLOSE_TIMEOUT_S,
    ) -> None:
        self._connection: SSL.Connection | None = SSL.Connection(context, None)
        self._connection.set_accept_state()
        self._accept: Callable[[TlsTransport], asyncio.Protocol] | None = accept
        self._shaken: Callable[[], None] | None = shaken
        self._ended = ended
        self._handshake_timeout_s = handshake_timeout_s
        self._close_timeout_s = close_timeout_s
        self._timer: asyncio.TimerHandle | None = None
        self._transport: TlsTransport | None = None
        self.application: asyncio.Protocol | None = None
        self.plain: asyncio.Transport | None = None
        self.is_closing = False
        self.is_paused = False
        self._is_plain_paused = False

    # The plain transport below --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of the standard ones.
        self.plain = cast("asyncio.Transport", transport)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._handshake_timeout_s, self.abort)

    def data_received(self, data: bytes) -> None:
        connection = self._connection
        if connection is None:
            return
        connection.bio_write(data)
        if self._transport is None:
            self._go_on_shaking()
            if self._transport is None:
                return
        self._read()

    def eof_received(self) -> bool:
        # Half-closed peers are gone for our protocols: nothing can be answered without a close_notify anyway.
        return False

    def pause_writing(self) -> None:
        if self.application is not None:
            self.application.pause_writing()

    def resume_writing(self) -> None:
        if self.application is not None:
            self.application.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_closing = True
        self._handshake_over()
        application, transport = self.application, self._transport
        self.application = self._transport = self._connection = self._accept = self.plain = None
        if transport is not None:
            transport.forget()
        try:
            if application is not None:
                application.connection_lost(error)
        finally:
            self._ended(self)

    # The handshake --------------------------------------------------------------------------------------------------------

    def _go_on_shaking(self) -> None:
        assert self._connection is not None
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._flush()
            return
        except SSL.Error as error:
            # A peer that talks something else, or refuses our certificate: everyday noise on an open port.
            logger.debug("handshake failed", error=str(error))
            self._flush()
            self._close_plain()
            return
        self._flush()
        self._handshake_over()
        alpn = self._connection.get_alpn_proto_negotiated()
        try:
            chain_der = _peer_chain_der(self._connection)
        except ValueError as error:
            # OpenSSL reads what is no DER; nobody else has to.
            logger.debug("a peer's certificate can't be read", error=str(error))
            self.abort()
            return
        extra = {
            "peer_der": chain_der[0] if chain_der else None,
            "peer_chain_der": chain_der,
            "alpn": alpn.decode("ascii", "replace") if alpn else None,
            "tls_version": self._connection.get_protocol_version_name(),
            "sslcontext": self._connection.get_context(),
        }
        self._transport = TlsTransport(self, extra)
        accept, self._accept = self._accept, None
        assert accept is not None
        try:
            self.application = accept(self._transport)
            self.application.connection_made(self._transport)
        except Exception:
            logger.exception("a connection could not be taken over")
            self.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _handshake_over(self) -> None:
        self._stop_timer()
        if self._shaken is not None:
            shaken, self._shaken = self._shaken, None
            shaken()

    # Data -----------------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        connection = self._connection
        assert connection is not None
        while not self.is_paused:
            try:
                data = connection.recv(READ_SIZE_BYTES)
            except SSL.WantReadError:
                self._resume_plain()
                break
            except SSL.ZeroReturnError:
                self.close()
                return
            except SSL.Error as error:
                logger.debug("broken TLS record", error=str(error))
                self._flush()
                self.abort()
                return
            application = self.application
            if application is None:
                return
            try:
                application.data_received(data)
            except Exception:
                logger.exception("a protocol failed on what it received")
                self.abort()
                return
            connection = self._connection
            if connection is None:
                return
        self._flush()

    def server_name(self) -> str:
        """The name that the peer has asked for in its handshake, in lower case; empty where it named none. Asked of the
        session each time: most connections never need it."""
        name = None if self._connection is None else self._connection.get_servername()
        return name.decode("ascii", "replace").lower() if name else ""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and pass on at once; the plain transport holds what the peer is too slow for."""
        if self._encrypt(data):
            self._flush()

    def write_all(self, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
        """``write`` for several pieces, passed on together."""
        if all(self._encrypt(piece) for piece in pieces):
            self._flush()

    def _encrypt(self, data: bytes | bytearray | memoryview) -> bool:
        """Whether there is something to pass on, or nothing was to be done; False once the connection ends."""
        connection = self._connection
        if connection is None or self.is_closing:
            return False
        if not data:
            return True
        try:
            # One call encrypts at most one record (16 KiB) and says how much of the data that was.
            sent = connection.send(data)
            if sent < len(data):
                view = memoryview(data)
                while sent < len(view):
                    sent += connection.send(view[sent:])
        except SSL.Error as error:
            logger.debug("writing failed", error=str(error))
            self.abort()
            return False
        return True

    def _flush(self) -> None:
        connection, plain = self._connection, self.plain
        if connection is None or plain is None:
            return
        while True:
            try:
                data = connection.bio_read(FLUSH_SIZE_BYTES)
            except SSL.WantReadError:
                return
            plain.write(data)
            if len(data) < FLUSH_SIZE_BYTES:
                return

    def pause_reading(self) -> None:
        """Stop handing data up; the plain transport stops too, so that the peer feels it."""
        self.is_paused = True
        if not self._is_plain_paused and self.plain is not None and not self.is_closing:
            self._is_plain_paused = True
            self.plain.pause_reading()

    def resume_reading(self) -> None:
        if self.is_paused and self.plain is not None:
            self.is_paused = False
            # What had come before the pause goes up first, but never within the caller's own call. The plain transport
            # goes on only once that is used up: it reads more at once than an application may take between two pauses.
            asyncio.get_running_loop().call_soon(self._read_again)

    def _resume_plain(self) -> None:
        if self._is_plain_paused and self.plain is not None and not self.is_closing:
            self._is_plain_paused = False
            self.plain.resume_reading()

    def _read_again(self) -> None:
        if self._connection is not None and not self.is_paused and not self.is_closing:
            self._read()

    # The end --------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Say goodbye (close_notify) and close once everything written has gone out."""
        if self.is_closing:
            return
        if self._connection is not None and self._transport is not None:
            try:
                self._connection.shutdown()
            except SSL.Error as error:
                logger.debug("no goodbye", error=str(error))
            self._flush()
        self._close_plain()

    def _close_plain(self) -> None:
        self.is_closing = True
        if self.plain is not None:
            self._stop_timer()
            self._timer = asyncio.get_running_loop().call_later(self._close_timeout_s, self.plain.abort)
            self.plain.close()

    def abort(self) -> None:
        """Close at once, dropping what was not sent."""
        self.is_closing = True
        if self.plain is not None:
            self.plain.abort()


def _peer_chain_der(connection: SSL.Connection) -> tuple[bytes, ...]:
    """The peer's certificate, then those that it sent with it, in its order; empty without a certificate."""
    peer = connection.get_peer_certificate(as_cryptography=True)
    if peer is None:
        return ()
    leaf_der = peer.public_bytes(Encoding.DER)
    # On a server's side OpenSSL keeps the peer's own certificate out of its chain.
    sent = connection.get_peer_cert_chain(as_cryptography=True)
    if not sent:
        return (leaf_der,)
    chain_der = (leaf_der, *[certificate.public_bytes(Encoding.DER) for certificate in sent[:PEER_CHAIN_LENGTH_MAX]])
    if len(chain_der) > PEER_CHAIN_LENGTH_MAX or sum(map(len, chain_der)) > PEER_CHAIN_SIZE_BYTES_MAX:
        return (leaf_der,)
    return chain_der
