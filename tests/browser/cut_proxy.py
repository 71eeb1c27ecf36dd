"""A TCP proxy that can cut its connections as a broken network does: without a word."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PIECE_BYTES = 65_536
# SO_LINGER with a time of zero: closing sends RST instead of FIN.
ABORT = struct.pack("ii", 1, 0)


class CutProxy:
    """Forwards to `target`, a port of this machine; `cut` breaks what is open, `swallow` loses
    what clients send."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._refusing = False
        self._swallowing = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self, *, refuse: bool = False) -> None:
        """Break every open connection; with `refuse`, new ones as well until `restore`."""
        self._refusing = refuse
        self._swallowing = False
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                _abort(end)

    def swallow(self) -> None:
        """Lose what comes from clients from now on, until `cut`; they do not notice."""
        self._swallowing = True

    def restore(self) -> None:
        """Let new connections through again."""
        self._refusing = False

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                _abort(near)
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            self._pairs.append((near, far))
            for ends in ((near, far), (far, near)):
                upwards = ends[0] is near
                threading.Thread(target=self._pump, args=(*ends, upwards), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, upwards: bool) -> None:
        lost = False
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE_BYTES):
                # A stream with a hole is no stream: what is lost once is lost to its end.
                lost = lost or (upwards and self._swallowing)
                if not lost:
                    sink.sendall(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def _abort(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    with contextlib.suppress(OSError):
        # A blocked recv in the other thread keeps the descriptor alive past close.
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextmanager
def cut_proxy(target: int) -> Iterator[CutProxy]:
    """A running proxy to `target`."""
    proxy = CutProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
