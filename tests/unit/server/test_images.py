"""Strangers' pictures: decoded elsewhere, bombs and broken files cost one process at most."""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visavis.engine.face.image import ImageError
from visavis.server.images import ImageDecoder


@pytest.fixture
async def decoder() -> AsyncIterator[ImageDecoder]:
    one = ImageDecoder()
    yield one
    await one.close()


def encoded(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A file of a few bytes whose header promises very many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


async def test_pixels_come_back_upright_and_bombs_do_not(decoder: ImageDecoder) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)
    assert np.array_equal(await decoder.decode(encoded(Image.fromarray(pixels))), pixels)

    exif = Image.Exif()
    exif[0x0112] = 6
    turned = await decoder.decode(encoded(Image.fromarray(pixels), "JPEG", exif=exif))
    assert turned.shape == (90, 70, 3)

    for bomb in (png_that_claims(60_000, 60_000), png_that_claims(9_000, 9_000), b"", b"GIF89a?"):
        with pytest.raises(ImageError):
            await decoder.decode(bomb)
    assert np.array_equal(await decoder.decode(encoded(Image.fromarray(pixels))), pixels)


async def test_a_decoder_that_dies_is_replaced(decoder: ImageDecoder) -> None:
    picture = encoded(Image.new("RGB", (80, 80), "teal"))
    await decoder.decode(picture)
    child = decoder._child
    assert child is not None
    child.kill()
    await child.wait()
    assert (await decoder.decode(picture)).shape == (80, 80, 3)


async def test_a_given_up_request_leaves_no_half_answer(decoder: ImageDecoder) -> None:
    await decoder.decode(encoded(Image.new("RGB", (80, 80), "teal")))
    large = encoded(Image.new("RGB", (3000, 3000), "red"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.005):
            await decoder.decode(large)
    assert (await decoder.decode(encoded(Image.new("RGB", (64, 70), "blue")))).shape == (70, 64, 3)


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="needs Linux's /proc")
async def test_the_child_knows_no_secret_and_has_little_memory(
    decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISAVIS_API_KEYS", "a:canary0123456789")
    await decoder.decode(encoded(Image.new("RGB", (80, 80))))
    assert decoder._child is not None
    proc = Path(f"/proc/{decoder._child.pid}")
    environment = await asyncio.to_thread((proc / "environ").read_bytes)
    assert b"canary" not in environment
    limits = await asyncio.to_thread((proc / "limits").read_text)
    (line,) = [line for line in limits.splitlines() if line.startswith("Max address space")]
    assert int(line.split()[3]) <= 2 << 30
