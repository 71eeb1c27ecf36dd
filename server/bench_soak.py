"""`visavis bench soak`: a long recording through the socket; frames counted, memory watched."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from visavis.engine.plan import frames_of
from visavis.server.bench import babble
from visavis.server.bench_client import (
    BenchClient,
    BenchError,
    first_avatar,
    is_speech,
    open_client,
    rss_mib,
    socket_url,
)
from visavis.server.bench_stop import runs_to_its_end
from visavis.server.protocol import Frame

RATE = 16_000
PIECE_S = 0.5
# Audio sent and not come back yet; the server's own limit is 30 s by default.
AHEAD_S = 20.0
STALL_S = 60.0
# Growth from the first minute to the last that counts as flat.
FLAT_MIB = 32.0
READY_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakReport:
    """What came of it. `rss_mib` is the server's memory after each minute of speech; `stopped`: by
    Ctrl-C, before all of it was said, and `audio_intact` is of what was."""

    speech_s: float
    wall_s: float
    frames: int
    frames_expected: int
    audio_intact: bool
    status: str
    rss_mib: tuple[float, ...]
    stopped: bool = False

    @property
    def growth_mib(self) -> float | None:
        """From the first minute to the last, None without two of them."""
        return self.rss_mib[-1] - self.rss_mib[0] if len(self.rss_mib) > 1 else None

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, as sentences; nothing when all is well."""
        found = []
        if self.stopped:
            found.append(f"stopped by hand after {self.wall_s:.0f} s")
        elif self.frames != self.frames_expected:
            found.append(f"{self.frames} frames came, {self.frames_expected} were expected")
        if not self.audio_intact:
            found.append("the audio that came back is not what was sent")
        if self.status != "completed" and not self.stopped:
            found.append(f"the response ended as {self.status}")
        if self.growth_mib is not None and self.growth_mib > FLAT_MIB:
            found.append(f"memory grew by {self.growth_mib:.0f} MiB, {FLAT_MIB:.0f} are allowed")
        return tuple(found)


@dataclass(slots=True)
class Heard:
    """What has come back so far."""

    samples: int = 0
    frames: int = 0
    status: str = "unfinished"
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    rss_mib: list[float] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


async def run_soak(
    url: str,
    *,
    minutes: float,
    realtime: bool,
    avatar: str | None = None,
    video: str = "h264",
    pid: int | None = None,
) -> SoakReport:
    """Stream `minutes` of speech as one utterance, or what of it is said before Ctrl-C.

    Raises BenchError when the server gives up.
    """
    target = socket_url(url)
    who = avatar if avatar is not None else await asyncio.to_thread(first_avatar, url)
    samples = round(60 * minutes * RATE)
    heard = Heard()
    start_s = time.monotonic()
    async with open_client(target, avatar=who, rate=RATE, video=video) as client:
        with _bar(samples) as advance:
            sending = asyncio.create_task(_send(client, samples, heard, realtime=realtime))
            listening = asyncio.create_task(_listen(client, heard, advance, pid))
            try:
                finished = await runs_to_its_end(_both(sending, listening))
            finally:
                sending.cancel()
                listening.cancel()
                await asyncio.gather(sending, listening, return_exceptions=True)
    return SoakReport(
        speech_s=samples / RATE,
        wall_s=time.monotonic() - start_s,
        frames=heard.frames,
        frames_expected=frames_of(samples, RATE),
        audio_intact=heard.digest.digest() == _digest_of(samples, heard.samples),
        status=heard.status,
        rss_mib=tuple(heard.rss_mib),
        stopped=not finished,
    )


async def _both(*tasks: asyncio.Task[None]) -> None:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


def _pieces(samples: int) -> Iterator[tuple[int, bytes]]:
    """What is said: where each piece begins, and its pcm16."""
    step = int(PIECE_S * RATE)
    for first in range(0, samples, step):
        yield first, babble(min(step, samples - first), RATE, seed=first).astype("<i2").tobytes()


