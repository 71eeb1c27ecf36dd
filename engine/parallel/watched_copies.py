"""Pictures that a group has made on their way to the host of the process that leads.

Here the host waits for the GPUs, and sees whether what they made counts.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from visavis.engine.host_copies import HostCopies, Pictures
from visavis.engine.parallel.commands import CommandChannel


class WatchedCopies:
    """`HostCopies` whose waits are pieces of work of the group.

    A wait raises GroupLostError when the group was lost before the pictures arrived, though their
    copy was ordered while it was whole.
    """

    def __init__(self, own: HostCopies, channel: CommandChannel) -> None:
        self._own = own
        self._channel = channel

    @property
    def ahead(self) -> bool:
        """As of this process's own copies."""
        return self._own.ahead

    def begin(self, pixels: Tensor) -> Callable[[], Pictures]:
        """See `HostCopies`."""
        shape, arrive = tuple(pixels.shape), self._own.begin(pixels)

        def wait() -> Pictures:
            with self._channel.together("frames", shape):
                return arrive()

        return wait
