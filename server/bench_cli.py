"""The commands under `visavis bench` that measure a server through its socket."""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from visavis.server.cli_errors import fail

Video = Literal["h264", "jpeg", "none"]


def _say(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")


def _check_outputs(*, json: Path | None, plot: Path | None, details: Path | None) -> None:
    """Raises ValueError for a file that could not be written, before minutes are spent."""
    for name, path in (("json", json), ("plot", plot), ("details", details)):
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"{name}={path}: there is no folder {path.parent}; make it first")
    if plot is not None and plot.suffix.lower() != ".svg":
        raise ValueError(f"plot={plot}: plots are SVG files; call it {plot.with_suffix('.svg')}")


def bench_load(
    url: str | None = None,
    *,
    sessions: int = 1,
    seconds: float = 200.0,
    most_sessions: int = 16,
    ramp_seconds: float = 18.0,
    avatar: str | None = None,
    video: Video = "h264",
    height: int | None = None,
    model: str = "embedded",
    pid: int | None = None,
    json: Path | None = None,
    plot: Path | None = None,
    details: Path | None = None,
    check: bool = False,
) -> None:
    """Let live speakers talk through a server, ever more of them, and say what they saw.

    First SESSIONS speakers for SECONDS: they talk in real time, pause, and interrupt the avatar;
    that gives the latencies. Then ever more speakers, RAMP_SECONDS each, until an objective is
    missed: some five minutes in all. Figures of which too little was measured are left out, with
    the reason.

    Parameters
    ----------
    url
        Address of a running server. [default: a server of its own]
    sessions
        Speakers of the first stage.
    seconds
        How long the first stage lasts; 99th percentiles need a hundred interruptions.
    most_sessions
        Where the ramp ends at the latest; the same as SESSIONS for no ramp.
    ramp_seconds
        How long each stage of the ramp lasts.
    avatar
        Whom they talk through. [default: the server's first avatar]
    video
        What the server is to send.
    height
        Of the pictures, in pixels. [default: the server's own]
    model
        Model of the own server.
    pid
        Process of the server at URL, if it runs here, to watch its memory.
    json
        Also write the figures to this file.
    plot
        Also draw the percentiles to this file, an SVG.
    details
        Also write everything, each stage and each reason, to this file.
    check
        Exit with 1, and name each objective that the first stage's figures miss, if there is one.
        A figure that was not measured is missed, too.
    """
    from visavis.server.bench_check import require_checkable, unmet_objectives
    from visavis.server.bench_load import LoadPlan, run_load
    from visavis.server.bench_plot import write_plot
    from visavis.server.bench_report import figures, print_load, write_details_json, write_load_json
    from visavis.server.bench_soak import own_server

    try:
        plan = LoadPlan(
            sessions=sessions,
            seconds=seconds,
            most_sessions=most_sessions,
            ramp_seconds=ramp_seconds,
            avatar=avatar,
            video=video,
            height=height,
        )
        if check:
            require_checkable(plan)
        _check_outputs(json=json, plot=plot, details=details)
        with ExitStack() as stack:
            if url is None:
                # The ramp is to find the limit of the machine, not that of the admission.
                arguments = ("--model", model, "--max-sessions", str(most_sessions))
                url, pid = stack.enter_context(own_server(*arguments, realtime=True))
            report = asyncio.run(run_load(url, plan, pid=pid, progress=_say))
        print_load(report)
        if json is not None:
            write_load_json(report, json)
        if details is not None:
            write_details_json(report, details)
        if plot is not None:
            write_plot(report, plot)
    except (ValueError, OSError) as error:
        fail(error)
    missed = unmet_objectives(figures(report), report.reasons) if check else ()
    for sentence in missed:
        sys.stderr.write(f"missed: {sentence}\n")
    if report.failures or missed:
        raise SystemExit(1)


