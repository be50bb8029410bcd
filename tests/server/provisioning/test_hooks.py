"""Pre-provisioning hooks: whoever answers late, badly or not at all denies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from overair.basics.clock import SettableClock
from overair.basics.errors import AccessDenied, InvalidRequest
from overair.basics.ids import SeededIds
from overair.basics.redacted import Redacted
from overair.server.provisioning.hooks import SIGNATURE_HEADER, HookAddress, Hooks, read_hooks, signature

ARN = "arn:aws:lambda:us-east-1:123456789012:function:gate"
YES = b'{"allowProvisioning": true, "parameterOverrides": {"a": "b"}}'


async def asked(clock: SettableClock, answer: bytes | None, *, timeout_s: float = 20.0) -> dict[str, str]:
    """What a hook's answer comes to; None: it never answers."""
    silent = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await silent.wait()
        else:
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    address = HookAddress(url=f"http://127.0.0.1:{port}/", secret=Redacted("s" * 16))
    try:
        return dict(
            (await Hooks({ARN: address}, clock=clock, ids=SeededIds(1), timeout_s=timeout_s).ask(ARN, {})).parameter_overrides
        )
    finally:
        silent.set()
        server.close()


async def test_an_answer_that_allows_brings_its_parameters(clock: SettableClock) -> None:
    assert await asked(clock, b"HTTP/1.1 200 OK\r\n\r\n" + YES) == {"a": "b"}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nothing of HTTP",
        b"HTTP/1.1 500 Oh\r\n\r\n" + YES,
        b"HTTP/1.1 302 Elsewhere\r\nLocation: https://elsewhere.example\r\n\r\n" + YES,
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n[]",
        b'HTTP/1.1 200 OK\r\n\r\n{"allowProvisioning": "true"}',
        b'HTTP/1.1 200 OK\r\n\r\n{"allowProvisioning": false}',
        b'HTTP/1.1 200 OK\r\n\r\n{"allowProvisioning": true, "parameterOverrides": {"a": 1}}',
        b"HTTP/1.1 200 OK\r\n\r\n" + YES + b" " * 70_000,
    ],
    ids=range(10),
)
async def test_every_other_answer_denies(clock: SettableClock, answer: bytes) -> None:
    with pytest.raises(AccessDenied):
        await asked(clock, answer)


async def test_silence_denies(clock: SettableClock) -> None:
    with pytest.raises(AccessDenied):
        await asked(clock, None, timeout_s=0.2)


async def test_a_hook_that_is_not_known_or_not_there_denies(clock: SettableClock) -> None:
    with pytest.raises(AccessDenied):
        await Hooks({}, clock=clock, ids=SeededIds(1)).ask(ARN, {})
    nobody = HookAddress(url="http://127.0.0.1:1/", secret=Redacted("s" * 16))
    with pytest.raises(AccessDenied):
        await Hooks({ARN: nobody}, clock=clock, ids=SeededIds(1)).ask(ARN, {})


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[", "TOML"),
        ('["gate"]\nurl = "https://x"', "ARN"),
        (f'["{ARN}"]\nurl = "http://hooks.example/"\nsecret = "{"s" * 16}"', "http:// only on this machine"),
        (f'["{ARN}"]\nurl = "https://u:p@hooks.example/"\nsecret = "{"s" * 16}"', "url"),
        (f'["{ARN}"]\nurl = "https://hooks.example/"\nsecret = "short"', "secret"),
        (f'["{ARN}"]\nurl = "https://hooks.example/"\nsecret = "{"s" * 16}"\nmethod = "PUT"', "nothing else"),
    ],
)
def test_a_file_of_hooks_that_is_wrong_is_refused(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "provisioning-hooks.toml"
    path.touch(mode=0o600)
    path.write_text(text)
    with pytest.raises(InvalidRequest, match=word):
        read_hooks(path)


def test_a_file_of_hooks_is_its_owners_alone_and_needn_t_be_there(tmp_path: Path) -> None:
    path = tmp_path / "provisioning-hooks.toml"
    assert read_hooks(path) == {}
    path.touch(mode=0o600)
    path.write_text(f'["{ARN}"]\nurl = "https://hooks.example/ask"\nsecret = "{"s" * 16}"\n')
    assert read_hooks(path)[ARN].url == "https://hooks.example/ask"
    assert "s" * 16 not in repr(read_hooks(path))
    path.chmod(0o640)
    with pytest.raises(InvalidRequest, match="0600"):
        read_hooks(path)


async def test_what_is_signed_has_the_time_and_an_id_that_comes_once(clock: SettableClock) -> None:
    heard: list[tuple[str, bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        heard.append((fields[SIGNATURE_HEADER], await reader.readexactly(int(fields["Content-Length"]))))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + YES)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    secret = Redacted("s" * 16)
    address = HookAddress(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", secret=secret)
    hooks = Hooks({ARN: address}, clock=clock, ids=SeededIds(1))
    for _ in range(2):
        await hooks.ask(ARN, {"clientId": "c"})
    server.close()
    said = [dict(part.split("=", 1) for part in text.split(",")) for text, _ in heard]
    assert [each["t"] for each in said] == [str(clock.now())] * 2
    assert said[0]["id"] != said[1]["id"]
    for (text, body), each in zip(heard, said, strict=True):
        assert text == signature(secret, each["t"], each["id"], body)
        for moment, request_id in ((str(clock.now() + 1), each["id"]), (each["t"], "another")):
            assert signature(secret, moment, request_id, body).rpartition("=")[2] != each["v1"]
