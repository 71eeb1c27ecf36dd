"""How many requests a key may make, whatever they ask for. Belongs to the event loop."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.principal import Principal

# So many seconds' worth may come at once.
BURST_S = 10.0
FEWEST_AT_ONCE = 5.0
# Callers that are remembered; whoever was away for longer than all of these has rested.
MAX_CALLERS = 4096


class RequestRates:
    """A leaky bucket for each key and, apart from it, for each client token of it.

    `clock` as time.monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # How full each bucket was, and when.
        self._levels: OrderedDict[tuple[str, str | None], tuple[float, float]] = OrderedDict()

    def take(self, principal: Principal) -> None:
        """Count a request. Raises ProtocolError `rate_limited`; then it is not counted."""
        if principal.requests_per_minute is None:
            return
        rate = principal.requests_per_minute / 60
        caller, now_s = (principal.name, principal.token_id), self._clock()
        level, since_s = self._levels.pop(caller, (0.0, now_s))
        level = max(0.0, level - (now_s - since_s) * rate)
        room = max(FEWEST_AT_ONCE, BURST_S * rate)
        refused = level + 1 > room
        self._levels[caller] = (level if refused else level + 1, now_s)
        if len(self._levels) > MAX_CALLERS:
            self._levels.popitem(last=False)
        if refused:
            raise ProtocolError(
                ErrorCode.RATE_LIMITED,
                f"{principal.name!r} made more than {principal.requests_per_minute:g} requests a "
                "minute; make fewer, or raise its requests_per_minute",
                retry_after_s=(level + 1 - room) / rate,
            )