def bench_soak(
    url: str | None = None,
    *,
    minutes: float = 10.0,
    realtime: bool = False,
    mixed: bool = False,
    visitors: int = 2,
    avatar: str | None = None,
    video: Video = "h264",
    pid: int | None = None,
    model: str = "embedded",
    json: Path | None = None,
) -> None:
    """Stream a long recording through the socket: is every frame there, is memory flat?

    With --mixed, visitors come and go instead, talk, interrupt, rest, and lose connections and
    resume, in real time. Exits with 1 if something is wrong.

    Parameters
    ----------
    url
        Address of a running server, which sends in real time. [default: a server of its own]
    minutes
        Length of the recording.
    realtime
        Send and receive at the pace of speech, not as fast as the server can.
    mixed
        Visitors that come and go, instead of one recording.
    visitors
        How many of them there are at a time.
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

    if mixed:
        _soak_mixed(
            url,
            minutes=minutes,
            visitors=visitors,
            avatar=avatar,
            video=video,
            pid=pid,
            model=model,
            json=json,
        )
        return
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
        fail(error)
    print_soak(report)
    if json is not None:
        write_soak_json(report, json)
    if report.problems:
        raise SystemExit(1)


def _soak_mixed(
    url: str | None,
    *,
    minutes: float,
    visitors: int,
    avatar: str | None,
    video: Video,
    pid: int | None,
    model: str,
    json: Path | None,
) -> None:
    from visavis.server.bench_mixed import MixedPlan, print_mixed, run_mixed, write_mixed_json
    from visavis.server.bench_soak import own_server

    try:
        plan = MixedPlan(minutes=minutes, visitors=visitors, avatar=avatar, video=video)
        _check_outputs(json=json, plot=None, details=None)
        with ExitStack() as stack:
            if url is None:
                # Whoever was lost for good keeps a place for its resume.
                arguments = ("--model", model, "--max-sessions", str(2 * visitors))
                url, pid = stack.enter_context(own_server(*arguments, realtime=True))
            report = asyncio.run(run_mixed(url, plan, pid=pid, progress=_say))
    except (ValueError, OSError) as error:
        fail(error)
    print_mixed(report)
    if json is not None:
        write_mixed_json(report, json)
    if report.problems:
        raise SystemExit(1)


def bench_preset(
    weights: Path | None,
    device: str,
    num_threads: int | None,
    chunks: int,
    beside: Literal["diffusers"] | None,
    dtype: Literal["float32", "bfloat16"],
    json: Path | None,
) -> None:
    """What `visavis bench engine --preset bench` does."""
    import torch

    from visavis.server.bench_engine_preset import measure_preset, print_preset, write_preset_json

    try:
        if device != "cpu":
            raise ValueError(f"device={device!r}: the preset measures a CPU; leave the option out")
        if dtype != "float32" and beside is not None:
            raise ValueError(f"dtype={dtype}: beside compares float32; leave one of them out")
        report = measure_preset(
            weights, num_threads, chunks, beside=beside, dtype=getattr(torch, dtype)
        )
        print_preset(report)
        if json is not None:
            write_preset_json(report, json)
    except (ValueError, OSError) as error:
        fail(error)


def bench_quantize(
    *,
    model: str = "embedded",
    weights: Path | None = None,
    device: str = "cpu",
    portrait: Path | None = None,
    speech: Path | None = None,
    precision: list[str] | None = None,
    chunks: int = 1000,
    frames: int = 28,
    num_threads: Annotated[int | None, Parameter(name=["--num-threads", "--threads"])] = None,
    json: Path | None = None,
) -> None:
    """Measure what eight-bit weights cost over many chunks, errors adding up from one to the next.

    Pictures (PSNR), the face's motion, the mouth against the sound, and drift off the portrait.

    Parameters
    ----------
    model
        Name of the model.
    weights
        Folder of the model's weights, if not the bundled one.
    device
        Where to compute: cpu or cuda.
    portrait
        Picture of the face that talks. [default: the first of the server's gallery]
    speech
        Recording that is heard, again and again. [default: noise that swells like syllables]
    precision
        int8, fp8, int8-dynamic, fp8-dynamic, or bfloat16 for comparison; may be repeated.
        [default: int8, fp8 and bfloat16]
    chunks
        Chunks of 28 frames that each session makes.
    frames
        Pictures of each chunk that are compared; fewer take less time. The motion of all is.
    num_threads
        CPU threads of the engines. [default: chosen by the machine]
    json
        Also write the figures to this file, what was found so far every minute.
    """
    from visavis.server.bench_quantize import (
        first_portrait,
        measure_quality,
        print_quality,
        write_quality_json,
    )

    wanted = precision or ["int8", "fp8", "bfloat16"]
    try:
        picture = portrait or first_portrait()
        found = measure_quality(
            model,
            weights,
            device,
            picture,
            chunks,
            wanted,
            speech=speech,
            frames=frames,
            num_threads=num_threads,
            interim=None if json is None else partial(write_quality_json, path=json),
        )
        print_quality(found)
        if json is not None:
            write_quality_json(found, json)
    except (ValueError, OSError) as error:
        fail(error)


def register(bench: App) -> None:
    """Add these commands to `visavis bench`, which on its own is `visavis bench load`."""
    bench.default(bench_load)
    bench.command(bench_quantize, name="quantize")
    bench.command(bench_load, name="load")
    bench.command(bench_soak, name="soak")
