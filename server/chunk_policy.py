"""How long the next chunk of speech should be, and when to begin it. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from visavis.engine.plan import CHUNK_LENGTHS, covering_chunk, new_frames

# Before what the client has runs out, so long a margin is kept for what was not foreseen.
MARGIN_S = 0.06
# By so much later, a frame's time, a longer chunk may begin than the shortest when all are late.
HARDLY_LATER_S = 0.04
# Before anything was measured: seconds from the order to the first frame.
UNMEASURED_START_S = {9: 0.1, 13: 0.125, 17: 0.15, 33: 0.25}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkPolicy:
    """The state of things as an order is written.

    lead_s: how long the client can play from what it has and what is ready. start_s: for each chunk
    length, from the order to its first frame as it is now, load included. fewest_frames: new frames
    that a chunk of live speech should have; 4 answers soonest and costs most per frame, so that a
    busy server waits for 8 or 12. hurry: the client has been waiting for long.

    Speech that comes as it is spoken never allows a longer chunk than the first one was: when a
    chunk's audio is complete, the viewer has left to play what the chunk before brought, less the
    time that it took. Longer ones need audio ahead of its time, as a synthesizer's is, or a gap. So
    the length that the load allows is chosen before the first one, and kept.
    """

    lead_s: float
    start_s: Mapping[int, float]
    fewest_frames: int
    hurry: bool = False

    def choose(self, *, ready: int, committed: bool, longest: int) -> int | None:
        """Length of the chunk to make now, None to wait for more audio.

        ready: frames whose audio is there. longest: the most that the session makes now; less than
        the longest of all after silence.
        """
        if committed and ready <= new_frames(longest):
            return covering_chunk(ready) if ready else None
        possible = self._possible(ready, committed=committed, longest=longest)
        if not possible:
            return None
        in_time = [c for c in possible if self._begin_by_s(c) >= 0] or self._late(possible)
        if committed or possible[-1] == longest:
            return in_time[-1]
        if self.hurry or longest < CHUNK_LENGTHS[-1]:
            return possible[-1]
        # More audio makes a longer chunk, which is cheaper: wait as long as nobody notices.
        return None if self._begin_by_s(possible[-1]) > 0 else in_time[-1]

    def wait_s(self, *, ready: int, longest: int) -> float | None:
        """After `choose` said None: when to ask again even if no audio comes; None: never."""
        possible = self._possible(ready, committed=False, longest=longest)
        if not possible:
            return None
        return max(0.0, self._begin_by_s(possible[-1]))

    def _possible(self, ready: int, *, committed: bool, longest: int) -> list[int]:
        """Lengths whose audio is there, shortest first; of live speech only those that the load
        allows, unless somebody waits."""
        fewest = 0 if committed or self.hurry else self.fewest_frames
        return [c for c in CHUNK_LENGTHS if c <= longest and fewest <= new_frames(c) <= ready]

    def _late(self, possible: list[int]) -> list[int]:
        """When it is too late for all of them: those that begin hardly later than the shortest."""
        latest_s = self.start_s[possible[0]] + HARDLY_LATER_S
        return [c for c in possible if self.start_s[c] <= latest_s]

    def _begin_by_s(self, chunk_frames: int) -> float:
        """Seconds that remain until a chunk of that length must be begun to play without a gap."""
        return self.lead_s - self.start_s[chunk_frames] - MARGIN_S
