"""The process that decodes strangers' pictures: `python -m visavis.server.image_child`.

In: a length and an encoded picture, again and again. Out: OK, height, width and RGB bytes, or
FAILED, a length and a sentence for the user.
"""

from __future__ import annotations

import resource
import struct
import sys
from typing import BinaryIO

LENGTH = struct.Struct("<I")
SHAPE = struct.Struct("<II")
OK, FAILED = b"\0", b"\1"
# 40 megapixels as RGBA in two or three copies, and the interpreter.
MAX_MEMORY = 2 << 30
MAX_FILES = 16


def limit_resources() -> None:
    """No more memory than a picture needs, no new files, no child processes' core dumps."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_FILES, MAX_FILES))


def answer(data: bytes) -> bytes:
    """The reply to one picture."""
    from visavis.engine.face.image import ImageError, load_image

    try:
        pixels = load_image(data)
    except ImageError as error:
        message = str(error).encode()
    except MemoryError:
        message = b"the picture needs too much memory; make it smaller and try again"
    else:
        return OK + SHAPE.pack(*pixels.shape[:2]) + pixels.tobytes()
    return FAILED + LENGTH.pack(len(message)) + message


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer until `source` ends."""
    while len(head := source.read(LENGTH.size)) == LENGTH.size:
        (size,) = LENGTH.unpack(head)
        sink.write(answer(source.read(size)))
        sink.flush()


if __name__ == "__main__":
    limit_resources()
    serve(sys.stdin.buffer, sys.stdout.buffer)
