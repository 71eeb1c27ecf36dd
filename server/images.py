"""Strangers' pictures are decoded in a process of their own, with little memory and time.

A picture that is a bomb, or that breaks a decoder, ends that process and nothing else. It knows no
secret: its environment is empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import sys

import numpy as np
import structlog
from numpy.typing import NDArray

from visavis.engine.face.image import ImageError, load_image
from visavis.server.image_child import FAILED, LENGTH, OK, SHAPE

log = structlog.get_logger(__name__)

TIMEOUT_S = 20.0
# Decoding takes moments, starting the process takes half a second.
START_TIMEOUT_S = 60.0


class ImageDecoder:
    """Decodes encoded pictures one after the other. Belongs to the event loop.

    sandbox: False decodes in a thread of this process, with the same limits on bytes and pixels.
    """

    def __init__(self, *, sandbox: bool = True) -> None:
        self._sandbox = sandbox
        self._child: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def decode(self, data: bytes) -> NDArray[np.uint8]:
        """Upright uint8 RGB [H, W, 3] without any metadata. Raises ImageError."""
        if not self._sandbox:
            return await asyncio.to_thread(load_image, data)
        async with self._lock:
            try:
                return await self._ask(data)
            except ImageError:
                raise
            except (TimeoutError, asyncio.IncompleteReadError, OSError, struct.error) as error:
                log.warning("image decoder died", why=type(error).__name__)
                await self._end_child()
                raise ImageError(
                    "the picture could not be decoded within the limits of memory and time; "
                    "save it as a plain JPEG and try again"
                ) from None
            except BaseException:
                # Half an answer would be read as the next one's.
                await self._end_child()
                raise

    async def close(self) -> None:
        """End the process."""
        async with self._lock:
            await self._end_child()

    async def _ask(self, data: bytes) -> NDArray[np.uint8]:
        fresh = self._child is None or self._child.returncode is not None
        if fresh:
            await self._start()
        child = self._child
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        async with asyncio.timeout(START_TIMEOUT_S if fresh else TIMEOUT_S):
            child.stdin.write(LENGTH.pack(len(data)) + data)
            await child.stdin.drain()
            status = await child.stdout.readexactly(1)
            if status == OK:
                height, width = SHAPE.unpack(await child.stdout.readexactly(SHAPE.size))
                pixels = await child.stdout.readexactly(height * width * 3)
                return np.frombuffer(pixels, np.uint8).reshape(height, width, 3).copy()
            (size,) = LENGTH.unpack(await child.stdout.readexactly(LENGTH.size))
            message = (await child.stdout.readexactly(size)).decode()
        if status == FAILED:
            raise ImageError(message)
        raise OSError("the image decoder speaks nonsense")

    async def _start(self) -> None:
        await self._end_child()
        # No OMP threads: each would take address space, which is limited.
        environment = {"PATH": os.defpath, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-m",
            "visavis.server.image_child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
            # A Ctrl-C in the terminal is for the server alone, which ends the child itself.
            start_new_session=True,
        )

    async def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        if child.stdin is not None:
            child.stdin.close()
        await child.wait()
