"""The commands of the serving side: `serve`, `render` and `bench`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from pydantic import ValidationError

from visavis.engine.weight_memory import Precision, VaeFormat, WeightMemory
from visavis.server import bench_cli, conformance_cli, group
from visavis.server.cli_errors import fail
from visavis.server.config import ServerConfig

SECRET_SETTINGS = ("api_keys", "token_secrets", "resume_secret")


def make_config(**flags: Any) -> ServerConfig:
    """Settings from the environment, overridden by the flags that were given (not None)."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return ServerConfig(**given)
    except ValidationError as error:
        first = error.errors(include_context=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        name = ".".join(str(part) for part in first["loc"])
        if not name:
            fail(message)
        # Keys stand in wrong places, too: what is not one of ours to show is not shown.
        value = f"={first['input']!r}" if name not in SECRET_SETTINGS else ""
        fail(f"{name}{value}: {message} (flag or VISAVIS_{name.upper()})")


def serve(
    *,
    host: str | None = None,
    port: int | None = None,
    model: str | None = None,
    weights: Path | None = None,
    device: str | None = None,
    num_threads: Annotated[int | None, Parameter(name=["--num-threads", "--threads"])] = None,
    num_steps: Annotated[int | None, Parameter(name=["--num-steps", "--steps"])] = None,
    processes: int | None = None,
    ulysses_degree: int | None = None,
    ring_degree: int | None = None,
    compiled: Annotated[bool | None, Parameter(negative="")] = None,
    recorded: Annotated[bool | None, Parameter(negative="")] = None,
    quantize: Precision | None = None,
    offload: int | None = None,
    vae_dtype: VaeFormat | None = None,
    max_sessions: int | None = None,
    admin_port: Annotated[int | None, Parameter(name=["--admin-port", "--metrics-port"])] = None,
    admin_host: str | None = None,
    api_keys_file: Path | None = None,
    no_auth: Annotated[bool | None, Parameter(negative="")] = None,
    require_consent: Annotated[bool | None, Parameter(negative="")] = None,
    watermark: str | None = None,
    data_dir: Path | None = None,
    log_format: Literal["auto", "console", "json"] | None = None,
    log_level: Literal["debug", "info", "warning", "error"] | None = None,
    open_page: Annotated[bool, Parameter(name="--open", negative="")] = False,
) -> None:
    """Serve live avatars over HTTP and WebSocket, with a web page at /.

    Every flag can also be an environment variable, such as VISAVIS_PORT; docs/protocol.md has more.

    Parameters
    ----------
    host
        Address to listen on; 0.0.0.0 for all networks. [default: 127.0.0.1]
    port
        Port to listen on, 0 for a free one. [default: 8000]
    model
        Name of the model. [default: embedded]
    weights
        Folder of the model's weights, if not the bundled one.
    device
        Where to compute: cpu or cuda. [default: cpu]
    num_threads
        CPU threads of the engine. [default: chosen by the machine]
    num_steps
        Denoising steps a chunk. [default: the model's]
    processes
        Processes, one a GPU, that make each chunk together; this one starts the others and starts
        them anew when one is lost. [default: 1]
    ulysses_degree
        In a group: processes that divide the heads. [default: as many as divide them]
    ring_degree
        In a group: groups of them that divide the tokens. [default: the rest]
    compiled
        Compile the transformer's blocks, and the video VAE's norms.
    recorded
        Replay denoising steps, and the video VAE's, as CUDA graphs; pays on four and more GPUs.
    quantize
        Keep the blocks' weights in eight bits: int8, fp8, int8-dynamic or fp8-dynamic; approximate.
        [default: as they are]
    offload
        So many blocks wait in host memory and visit the GPU in turn. [default: 0]
    vae_dtype
        Number format of the 14B model's video VAE: float32 is exact, bfloat16 faster where there
        are units for it. [default: as the transformer's]
    max_sessions
        Sessions at a time. [default: measured at start-up]
    admin_port
        Port of its own for /metrics and the list of sessions. [default: none; on an address of
        this machine alone, the main port]
    admin_host
        Address of that port. [default: 127.0.0.1]
    api_keys_file
        TOML file with the keys that callers need; `visavis keys new NAME` makes an entry.
    no_auth
        Serve everybody, also on an address that other machines reach.
    require_consent
        Take portraits only with consent=true.
    watermark
        Text to be seen in every video of POST /v1/videos.
    data_dir
        Folder of uploaded avatars. [default: ~/.local/share/visavis]
    log_format
        How to write the log. [default: console on a terminal, else json]
    log_level
        What to write. [default: info]
    open_page
        Open the web page when the model is ready.
    """
    config = make_config(
        host=host,
        port=port,
        model=model,
        weights=weights,
        device=device,
        num_threads=num_threads,
        num_steps=num_steps,
        processes=processes,
        ulysses_degree=ulysses_degree,
        ring_degree=ring_degree,
        compiled=compiled,
        recorded=recorded,
        quantize=quantize,
        offload=offload,
        vae_dtype=vae_dtype,
        max_sessions=max_sessions,
        admin_port=admin_port,
        admin_host=admin_host,
        api_keys_file=api_keys_file,
        no_auth=no_auth,
        require_consent=require_consent,
        watermark=watermark,
        data_dir=data_dir,
        log_format=log_format,
        log_level=log_level,
    )
    # The keys are hashed by now: neither child processes nor a core dump need them in clear.
    for name in SECRET_SETTINGS:
        os.environ.pop(f"VISAVIS_{name.upper()}", None)
    from visavis.server.logging import configure_logging

    configure_logging(config.log_format, config.log_level)
    if group.follows():
        try:
            group.follow(config)
        except ValueError as error:
            fail(error)
        return
    from visavis.server.serving import make_server

    try:
        server = make_server(config, open_page=open_page)
    except ValueError as error:
        fail(error)
    server.run()
    if server.failure is not None:
        sys.stderr.write(f"visavis: {server.failure}\n")
    code = 0 if server.failure is None else 1
    if server.engine_busy:
        # Torch aborts the process when the interpreter is taken down under a running thread.
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


def render(
    portrait: Path,
    speech: Path,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("out.mp4"),
    model: str = "embedded",
    weights: Path | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
    num_steps: int | None = None,
    compiled: Annotated[bool, Parameter(negative="")] = False,
    recorded: Annotated[bool, Parameter(negative="")] = False,
    quantize: Precision | None = None,
    offload: int = 0,
    vae_dtype: VaeFormat | None = None,
    seed: int = 0,
    size: int | None = None,
    watermark: str = "",
) -> None:
    """Render a talking portrait to a video file.

    Parameters
    ----------
    portrait
        A picture of one face; its orientation is read from EXIF.
    speech
        Any audio or video file that FFmpeg can read.
    output
        The MP4 file to write.
    model
        Name of the model.
    weights
        Folder of the model's weights, if not the bundled one.
    device
        Where to compute: cpu or cuda.
    num_threads
        CPU threads of the engine. [default: chosen by the machine]
    num_steps
        Denoising steps a chunk. [default: the model's]
    compiled
        Compile the transformer's blocks, and the video VAE's norms: for long videos, since that
        takes time at first.
    recorded
        Replay denoising steps, and the video VAE's, as CUDA graphs.
    quantize
        Keep the blocks' weights in eight bits: int8, fp8, int8-dynamic or fp8-dynamic; approximate.
        [default: as they are]
    offload
        So many blocks wait in host memory and visit the GPU in turn. [default: 0]
    vae_dtype
        Number format of the 14B model's video VAE: float32 is exact, bfloat16 faster where there
        are units for it. [default: as the transformer's]
    seed
        Random seed; the same seed gives the same video.
    size
        Side of the square frames in pixels, as the model allows. [default: the model's]
    watermark
        Text to be seen in the lower right corner of every frame.
    """
    from visavis.server.render import render as render_video

    try:
        render_video(
            portrait,
            speech,
            output,
            model=model,
            weights=weights,
            device=device,
            num_threads=num_threads,
            num_steps=num_steps,
            compiled=compiled,
            recorded=recorded,
            memory=WeightMemory(quantize=quantize, offload=offload, vae_dtype=vae_dtype),
            seed=seed,
            frame_size=None if size is None else (size, size),
            watermark=watermark,
        )
    except (ValueError, OSError) as error:
        fail(error)


def bench_engine(
    *,
    model: str = "embedded",
    weights: Path | None = None,
    device: str = "cpu",
    num_threads: Annotated[int | None, Parameter(name=["--num-threads", "--threads"])] = None,
    chunks: int = 12,
    quantize: Precision | None = None,
    offload: int = 0,
    preset: Literal["bench"] | None = None,
    beside: Literal["diffusers"] | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    json: Path | None = None,
) -> None:
    """Measure how fast this machine makes frames, decoding and H.264 included.

    Parameters
    ----------
    model
        Name of the model.
    weights
        Folder of the model's weights, if not the bundled one.
    device
        Where to compute: cpu or cuda.
    num_threads
        CPU threads of the engine. [default: chosen by the machine]
    chunks
        Chunks of each length to time.
    quantize
        Keep the blocks' weights in eight bits: int8, fp8, int8-dynamic or fp8-dynamic; approximate.
        [default: as they are]
    offload
        So many blocks wait in host memory and visit the GPU in turn. [default: 0]
    preset
        bench: a small model with every part of the released one (103 M + 14 M, 128x128, float32,
        two CPU threads) in place of MODEL, with random weights if no folder is given.
    beside
        diffusers: time the preset's VAE and diffusers' in turn, too, and its transformer with and
        without its caches; needs visavis[dev].
    dtype
        Format of the preset's VAE; what bfloat16 costs in exactness is measured, too.
    json
        Also write the figures to this file.
    """
    from visavis.server.bench import measure, print_table, write_json

    if preset is not None:
        if quantize is not None or offload:
            fail("quantize, offload: the preset measures plain weights; leave them out")
        bench_cli.bench_preset(weights, device, num_threads, chunks, beside, dtype, json)
        return
    if beside is not None:
        fail(f"beside={beside!r}: only a preset has a VAE to compare; add --preset bench")
    if dtype != "float32":
        fail(f"dtype={dtype!r}: only the preset's VAE has another format; add --preset bench")
    try:
        memory = WeightMemory(quantize=quantize, offload=offload)
        report = measure(model, weights, device, num_threads, chunks, memory)
        print_table(report)
        if json is not None:
            write_json(report, json)
    except (ValueError, OSError) as error:
        fail(error)


def new_key(name: str, *, scopes: list[str] | None = None) -> None:
    """Make an API key: the key itself on stdout, once, and its entry for the key file.

    Parameters
    ----------
    name
        Who will use it; it stands in logs.
    scopes
        What it may do: realtime, avatars, videos, admin. [default: all but admin]
    """
    from visavis.server.api_keys import ApiKeyError, digest_of, entry_of
    from visavis.server.api_keys import new_key as make_key

    key = make_key()
    try:
        entry = entry_of(name, digest_of(key), scopes)
    except ApiKeyError as error:
        fail(error)
    sys.stdout.write(f"{key}\n\n# for the file of --api-keys-file:\n{entry}")


def register(app: App) -> None:
    """Add these commands to the program."""
    keys = App(name="keys", help="API keys.")
    keys.command(new_key, name="new")
    app.command(keys)
    app.command(serve)
    app.command(render)
    bench = App(name="bench", help="Measure what this machine can do.")
    bench.command(bench_engine, name="engine")
    bench_cli.register(bench)
    app.command(bench)
    conformance_cli.register(app)
