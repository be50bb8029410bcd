"""TLS ports against the standard library's client, on real sockets."""

from __future__ import annotations

import contextlib
import gc
import socket
import ssl
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from overair.server.listeners import acceptor, tls
from overair.server.listeners.tls import TlsProtocol, TlsTransport
from overair.server.listeners.tls_context import ClientCertificate
from tests.support.listening import (
    Echo,
    EventLoopThread,
    client_context,
    context_of,
    loop_thread,
    new_identity,
    tls_listener,
)

BOTH_VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
SERVER = new_identity("server")
DEVICE = new_identity("device")


@pytest.fixture(scope="module")
def thread() -> Iterator[EventLoopThread]:
    with loop_thread() as running:
        yield running


@pytest.fixture
def device_files(tmp_path: Path) -> tuple[str, str]:
    return DEVICE.write(tmp_path)


def connect(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10), server_hostname="localhost")


def speak(port: int, context: ssl.SSLContext) -> None:
    """Connect and say something; TLS 1.3 tells a client without a certificate only when it reads."""
    with connect(port, context) as client:
        client.sendall(b"hello")
        if not client.recv(10):
            raise ConnectionResetError


def read_all(connection: socket.socket, size_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < size_bytes:
        piece = connection.recv(65536)
        if not piece:
            break
        data += piece
    return bytes(data)


@pytest.mark.parametrize("version", BOTH_VERSIONS)
def test_any_certificate_gets_in_and_its_der_is_handed_up(
    thread: EventLoopThread, device_files: tuple[str, str], version: ssl.TLSVersion
) -> None:
    echo = Echo()
    with (
        tls_listener(thread, context_of(SERVER, ClientCertificate.DEMANDED), lambda _: echo) as listener,
        connect(listener.port, client_context(version=version, files=device_files)) as client,
    ):
        data = bytes(range(256)) * 1500
        client.sendall(data)
        assert read_all(client, len(data)) == data
        assert client.version() == version.name.replace("v1_", "v1.")
    assert echo.made == [(DEVICE.certificate_der, None)]
    assert echo.lost.wait(10)


def der_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def write_chain(folder: Path, chain: Sequence[bytes], key: ec.EllipticCurvePrivateKey) -> tuple[str, str]:
    """Files that make the standard library's client send these certificates, as they stand."""
    certificates, key_file = folder / "chain.pem", folder / "key.pem"
    certificates.write_text("".join(ssl.DER_cert_to_PEM_cert(der) for der in chain))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(certificates), str(key_file)


def new_chain(length: int) -> tuple[list[bytes], ec.EllipticCurvePrivateKey]:
    """A leaf and its issuers up to the root, with the leaf's key."""
    issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None = None
    chain: list[bytes] = []
    for number in range(length):
        key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"c{number}")])
        above = issuer or (name, key)
        born = datetime(2026, 1, 1, tzinfo=UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(above[0]).public_key(key.public_key())
        builder = builder.serial_number(number + 1).not_valid_before(born).not_valid_after(born + timedelta(days=3650))
        chain.insert(0, der_of(builder.sign(above[1], hashes.SHA256())))
        issuer = (name, key)
    assert issuer is not None
    return chain, issuer[1]


@pytest.mark.parametrize("version", BOTH_VERSIONS)
@pytest.mark.parametrize("length", [1, 2, 5, tls.PEER_CHAIN_LENGTH_MAX])
def test_the_whole_chain_is_handed_up_as_the_peer_sent_it(
    thread: EventLoopThread, tmp_path: Path, version: ssl.TLSVersion, length: int
) -> None:
    chain, key = new_chain(length)
    files = write_chain(tmp_path, chain, key)
    assert told_of(thread, client_context(version=version, files=files)) == (chain[0], tuple(chain))


def test_a_chain_beyond_the_bound_is_handed_up_as_its_leaf_alone(thread: EventLoopThread, tmp_path: Path) -> None:
    chain, key = new_chain(tls.PEER_CHAIN_LENGTH_MAX + 1)
    files = write_chain(tmp_path, chain, key)
    assert told_of(thread, client_context(files=files)) == (chain[0], (chain[0],))


def test_no_certificate_is_an_empty_chain(thread: EventLoopThread) -> None:
    assert told_of(thread, client_context()) == (None, ())


def told_of(thread: EventLoopThread, context: ssl.SSLContext) -> tuple[bytes | None, tuple[bytes, ...]]:
    """What the application above hears of the peer's certificates."""
    echo, told = Echo(), []

    def accept(transport: TlsTransport) -> Echo:
        told.append((transport.get_extra_info("peer_der"), transport.get_extra_info("peer_chain_der")))
        return echo

    with tls_listener(thread, context_of(SERVER), accept) as listener, connect(listener.port, context) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    return told[0]


def test_a_certificate_that_only_openssl_can_read_ends_its_connection_and_no_other(
    thread: EventLoopThread, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its inner length takes a byte more than DER allows."""
    (leaf,), key = new_chain(1)
    assert (leaf[:2], leaf[4:6]) == (b"\x30\x82", b"\x30\x81")
    longer = b"\x30\x82" + (int.from_bytes(leaf[2:4], "big") + 1).to_bytes(2, "big") + b"\x30\x82\x00" + leaf[6:]
    context = client_context(version=ssl.TLSVersion.TLSv1_2, files=write_chain(tmp_path, [longer], key))
    with tls_listener(thread, context_of(SERVER), lambda _: Echo()) as listener:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            speak(listener.port, context)
        speak(listener.port, client_context())
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


@pytest.mark.parametrize("version", BOTH_VERSIONS)
def test_a_port_that_demands_a_certificate_refuses_a_client_without(thread: EventLoopThread, version: ssl.TLSVersion) -> None:
    echo = Echo()
    with tls_listener(thread, context_of(SERVER, ClientCertificate.DEMANDED), lambda _: echo) as listener:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            speak(listener.port, client_context(version=version))
        assert echo.made == []


@pytest.mark.parametrize("asks", [ClientCertificate.NOT_ASKED, ClientCertificate.ASKED])
def test_other_ports_let_a_client_in_without_one(thread: EventLoopThread, asks: ClientCertificate) -> None:
    echo = Echo()
    with (
        tls_listener(thread, context_of(SERVER, asks), lambda _: echo) as listener,
        connect(listener.port, client_context()) as client,
    ):
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    assert echo.made == [(None, None)]


@pytest.mark.parametrize("version", BOTH_VERSIONS)
@pytest.mark.parametrize(("asked", "told"), [("Fleet.Example.com", "fleet.example.com"), (None, "")])
def test_the_name_that_a_peer_asks_for_is_known(
    thread: EventLoopThread, version: ssl.TLSVersion, asked: str | None, told: str
) -> None:
    names: list[str] = []

    class Asking(Echo):
        def data_received(self, data: bytes) -> None:
            names.append(self.transport.get_extra_info("server_name"))
            super().data_received(data)

    with tls_listener(thread, context_of(SERVER), lambda _transport: Asking()) as listener:
        raw = socket.create_connection(("127.0.0.1", listener.port), timeout=10)
        with client_context(version=version).wrap_socket(raw, server_hostname=asked) as client:
            client.sendall(b"hello")
            assert client.recv(10) == b"hello"
    assert names == [told]


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (("x-amzn-mqtt-ca",), "x-amzn-mqtt-ca"),
        (("mqtt",), "mqtt"),
        (("http/1.1", "x-amzn-mqtt-ca"), "x-amzn-mqtt-ca"),
        (("x-amzn-http-ca",), "x-amzn-http-ca"),
        (("h2",), None),
    ],
)
def test_alpn_is_chosen_by_the_servers_preference(
    thread: EventLoopThread, offered: tuple[str, ...], chosen: str | None
) -> None:
    echo = Echo()
    with (
        tls_listener(thread, context_of(SERVER), lambda _: echo) as listener,
        connect(listener.port, client_context(alpn=offered)) as client,
    ):
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert client.selected_alpn_protocol() == chosen
    assert echo.made == [(None, chosen)]


@pytest.mark.parametrize("version", BOTH_VERSIONS)
def test_no_session_can_be_resumed(thread: EventLoopThread, version: ssl.TLSVersion) -> None:
    context = client_context(version=version)
    with tls_listener(thread, context_of(SERVER), lambda _: Echo()) as listener:
        with connect(listener.port, context) as first:
            first.sendall(b"x")
            assert first.recv(1) == b"x"
            session = first.session
        raw = socket.create_connection(("127.0.0.1", listener.port), timeout=10)
        with context.wrap_socket(raw, server_hostname="localhost", session=session) as second:
            second.sendall(b"x")
            assert second.recv(1) == b"x"
            assert not second.session_reused


def test_old_versions_and_garbage_are_turned_away_and_the_port_lives_on(thread: EventLoopThread) -> None:
    with tls_listener(thread, context_of(SERVER), lambda _: Echo()) as listener:
        for noise in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00",
            bytes(600),
            b"\x16\x03\x01\xff\xff",
        ):
            with socket.create_connection(("127.0.0.1", listener.port), timeout=10) as peer:
                peer.sendall(noise)
                peer.shutdown(socket.SHUT_WR)
                read_all(peer, 1 << 20)
        with connect(listener.port, client_context()) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"


def test_a_slow_handshake_is_cut(thread: EventLoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    original = TlsProtocol.__init__

    def impatient(self: TlsProtocol, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named, handshake_timeout_s=0.1)

    monkeypatch.setattr(TlsProtocol, "__init__", impatient)
    with (
        tls_listener(thread, context_of(SERVER), lambda _: Echo()) as listener,
        socket.create_connection(("127.0.0.1", listener.port), timeout=10) as peer,
    ):
        peer.sendall(b"\x16\x03\x01")
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(100) == b""
        assert thread.call(lambda: listener.connection_count) == 0


def test_peers_that_say_nothing_keep_nobody_out(thread: EventLoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """All places for handshakes are taken by silent peers, who have ten seconds each: others get in all the same."""
    monkeypatch.setattr(acceptor, "HANDSHAKES_AT_ONCE_MAX", 4)
    monkeypatch.setattr(acceptor, "HANDSHAKE_PATIENCE_S", 0.05)
    with (
        tls_listener(thread, context_of(SERVER), lambda _: Echo()) as listener,
        contextlib.ExitStack() as silent,
    ):
        address = ("127.0.0.1", listener.port)
        peers = [silent.enter_context(socket.create_connection(address, timeout=10)) for _ in range(12)]
        with connect(listener.port, client_context()) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        with contextlib.suppress(ConnectionResetError):
            assert peers[0].recv(1) == b""


def test_a_handshake_may_take_its_time_while_there_is_room(thread: EventLoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "HANDSHAKES_AT_ONCE_MAX", 4)
    monkeypatch.setattr(acceptor, "HANDSHAKE_PATIENCE_S", 0.0)
    with (
        tls_listener(thread, context_of(SERVER), lambda _: Echo()) as listener,
        socket.create_connection(("127.0.0.1", listener.port), timeout=10) as slow,
    ):
        for _ in range(8):
            with connect(listener.port, client_context()) as client:
                client.sendall(b"x")
                assert client.recv(1) == b"x"
        with client_context().wrap_socket(slow, server_hostname="localhost") as late:
            late.sendall(b"y")
            assert late.recv(1) == b"y"


def test_a_new_context_serves_those_who_come_after(thread: EventLoopThread) -> None:
    renewed = new_identity("renewed")
    with (
        tls_listener(thread, context_of(SERVER), lambda _: Echo()) as listener,
        connect(listener.port, client_context()) as before,
    ):
        listener.context = context_of(renewed)
        with connect(listener.port, client_context()) as after:
            assert after.getpeercert(binary_form=True) == renewed.certificate_der
        before.sendall(b"still here")
        assert read_all(before, 10) == b"still here"
        assert before.getpeercert(binary_form=True) == SERVER.certificate_der


def test_close_says_goodbye_after_all_that_was_written(thread: EventLoopThread) -> None:
    class Farewell(Echo):
        def data_received(self, data: bytes) -> None:
            self.transport.write(b"y" * 3_000_000)
            self.transport.close()
            self.transport.write(b"after the end")

    with (
        tls_listener(thread, context_of(SERVER), lambda _: Farewell()) as listener,
        connect(listener.port, client_context()) as client,
    ):
        client.sendall(b"x")
        assert read_all(client, 3_000_001) == b"y" * 3_000_000
        assert client.recv(1) == b""  # close_notify: a bare end of file would be an error here


def test_a_reader_that_stalls_after_the_close_is_cut(thread: EventLoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    original = TlsProtocol.__init__

    def impatient(self: TlsProtocol, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named, close_timeout_s=0.1)

    monkeypatch.setattr(TlsProtocol, "__init__", impatient)
    echo = Echo()
    echo.data_received = lambda _: (echo.transport.write(bytes(50_000_000)), echo.transport.close())  # type: ignore[method-assign]
    with (
        tls_listener(thread, context_of(SERVER), lambda _: echo) as listener,
        connect(listener.port, client_context()) as client,
    ):
        client.sendall(b"x")
        assert echo.lost.wait(10)


def test_a_slow_reader_makes_the_writer_wait(thread: EventLoopThread) -> None:
    class Pourer(Echo):
        paused = 0

        def data_received(self, data: bytes) -> None:
            self.left = 200
            self.resume_writing()

        def pause_writing(self) -> None:
            self.paused += 1
            self.waits = True

        def resume_writing(self) -> None:
            self.waits = False
            while self.left and not self.waits:
                self.left -= 1
                self.transport.write(bytes(100_000))

    pourer = Pourer()
    with (
        tls_listener(thread, context_of(SERVER), lambda _: pourer) as listener,
        connect(listener.port, client_context()) as client,
    ):
        client.sendall(b"x")
        assert len(read_all(client, 20_000_000)) == 20_000_000
    assert pourer.paused > 0


def test_what_comes_while_reading_is_paused_waits_for_the_resumption(thread: EventLoopThread) -> None:
    class Sipper(Echo):
        def connection_made(self, transport: TlsTransport) -> None:
            super().connection_made(transport)
            self.sips: list[int] = []

        def data_received(self, data: bytes) -> None:
            self.sips.append(len(data))
            self.transport.pause_reading()
            self.transport.write(data)
            thread.loop.call_later(0.001, self.transport.resume_reading)

    sipper = Sipper()
    with (
        tls_listener(thread, context_of(SERVER), lambda _: sipper) as listener,
        connect(listener.port, client_context()) as client,
    ):
        data = bytes(range(250)) * 1000
        client.sendall(data)
        assert read_all(client, len(data)) == data
    assert len(sipper.sips) > 3


def test_a_slow_taker_holds_the_sender_back_and_piles_nothing_up(thread: EventLoopThread) -> None:
    class Taker(Echo):
        taken_bytes = 0
        deliveries = 0

        def data_received(self, data: bytes) -> None:
            self.taken_bytes += len(data)
            self.deliveries += 1
            self.transport.pause_reading()
            if self.deliveries < 200:
                thread.loop.call_later(0.0005, self.transport.resume_reading)

    taker = Taker()
    sent_bytes = 0
    with (
        tls_listener(thread, context_of(SERVER), lambda _: taker) as listener,
        connect(listener.port, client_context()) as client,
    ):
        client.settimeout(1.0)
        piece = bytes(65536)
        with contextlib.suppress(TimeoutError, ssl.SSLError):
            while sent_bytes < 60_000_000:
                client.sendall(piece)
                sent_bytes += len(piece)
    assert taker.deliveries == 200
    assert sent_bytes - taker.taken_bytes < 16_000_000, "more than the kernel's own buffers was taken in"


def test_a_protocol_that_fails_ends_its_own_connection_only(thread: EventLoopThread) -> None:
    class Clumsy(Echo):
        def data_received(self, data: bytes) -> None:
            raise ZeroDivisionError

    with tls_listener(thread, context_of(SERVER), lambda _: Clumsy()) as listener:
        with connect(listener.port, client_context()) as client:
            client.sendall(b"x")
            with contextlib.suppress(ConnectionResetError, ssl.SSLError):
                assert client.recv(1) == b""
        assert thread.call(lambda: listener.connection_count) == 0
        with connect(listener.port, client_context()):
            pass


def test_connections_that_come_and_go_leave_nothing_behind(thread: EventLoopThread) -> None:
    echo_count = 60
    gc.collect()
    gc.disable()
    try:
        with tls_listener(thread, context_of(SERVER), lambda _: Echo()) as listener:
            for _ in range(echo_count):
                with connect(listener.port, client_context()) as client:
                    client.sendall(b"x")
                    assert client.recv(1) == b"x"
                    client.unwrap()
            for _ in range(500):
                if thread.call(lambda: listener.connection_count) == 0:
                    break
            assert thread.call(lambda: listener.connection_count) == 0
        thread.call(lambda: None)
        alive = [each for each in gc.get_objects() if type(each) is TlsProtocol or type(each) is TlsTransport]
        assert len(alive) <= 2, "dead connections wait for the garbage collector"
    finally:
        gc.enable()
