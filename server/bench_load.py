"""`visavis bench load`: N speakers in real time against a running server, and what they saw.

Each speaker sends 40 ms pieces by the clock, whatever the server does, so that a slow server is
seen as slow (no coordinated omission), and plays what comes with a fixed buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from visavis.server.bench import babble
from visavis.server.bench_client import (
    FRAME_S,
    BenchClient,
    BenchError,
    first_avatar,
    is_speech,
    open_client,
    rss_mib,
    socket_url,
)
from visavis.server.protocol import Frame, Kind

RATE = 16_000
UTTERANCE_S, PAUSE_S = 4.0, 1.5
PLAYOUT_BUFFER_S = 0.2
PLAYBACK_EVERY_S = 0.4


@dataclass(slots=True)
class Speaker:
    """What one session measured. Times are in seconds; `gaps` are between arrivals of speech."""

    first_frame: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    frames: int = 0
    speech_frames: int = 0
    bytes_received: int = 0
    underruns: int = 0
    stalled_s: float = 0.0
    done: int = 0
    failed: str | None = None


class Playout:
    """A player's clock: frame `pts_s` is due that long after the first one, plus a buffer.

    A late frame stops the clock until it is there, as a real player would wait for it.
    """

    def __init__(self, buffer_s: float = PLAYOUT_BUFFER_S) -> None:
        self._buffer_s = buffer_s
        self._zero_s: float | None = None

    def arrive(self, pts_s: float, now_s: float) -> float:
        """Seconds by which the frame came too late, 0 when it was in time."""
        if self._zero_s is None:
            self._zero_s = now_s + self._buffer_s - pts_s
        late_s = max(0.0, now_s - (self._zero_s + pts_s))
        self._zero_s += late_s
        return late_s

    def position_s(self, now_s: float) -> float:
        """What is on screen now, 0 before anything is."""
        return 0.0 if self._zero_s is None else max(0.0, now_s - self._zero_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """Percentiles over all sessions; `jitter` is how far gaps between frames are from 40 ms."""

    sessions: int
    seconds: float
    failures: tuple[str, ...]
    utterances: int
    first_frame_p50_ms: float | None
    first_frame_p95_ms: float | None
    fps_received: float
    jitter_p50_ms: float | None
    jitter_p95_ms: float | None
    underruns: int
    stalled_s: float
    bytes_per_s: float
    server_rss_mib: float | None
    server_rss_growth_mib: float | None


async def run_load(
    url: str, *, sessions: int, seconds: float, avatar: str | None, video: str, pid: int | None
) -> LoadReport:
    """Run the load. Raises BenchError when no session could be opened at all."""
    target = socket_url(url)
    who = avatar if avatar is not None else await asyncio.to_thread(first_avatar, url)
    speakers = [Speaker() for _ in range(sessions)]
    before = rss_mib(pid) if pid is not None else None
    start_s = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number, speaker in enumerate(speakers):
            group.create_task(_session(target, who, video, seconds, speaker, number, sessions))
    elapsed_s = time.monotonic() - start_s
    after = rss_mib(pid) if pid is not None else None
    failures = tuple(s.failed for s in speakers if s.failed is not None)
    if len(failures) == sessions and not any(s.frames for s in speakers):
        raise BenchError(f"no session could be opened: {failures[0]}")
    return summarize(speakers, min(elapsed_s, seconds), before, after)


def summarize(
    speakers: list[Speaker], seconds: float, before: float | None, after: float | None
) -> LoadReport:
    """All sessions' figures in one."""
    first = [s for speaker in speakers for s in speaker.first_frame]
    jitter = [abs(gap - FRAME_S) for speaker in speakers for gap in speaker.gaps]
    alive = [s for s in speakers if s.frames]
    return LoadReport(
        sessions=len(speakers),
        seconds=seconds,
        failures=tuple(s.failed for s in speakers if s.failed is not None),
        utterances=sum(s.done for s in speakers),
        first_frame_p50_ms=_percentile_ms(first, 50),
        first_frame_p95_ms=_percentile_ms(first, 95),
        fps_received=sum(s.frames for s in alive) / seconds / max(1, len(alive)),
        jitter_p50_ms=_percentile_ms(jitter, 50),
        jitter_p95_ms=_percentile_ms(jitter, 95),
        underruns=sum(s.underruns for s in speakers),
        stalled_s=sum(s.stalled_s for s in speakers),
        bytes_per_s=sum(s.bytes_received for s in speakers) / seconds,
        server_rss_mib=after,
        server_rss_growth_mib=None if before is None or after is None else after - before,
    )


