"""A file of 1 GiB, all of it within reach of blocks of 8 KiB and more (AWS stops at 24 MB, its guide of 2018 at 2 MB)."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import cbor2
import pytest

from overair.wire.blocks import BITMAP_SIZE_BYTES_MAX, BLOCK_OFFSET_MAX, bitmap_for
from tests.support.field_device import Device, enroll
from tests.support.server_process import ServerProcess

PART_SIZE_BYTES = 8 * 2**20
PARTS = 128
GIBIBYTE = PARTS * PART_SIZE_BYTES
SAMPLES = 60
BLOCKS_A_REQUEST = 16


@pytest.fixture(scope="module")
def pieces() -> list[bytes]:
    """Three pieces whose order of repetition makes the whole file."""
    return [hashlib.shake_128(bytes([number])).digest(PART_SIZE_BYTES) for number in range(3)]


ORDER = [random.Random(11).randrange(3) for _ in range(PARTS)]


@pytest.fixture(scope="module")
def stream(server: ServerProcess, pieces: list[bytes]) -> str:
    """A stream of one file of 1 GiB, put together on the server from three objects of 8 MiB."""
    s3, bucket = server.client("s3"), server.endpoints["bucket"]
    for number, piece in enumerate(pieces):
        s3.put_object(Bucket=bucket, Key=f"piece-{number}", Body=piece)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="gibibyte")["UploadId"]
    parts = []
    for number, piece in enumerate(ORDER, start=1):
        copied = s3.upload_part_copy(
            Bucket=bucket,
            Key="gibibyte",
            UploadId=upload,
            PartNumber=number,
            CopySource={"Bucket": bucket, "Key": f"piece-{piece}"},
        )
        parts.append({"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]})
    whole = s3.complete_multipart_upload(Bucket=bucket, Key="gibibyte", UploadId=upload, MultipartUpload={"Parts": parts})
    server.client("iot").create_stream(
        streamId="gibibyte",
        files=[{"fileId": 0, "s3Location": {"bucket": bucket, "key": "gibibyte", "version": whole["VersionId"]}}],
        roleArn=server.endpoints["ota_role_arn"],
    )
    return "gibibyte"


def truth(pieces: list[bytes], block_size_bytes: int, number: int) -> bytes:
    part, offset = divmod(number * block_size_bytes, PART_SIZE_BYTES)
    return pieces[ORDER[part]][offset : offset + block_size_bytes]


@pytest.mark.parametrize("block_size_bytes", [8192, 16_384, 65_536, 131_072])
def test_any_block_of_a_gibibyte_is_within_reach(
    server: ServerProcess, stream: str, pieces: list[bytes], tmp_path: Path, block_size_bytes: int
) -> None:
    total = GIBIBYTE // block_size_bytes
    chance = random.Random(block_size_bytes)
    wanted = {0, total - 1, *chance.sample(range(total), SAMPLES)}
    identity = enroll(server, tmp_path, f"large-{block_size_bytes}")
    base = f"$aws/things/{identity.thing}/streams/{stream}"
    with Device(server, identity) as device:
        device.subscribe(f"{base}/data/cbor", f"{base}/rejected/cbor", f"{base}/description/cbor", qos=1)
        device.publish(f"{base}/describe/cbor", cbor2.dumps({}))
        assert cbor2.loads(device.next_message()[1])["r"] == [{"f": 0, "z": GIBIBYTE}]
        # Below the largest bitmap as the C agent asks, with an offset of 0; beyond it from the largest offset on.
        reach = BITMAP_SIZE_BYTES_MAX * 8
        for offset in (0, BLOCK_OFFSET_MAX):
            missing = sorted(number for number in wanted if offset <= number < offset + reach)
            while missing:
                ask = {"f": 0, "l": block_size_bytes, "o": offset, "b": bitmap_for(missing, offset), "n": BLOCKS_A_REQUEST}
                device.publish(f"{base}/get/cbor", cbor2.dumps(ask))
                for expected in missing[: min(BLOCKS_A_REQUEST, 131_072 // block_size_bytes)]:
                    topic, payload = device.next_message()
                    block = cbor2.loads(payload)
                    assert (topic, block.get("i")) == (f"{base}/data/cbor", expected), block
                    assert block["p"] == truth(pieces, block_size_bytes, expected)
                    wanted.discard(expected)
                    missing.remove(expected)
    assert not wanted, "a block that no request can name"


@pytest.mark.long
def test_a_gibibyte_is_downloaded_whole_in_blocks_of_8_kib(
    server: ServerProcess, stream: str, pieces: list[bytes], tmp_path: Path
) -> None:
    size, total, count = 8192, GIBIBYTE // 8192, 16
    identity = enroll(server, tmp_path, "large-whole")
    base = f"$aws/things/{identity.thing}/streams/{stream}"
    with Device(server, identity) as device:
        device.subscribe(f"{base}/data/cbor", qos=0)
        for first in range(0, total, count):
            offset = min(first, BLOCK_OFFSET_MAX)
            bitmap = bitmap_for(range(first, first + count), offset)
            device.publish(f"{base}/get/cbor", cbor2.dumps({"f": 0, "l": size, "o": offset, "b": bitmap, "n": count}))
            for number in range(first, first + count):
                block = cbor2.loads(device.next_message()[1])
                assert (block["i"], block["p"]) == (number, truth(pieces, size, number))
