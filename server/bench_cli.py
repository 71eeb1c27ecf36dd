"""The commands under `visavis bench` that measure a server through its socket."""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NoReturn

from cyclopts import App

Video = Literal["h264", "jpeg", "none"]


def _fail(error: Exception) -> NoReturn:
    sys.stderr.write(f"visavis: {error}\n")
    raise SystemExit(2)


def bench_load(
    url: str = "ws://127.0.0.1:8000",
    *,
    sessions: int = 1,
    seconds: float = 30.0,
    avatar: str | None = None,
    video: Video = "h264",
    pid: int | None = None,
    json: Path | None = None,
) -> None:
    """Let several speakers talk to a running server in real time, and say what they saw.

    Parameters
    ----------
    url
        Address of the server.
    sessions
        Speakers at a time.
    seconds
        How long each of them talks.
    avatar
        Whom they talk through. [default: the server's first avatar]
    video
        What the server is to send.
    pid
        Process of the server, if it runs here, to watch its memory.
    json
        Also write the figures to this file.
    """
    from visavis.server.bench_load import print_load, run_load, write_load_json

    try:
        report = asyncio.run(
            run_load(url, sessions=sessions, seconds=seconds, avatar=avatar, video=video, pid=pid)
        )
    except (ValueError, OSError) as error:
        _fail(error)
    print_load(report)
    if json is not None:
        write_load_json(report, json)
    if report.failures:
        raise SystemExit(1)


def bench_soak(
    url: str | None = None,
    *,
    minutes: float = 10.0,
    realtime: bool = False,
    avatar: str | None = None,
    video: Video = "h264",
    pid: int | None = None,
    model: str = "embedded",
    json: Path | None = None,
) -> None:
    """Stream a long recording through the socket: is every frame there, is memory flat?

    Exits with 1 if not.

    Parameters
    ----------
    url
        Address of a running server, which sends in real time. [default: a server of its own]
    minutes
        Length of the recording.
    realtime
        Send and receive at the pace of speech, not as fast as the server can.
    avatar
        Who speaks. [default: the server's first avatar]
    video
        What the server is to send.
    pid
        Process of the server at URL, if it runs here, to watch its memory.
    model
        Model of the own server.
    json
        Also write the figures to this file.
    """
    from visavis.server.bench_soak import own_server, print_soak, run_soak, write_soak_json

    try:
        with ExitStack() as stack:
            if url is None:
                server = own_server("--model", model, realtime=realtime)
                url, pid = stack.enter_context(server)
            soak = run_soak(
                url, minutes=minutes, realtime=realtime, avatar=avatar, video=video, pid=pid
            )
            report = asyncio.run(soak)
    except (ValueError, OSError) as error:
        _fail(error)
    print_soak(report)
    if json is not None:
        write_soak_json(report, json)
    if report.problems:
        raise SystemExit(1)


def register(bench: App) -> None:
    """Add these commands to `visavis bench`."""
    bench.command(bench_load, name="load")
    bench.command(bench_soak, name="soak")