def _percentile_ms(seconds: list[float], percent: float) -> float | None:
    return 1000 * float(np.percentile(seconds, percent)) if seconds else None


async def _session(
    url: str, avatar: str, video: str, seconds: float, speaker: Speaker, number: int, total: int
) -> None:
    """One speaker; what fails is noted, for the others go on."""
    try:
        # Spread over one cycle, so that not all begin to speak in the same instant.
        await asyncio.sleep((UTTERANCE_S + PAUSE_S) * number / total)
        async with open_client(url, avatar=avatar, rate=RATE, video=video) as client:
            began: dict[int, float] = {}
            playout = Playout()
            helpers = [
                asyncio.create_task(_speak(client, began, number)),
                asyncio.create_task(_report_playback(client, playout)),
            ]
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await _listen(client, began, playout, speaker)
            finally:
                for helper in helpers:
                    helper.cancel()
                results = await asyncio.gather(*helpers, return_exceptions=True)
            speaker.failed = next((str(r) for r in results if isinstance(r, Exception)), None)
    except (BenchError, OSError, TimeoutError) as error:
        speaker.failed = str(error) or type(error).__name__


async def _speak(client: BenchClient, began: dict[int, float], number: int) -> None:
    """Utterances and pauses for ever; piece k goes out when its 40 ms have been spoken."""
    piece = round(RATE * FRAME_S)
    pcm = babble(int(UTTERANCE_S * RATE), RATE, seed=number).astype("<i2").tobytes()
    response = 0
    start_s = time.monotonic()
    while True:
        response += 1
        for position in range(0, len(pcm), 2 * piece):
            due_s = start_s + (position / 2 + piece) / RATE
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            began.setdefault(response, due_s)
            await client.send_audio(pcm[position : position + 2 * piece])
        await client.send("input_audio_buffer.commit")
        start_s += UTTERANCE_S + PAUSE_S
        await asyncio.sleep(max(0.0, start_s - time.monotonic()))


async def _report_playback(client: BenchClient, playout: Playout) -> None:
    while True:
        await asyncio.sleep(PLAYBACK_EVERY_S)
        position_us = int(1e6 * playout.position_s(time.monotonic()))
        await client.send("playback.update", pts_us=position_us)


async def _listen(
    client: BenchClient, began: dict[int, float], playout: Playout, speaker: Speaker
) -> None:
    previous: tuple[int, float] | None = None
    async for arrival in client.arrivals():
        speaker.bytes_received += arrival.size
        frame = arrival.item
        if not isinstance(frame, Frame):
            speaker.done += frame["type"] == "response.done"
            continue
        if frame.header.kind != Kind.MEDIA:
            continue
        speaker.frames += 1
        late_s = playout.arrive(frame.header.pts_us / 1e6, arrival.time_s)
        speaker.underruns += late_s > 0
        speaker.stalled_s += late_s
        if not is_speech(frame):
            continue
        response = frame.header.response
        speaker.speech_frames += 1
        if response in began:
            speaker.first_frame.append(arrival.time_s - began.pop(response))
        elif previous is not None and previous[0] == response:
            speaker.gaps.append(arrival.time_s - previous[1])
        previous = (response, arrival.time_s)


def print_load(report: LoadReport) -> None:
    """The report on stdout."""

    def value(number: float | None, unit: str, digits: int = 0) -> str:
        return "-" if number is None else f"{number:.{digits}f} {unit}"

    table = Table(title=f"{report.sessions} sessions, {report.seconds:.0f} s", show_header=False)
    rows = (
        ("first frame p50", value(report.first_frame_p50_ms, "ms")),
        ("first frame p95", value(report.first_frame_p95_ms, "ms")),
        ("frames received", value(report.fps_received, "FPS a session", 2)),
        ("jitter p50", value(report.jitter_p50_ms, "ms", 1)),
        ("jitter p95", value(report.jitter_p95_ms, "ms", 1)),
        ("underruns", f"{report.underruns} ({report.stalled_s:.2f} s)"),
        ("received", value(report.bytes_per_s / 1024, "KiB/s", 1)),
        ("utterances spoken", str(report.utterances)),
        ("server memory", value(report.server_rss_mib, "MiB")),
        ("server memory growth", value(report.server_rss_growth_mib, "MiB", 1)),
        ("failed sessions", str(len(report.failures))),
    )
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    for failure in sorted(set(report.failures)):
        console.print(f"[red]failed:[/] {failure}", highlight=False)


def write_load_json(report: LoadReport, path: Path) -> None:
    """The report as JSON."""
    path.write_text(json.dumps(asdict(report), indent=1) + "\n")