def _digest_of(samples: int, heard: int) -> bytes:
    """Of the first `heard` samples of what is said."""
    digest = hashlib.sha256()
    for first, pcm in _pieces(samples):
        if first >= heard:
            break
        digest.update(pcm[: 2 * (heard - first)])
    return digest.digest()


async def _send(client: BenchClient, samples: int, heard: Heard, *, realtime: bool) -> None:
    start_s = time.monotonic()
    for first, pcm in _pieces(samples):
        while first - heard.samples > AHEAD_S * RATE:
            heard.changed.clear()
            try:
                async with asyncio.timeout(STALL_S):
                    await heard.changed.wait()
            except TimeoutError:
                raise BenchError(f"no frame came for {STALL_S:g} s") from None
        if realtime:
            await asyncio.sleep(max(0.0, start_s + first / RATE - time.monotonic()))
        await client.send_audio(pcm)
    await client.send("input_audio_buffer.commit")


async def _listen(client: BenchClient, heard: Heard, advance: Progress, pid: int | None) -> None:
    task = advance.tasks[0].id
    async for arrival in client.arrivals():
        item = arrival.item
        if isinstance(item, Frame):
            if is_speech(item):
                heard.frames += 1
                heard.samples += len(item.audio) // 2
                heard.digest.update(item.audio)
                heard.changed.set()
                advance.update(task, completed=heard.samples)
            minute = heard.samples // (60 * RATE)
            memory = rss_mib(pid) if pid is not None and minute > len(heard.rss_mib) else None
            if memory is not None:
                heard.rss_mib.append(memory)
        elif item["type"] == "response.done":
            heard.status = item["status"]
            return
    raise BenchError("the server closed the socket before the response was done")


@contextmanager
def _bar(samples: int) -> Iterator[Progress]:
    columns = (TextColumn("speech"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        bar.add_task("speech", total=samples)
        yield bar


@contextmanager
def own_server(*arguments: str, realtime: bool) -> Iterator[tuple[str, int]]:
    """A `visavis serve` of our own on a free port: (url, pid). Raises BenchError if it fails.

    Unless `realtime`, it sends frames as fast as it makes them.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = dict(os.environ)
    if not realtime:
        environment["VISAVIS_SPEECH_LEAD_MS"] = str(24 * 3600 * 1000)
        environment["VISAVIS_MAX_INPUT_RATE"] = "10000"
    code = "from visavis.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "--port", str(port), *arguments]
    # A session of its own: Ctrl-C is for the one who measures.
    process = subprocess.Popen(
        [*command, "--log-level", "warning"], env=environment, start_new_session=True
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_ready(url, process)
        yield url, process.pid
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + READY_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise BenchError(f"the server ended with exit code {process.returncode}")
        try:
            with urllib.request.urlopen(f"{url}/health/ready", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise BenchError(f"the server was not ready after {READY_S:g} s")


def print_soak(report: SoakReport) -> None:
    """The report on stdout."""
    console = Console()
    console.print(
        f"{report.speech_s:.0f} s of speech in {report.wall_s:.0f} s: "
        f"{report.frames} frames, {report.frames_expected} expected; "
        f"audio {'intact' if report.audio_intact else 'DAMAGED'}; {report.status}",
        highlight=False,
    )
    for minute in sorted({1, len(report.rss_mib)} if report.rss_mib else ()):
        console.print(
            f"server memory at minute {minute}: {report.rss_mib[minute - 1]:.0f} MiB",
            highlight=False,
        )
    for problem in report.problems:
        console.print(f"[red]problem:[/] {problem}", highlight=False)


def write_soak_json(report: SoakReport, path: Path) -> None:
    """The report as JSON."""
    figures = {**asdict(report), "growth_mib": report.growth_mib, "problems": report.problems}
    path.write_text(json.dumps(figures, indent=1) + "\n")
